import pytest
import torch

from medssl.labels import UNKNOWN
from medssl.transforms.masking import BackgroundWhereUnknownd, BoundByMaskd, normalize_in_mask


def test_each_channel_is_normalized_inside_and_zero_outside():
    image = torch.randn(2, 6, 6, 6) * torch.tensor([3.0, 50.0])[:, None, None, None] + 100
    mask = torch.zeros(1, 6, 6, 6)
    mask[:, 1:5, 1:5, 2:6] = 1
    result = normalize_in_mask(image, mask)
    inside = result[:, mask[0] > 0]
    assert inside.mean(1).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert inside.std(1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert torch.all(result[:, mask[0] == 0] == 0)


def test_what_lies_outside_does_not_matter():
    image, mask = torch.randn(1, 5, 5, 5), torch.zeros(1, 5, 5, 5)
    mask[:, 1:4] = 1
    changed = image.clone()
    changed[:, 0] = 1e4
    assert torch.equal(normalize_in_mask(image, mask), normalize_in_mask(changed, mask))


def test_a_constant_channel_becomes_zero():
    assert torch.all(normalize_in_mask(torch.full((1, 3, 3, 3), 7.0), torch.ones(1, 3, 3, 3)) == 0)


def test_bounds_set_what_lies_outside():
    mask = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    sample = {
        "image": torch.ones(2, 2, 1, 1),
        "label": torch.ones(1, 2, 1, 1, dtype=torch.uint8),
        "mask": mask,
    }
    result = BoundByMaskd(("image", "label"), (0.0, UNKNOWN))(sample)
    assert result["image"].flatten().tolist() == [1, 0, 1, 0]
    assert result["label"].flatten().tolist() == [1, UNKNOWN]
    assert result["label"].dtype == torch.uint8


def test_unknown_voxels_are_background_in_both():
    pred = torch.tensor([[0.1, 0.1], [0.9, 0.9]]).reshape(2, 2, 1, 1)
    sample = {"pred": pred, "label": torch.tensor([1, UNKNOWN]).reshape(1, 2, 1, 1)}
    result = BackgroundWhereUnknownd()(sample)
    assert result["pred"].argmax(0).flatten().tolist() == [1, 0]
    assert result["label"].flatten().tolist() == [1, 0]
