import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medssl.functional.uncertainty import jensen_shannon, predictive_entropy
from medssl.geometry import Grid
from medssl.inference.plan import Box
from medssl.inference.predictor import Prediction
from medssl.labels import BRAIN_TISSUES
from medssl.workflows.prediction import Prepared
from medssl.workflows.scan_measures import measure, measures_of_json, mirrored

SHAPE = (16, 20, 12)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
CONTRASTS = ("T1w", "T2w")


def prepared(spot=None):
    """A mask in a corner: gray matter to the left of white matter, T2w brighter in the latter."""
    mask = torch.zeros(1, *SHAPE)
    mask[0, 2:12, 2:18, 2:10] = 1
    image = torch.zeros(2, *SHAPE)
    image[1, 7:] = 1.0
    return Prepared({"image": MetaTensor(image, affine=torch.tensor(AFFINE)), "mask": MetaTensor(mask)}, None)


def answer(unsure=None, confidence=0.97):
    """Probabilities: GM up to index 6, WM from 7; CSF cannot be told from GM in a cube."""
    p = torch.full((4, *SHAPE), (1 - confidence) / 3)
    p[1, :7] = confidence
    p[2, 7:] = confidence
    if unsure is not None:
        p[(slice(None), *unsure)] = torch.tensor([0.05, 0.475, 0.0, 0.475]).view(4, 1, 1, 1)
    return p


def predictor_of(p):
    box = Box((0, 0, 0), SHAPE)
    return SimpleNamespace(predict_box=lambda image, mask: Prediction(p * mask, box, SHAPE))


def measured(p, second=None, grid=None):
    grid = grid or Grid(SHAPE, AFFINE)
    opinion = None if second is None else lambda _: second
    return measure(
        prepared(), predictor_of(p), second=opinion, grid=grid, contrasts=CONTRASTS, table=BRAIN_TISSUES
    )


def test_entropy_is_the_mean_near_the_border_inside_the_mask():
    p = answer()
    p[:, 6:8] = torch.tensor([0.0, 0.5, 0.5, 0.0]).view(4, 1, 1, 1)
    p[1, 6], p[2, 6], p[1, 7], p[2, 7] = 0.6, 0.4, 0.4, 0.6
    expected = -(0.6 * np.log(0.6) + 0.4 * np.log(0.4))
    assert measured(p).entropy == pytest.approx(expected, rel=1e-5)


def test_an_unsure_interior_far_from_any_border_does_not_count():
    p = answer()
    sure = measured(p).entropy
    p[:, 2:4] = torch.tensor([0.0, 0.52, 0.48, 0.0]).view(4, 1, 1, 1)
    assert measured(p).entropy == pytest.approx(sure)


def test_disagreement_is_the_mean_in_the_mask():
    first, second = answer(), answer(confidence=0.5)
    assert measured(first).disagreement is None
    assert measured(first, first).disagreement == pytest.approx(0, abs=1e-6)
    apart = jensen_shannon(first[None], second[None])[0]
    inside = prepared().sample["mask"][0].bool()
    assert measured(first, second).disagreement == pytest.approx(float(apart[inside].mean()), rel=1e-5)


def test_the_scan_is_described_by_shares_volume_and_intensities():
    one = measured(answer())
    assert one.shares == pytest.approx({"GM": 0.5, "WM": 0.5, "CSF": 0.0})
    assert one.volume_ml == pytest.approx(10 * 16 * 8 * 0.008)
    assert one.means == pytest.approx(
        {f"{name} {label}": 0.0 for name in CONTRASTS for label in ("GM", "WM", "CSF")} | {"T2w WM": 1.0}
    )
    assert one.quantiles["T2w"] == [0, 0, pytest.approx(0.5, abs=0.5), 1, 1]
    assert [len(values) for _, values in one.descriptor()] == [3, 1, 10, 6]


def test_the_border_that_is_confused_most_is_named():
    assert measured(answer()).border == ("GM", "WM")
    cube = (slice(5, 7), slice(3, 12), slice(3, 9))
    assert measured(answer(unsure=cube)).border == ("GM", "CSF")


def test_the_slices_run_through_the_most_uncertain_place():
    cube = (slice(4, 9), slice(12, 17), slice(4, 9))
    p = answer()
    p[(slice(None), *cube)] = torch.tensor([0.0, 0.4, 0.6, 0.0]).view(4, 1, 1, 1)
    one = measured(p)
    assert all(span.start <= at < span.stop for at, span in zip(one.voxel, cube, strict=True))
    assert [(cut.view, cut.axis, cut.index) for cut in one.slices] == [
        ("sagittal", 0, one.voxel[0]),
        ("coronal", 1, one.voxel[1]),
        ("axial", 2, one.voxel[2]),
    ]
    assert "front" in one.place


def test_the_place_is_counted_in_the_stored_array():
    p = answer()
    p[:, 4:9, 12:17, 4:9] = torch.tensor([0.0, 0.4, 0.6, 0.0]).view(4, 1, 1, 1)
    plain = measured(p)
    affine = np.array([[0, -1.0, 0, 30.0], [0, 0, 2.0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]])
    turned = measured(p, grid=Grid((24, 32, 20), affine))
    assert turned.voxel == (2 * plain.voxel[2], 30 - 2 * plain.voxel[0], plain.voxel[1])
    assert {cut.view: cut.axis for cut in turned.slices} == {"axial": 0, "sagittal": 1, "coronal": 2}


def test_an_empty_mask_and_one_label_are_measured_as_nothing():
    scan = prepared()
    scan.sample["mask"].zero_()
    one = measure(
        scan,
        predictor_of(answer()),
        second=None,
        grid=Grid(SHAPE, AFFINE),
        contrasts=CONTRASTS,
        table=BRAIN_TISSUES,
    )
    assert (one.entropy, one.volume_ml, one.border) == (0.0, 0.0, ())


def test_measures_survive_json():
    one = measured(answer(), answer(confidence=0.6))
    assert measures_of_json(json.loads(json.dumps(one.as_json()))) == one


def test_mirrored_turns_the_scan_and_turns_the_answer_back():
    seen = []

    def predict(image, mask):
        seen.append((image, mask))
        return torch.stack([image[1], image[1] * 0])

    scan = prepared()
    found = mirrored(scan, SimpleNamespace(predict=predict))
    image, mask = seen[0]
    assert torch.equal(image, scan.sample["image"].as_tensor().flip(1))
    assert torch.equal(mask, (scan.sample["mask"].as_tensor()[0] > 0.5).flip(0))
    assert torch.equal(found[0], scan.sample["image"].as_tensor()[1])
    assert predictive_entropy(found[None]).shape == (1, *SHAPE)
