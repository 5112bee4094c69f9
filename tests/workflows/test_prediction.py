import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from phantoms import ellipsoid_labels, phantom_image, save
from torch import nn

from medssl.inference.plan import Box
from medssl.inference.predictor import Prediction
from medssl.io.nifti import read_volume
from medssl.io.subjects import Subject
from medssl.labels import BRAIN_TISSUES
from medssl.transforms import labels_from_probabilities, preprocessing, to_native_grid
from medssl.workflows.models import Model
from medssl.workflows.prediction import Prepared, bring_back, prepare

SHAPE = (28, 34, 30)


@pytest.fixture
def model() -> Model:
    """What there is to know about a network, without one."""
    steps = preprocessing(table=BRAIN_TISSUES, spacing=(1.5, 1.5, 1.5), keys=("image", "mask"))
    return Model("none", nn.Identity(), ("T1w", "T2w"), BRAIN_TISSUES, (1.5, 1.5, 1.5), steps, "", "")


@pytest.fixture
def subject(tmp_path, affine_oblique) -> Subject:
    """An oblique scan, the second contrast stored with a slope and an intercept."""
    labels = ellipsoid_labels(SHAPE)
    first = save(tmp_path / "x_T1w.nii.gz", phantom_image(labels, (0, 400, 600, 150), 1), affine_oblique)
    image = nib.Nifti1Image(phantom_image(labels, (0, 500, 400, 900), 2) / np.float32(7), affine_oblique)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "x_T2w.nii.gz")
    assert nib.load(tmp_path / "x_T2w.nii.gz").dataobj.slope not in (1, None)
    return Subject("x", (first, tmp_path / "x_T2w.nii.gz"))


def volumes(subject):
    return [read_volume(path, subject.key) for path in subject.images]


def invented(prepared: Prepared) -> Prediction:
    """Probabilities without any order, in a box of the network's space."""
    shape = tuple(prepared.sample["image"].shape[1:])
    box = Box((3, 2, 4), tuple(side - 2 for side in shape))
    scores = torch.randn(len(BRAIN_TISSUES), *box.shape, generator=torch.Generator().manual_seed(0))
    return Prediction(scores.softmax(0), box, shape)


def _reference(prepared: Prepared, prediction: Prediction):
    """Bring all labels back at once."""
    sample = dict(prepared.sample)
    sample["pred"] = MetaTensor(prediction.whole(), meta=sample["image"].meta)
    sample = to_native_grid(preprocessing=prepared.preprocessing)(sample)
    probabilities = sample["pred"].as_tensor().movedim(0, -1).clone()
    probabilities[~sample["native_mask"][0]] = torch.eye(len(BRAIN_TISSUES))[0]
    labels = labels_from_probabilities(table=BRAIN_TISSUES)(sample)["pred"].as_tensor()[0]
    return labels.numpy(), probabilities.numpy()


def test_label_by_label_comes_back_what_comes_back_at_once(model, subject):
    prepared = prepare(subject, model)
    prediction = invented(prepared)
    labels, probabilities = bring_back(prepared, prediction, BRAIN_TISSUES, probabilities=True)
    expected, expected_probabilities = _reference(prepared, prediction)
    assert labels.shape == SHAPE
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert np.array_equal(labels, expected)
    assert np.array_equal(probabilities, expected_probabilities)


def test_probabilities_are_not_kept_unless_asked_for(model, subject, monkeypatch):
    prepared = prepare(subject, model)
    prediction = invented(prepared)
    expected = bring_back(prepared, prediction, BRAIN_TISSUES, probabilities=True)[0]
    monkeypatch.setattr(Prediction, "whole", lambda _: pytest.fail("all labels at once"))
    labels, probabilities = bring_back(prepared, prediction, BRAIN_TISSUES)
    assert probabilities is None
    assert np.array_equal(labels, expected)


def test_what_was_read_already_gives_the_same_sample(model, subject, monkeypatch):
    by_path = prepare(subject, model).sample
    monkeypatch.setattr("monai.data.NibabelReader.read", lambda *_: pytest.fail("read again"))
    by_hand = prepare(subject, model, volumes=volumes(subject)).sample
    for key in ("image", "mask", "native_mask"):
        assert torch.equal(torch.as_tensor(by_hand[key]), torch.as_tensor(by_path[key])), key
    assert torch.equal(by_hand["image"].affine, by_path["image"].affine)


def test_contrasts_on_another_grid_are_read_again(model, subject, affine_oblique):
    wider = np.pad(nib.load(subject.images[1]).get_fdata(), 1).astype(np.float32)
    corner = np.eye(4)
    corner[:3, 3] = -1
    save(subject.images[1], wider, affine_oblique @ corner)
    resampled = prepare(subject, model, resample=True).sample["image"]
    by_hand = prepare(subject, model, resample=True, volumes=volumes(subject)).sample["image"]
    assert torch.equal(by_hand.as_tensor(), resampled.as_tensor())


def test_a_mask_file_is_read_beside_images_that_are_there(model, subject, tmp_path, affine_oblique):
    inside = np.zeros(SHAPE, np.uint8)
    inside[8:20, 8:20, 8:20] = 1
    path = save(tmp_path / "mask.nii.gz", inside, affine_oblique)
    masked = Subject("x", subject.images, mask=path)
    sample = prepare(masked, model, volumes=volumes(subject)).sample
    assert np.array_equal(sample["native_mask"][0].numpy(), inside > 0)


def test_a_scan_is_prepared_while_another_is_brought_back(model, subject):
    one = prepare(subject, model)
    spacing = next(step for step in one.preprocessing.transforms if "Spacing" in type(step).__name__)
    with spacing.spacing_transform.sp_resample.trace_transform(False):  # as MONAI does while it inverts
        other = prepare(subject, model)
    recorded = [len(each.sample["image"].applied_operations) for each in (one, other)]
    assert recorded[0] == recorded[1] > 0
    prediction = invented(one)
    assert np.array_equal(*(bring_back(each, prediction, BRAIN_TISSUES)[0] for each in (one, other)))
