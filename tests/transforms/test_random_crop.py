import pytest
import torch
from monai.data import MetaTensor

from medssl.transforms.random_crop import RandomCropd


def _sample(mask):
    numbers = torch.arange(mask.numel()).reshape(mask.shape)
    return {
        "image": MetaTensor(numbers.half()),
        "mask": mask,
        "place": numbers.int(),
        "mask_fg_indices": mask.flatten().nonzero()[:, 0].numpy(),
    }


def test_every_voxel_of_the_mask_is_a_center_equally_often():
    mask = torch.zeros(1, 9, 9, 9, dtype=torch.bool)
    mask[0, 3:6, 4, 2:6] = True  # the crop fits around each of them
    crop = RandomCropd(("place",), (3, 3, 3))
    crop.set_random_state(seed=0)
    centers = torch.tensor([int(crop(_sample(mask))["place"][0, 1, 1, 1]) for _ in range(3000)])
    found, counts = centers.unique(return_counts=True)
    assert torch.equal(found, mask.flatten().nonzero()[:, 0])
    assert counts.min() > 180  # 250 expected; 5 standard deviations are 75
    assert counts.max() < 325


def test_a_crop_at_the_border_lies_inside():
    mask = torch.zeros(1, 6, 5, 7, dtype=torch.bool)
    mask[0, [0, 5], [0, 4], [0, 6]] = True
    crop = RandomCropd(("place",), (4, 4, 4))
    corners = {int(crop(_sample(mask))["place"][0, 0, 0, 0]) for _ in range(40)}
    assert corners == {0, (2 * 5 + 1) * 7 + 3}


def test_entries_are_cut_alike_to_plain_float32():
    mask = torch.ones(1, 6, 6, 6, dtype=torch.bool)
    crop = RandomCropd(("image", "mask", "place", "absent"), (4, 4, 4))(_sample(mask))
    assert type(crop["image"]) is torch.Tensor
    assert crop["image"].dtype == crop["mask"].dtype == torch.float32
    assert torch.equal(crop["image"], crop["place"].float())
    assert "absent" not in crop


def test_without_a_mask_every_center_is_allowed():
    crop = RandomCropd(("place",), (2, 2, 2))
    sample = _sample(torch.zeros(1, 4, 4, 4, dtype=torch.bool))
    assert len({int(crop(sample)["place"][0, 0, 0, 0]) for _ in range(200)}) > 15


def test_a_volume_smaller_than_the_crop_is_refused():
    with pytest.raises(ValueError, match=r"\(9, 2, 2\) voxels do not fit into a volume of \(4, 4, 4\)"):
        RandomCropd(("image",), (9, 2, 2))(_sample(torch.ones(1, 4, 4, 4)))
