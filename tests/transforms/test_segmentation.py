import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from phantoms import ellipsoid_labels, phantom_image, save

from medssl.labels import BRAIN_TISSUES, UNKNOWN
from medssl.transforms import (
    augmentation,
    crop_preparation,
    postprocessing,
    preprocessing,
    validation_postprocessing,
)


@pytest.fixture
def item(tmp_path, affine_oblique):
    labels = ellipsoid_labels((30, 26, 22))
    return {
        "subject": "sub-01",
        "image": [
            str(
                save(
                    tmp_path / "sub-01_T1w.nii.gz",
                    phantom_image(labels, (0, 400, 600, 150), 1),
                    affine_oblique,
                )
            ),
            str(
                save(
                    tmp_path / "sub-01_T2w.nii.gz",
                    phantom_image(labels, (0, 500, 400, 900), 2),
                    affine_oblique,
                )
            ),
        ],
        "label": str(save(tmp_path / "sub-01_dseg.nii.gz", labels, affine_oblique)),
    }


def test_preprocessing_gives_ras_at_the_spacing_normalized(item):
    sample = preprocessing(table=BRAIN_TISSUES, spacing=(1.5, 1.5, 1.5))(item)
    image = sample["image"]
    assert nib.aff2axcodes(image.affine.numpy()) == ("R", "A", "S")
    assert image.pixdim.tolist() == pytest.approx([1.5, 1.5, 1.5])
    assert sample["label"].shape[1:] == image.shape[1:] == sample["mask"].shape[1:]
    assert image[0][sample["mask"][0] > 0.5].mean().item() == pytest.approx(0, abs=1e-4)


def test_training_and_inference_prepare_images_alike(item):
    build = {"table": BRAIN_TISSUES, "spacing": (1.5, 1.5, 1.5)}
    train = preprocessing(**build)(dict(item))["image"]
    infer = preprocessing(**build, keys=("image", "mask"))({k: v for k, v in item.items() if k != "label"})[
        "image"
    ]
    assert torch.equal(train.as_tensor(), infer.as_tensor())


def test_crops_lie_in_the_mask_and_unknown_outside(item):
    prepare, cut = (
        preprocessing(table=BRAIN_TISSUES, spacing=(2, 2, 2)),
        crop_preparation(crop_size=(16, 16, 16)),
    )
    change = augmentation(crop_size=(16, 16, 16))
    change.set_random_state(seed=1)
    ready = cut(prepare(item))
    for _ in range(5):
        crop = change(ready)[0]
        mask, label = crop["mask"][0] > 0.5, crop["label"][0]
        assert crop["image"].shape == (2, 16, 16, 16)
        assert mask.any()
        assert torch.all(label[~mask] == UNKNOWN)
        assert torch.all(crop["image"][:, ~mask] == 0)
        assert set(label[mask].unique().tolist()) <= {0, 1, 2, 3}


def test_a_volume_smaller_than_the_crop_is_padded(item):
    ready = crop_preparation(crop_size=(48, 48, 48))(
        preprocessing(table=BRAIN_TISSUES, spacing=(2, 2, 2))(item)
    )
    assert augmentation(crop_size=(48, 48, 48), strength=0)(ready)[0]["image"].shape == (2, 48, 48, 48)


def test_truth_goes_there_and_back_onto_the_native_grid(item):
    prepare = preprocessing(table=BRAIN_TISSUES, spacing=(1.5, 1.5, 1.5))
    sample = prepare(dict(item))
    scores = torch.nn.functional.one_hot(sample["label"][0].long(), 4).movedim(-1, 0) * 20.0
    sample["pred"] = MetaTensor(scores, meta=sample["image"].meta)
    result = postprocessing(preprocessing=prepare, table=BRAIN_TISSUES)(sample)["pred"]
    truth = np.asarray(nib.load(item["label"]).dataobj)
    assert result.shape == (1, 30, 26, 22)
    assert np.allclose(result.affine, nib.load(item["label"]).affine, atol=1e-4)
    assert np.all(result[0].numpy()[truth == 0] == 0)
    assert np.mean(result[0].numpy()[truth > 0] == truth[truth > 0]) > 0.85


def test_without_resampling_every_voxel_comes_back(item):
    prepare = preprocessing(table=BRAIN_TISSUES, spacing=(2.0, 1.8, 2.2))
    sample = prepare(dict(item))
    scores = torch.nn.functional.one_hot(sample["label"][0].long(), 4).movedim(-1, 0) * 20.0
    sample["pred"] = MetaTensor(scores, meta=sample["image"].meta)
    result = postprocessing(preprocessing=prepare, table=BRAIN_TISSUES)(sample)["pred"]
    truth = np.asarray(nib.load(item["label"]).dataobj)
    assert np.mean(result[0].numpy() == truth) > 0.97


def test_validation_scores_only_known_voxels_inside_the_mask():
    label = torch.tensor([1, 2, UNKNOWN, 3]).reshape(1, 4, 1, 1)
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 4, 1, 1)
    pred = torch.eye(4)[[1, 3, 2, 2]].T.reshape(4, 4, 1, 1) * 9
    result = validation_postprocessing(table=BRAIN_TISSUES)({"pred": pred, "label": label, "mask": mask})
    assert result["pred"].argmax(0).flatten().tolist() == [1, 3, 0, 0]
    assert result["label"].argmax(0).flatten().tolist() == [1, 2, 0, 0]
