import numpy as np
import pytest
import torch
from monai.transforms import Affine

from medssl.transforms.random_pose import RandomPosed, resampled, sampling_grid


@pytest.fixture
def volume():
    return torch.randn(2, 9, 14, 11, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_a_matrix_moves_as_in_monai(volume, mode):
    angles, shears, scales = (0.2, -0.1, 0.15), (0.05, 0, -0.02, 0.01, 0.03, 0.04), (1.1, 0.9, 1.05)
    monai = Affine(angles, shears, scale_params=scales, mode=mode, padding_mode="zeros", image_only=False)
    expected, matrix = monai(volume)
    ours = resampled(volume, sampling_grid(volume.shape[1:], np.asarray(matrix)[:3, :3]), mode)
    assert torch.allclose(ours, torch.as_tensor(expected), atol=1e-4)


def test_matrices_stay_in_their_ranges_and_are_drawn_as_monai_composes_them():
    move = RandomPosed(["image"], [])
    move.set_random_state(seed=1)
    drawn = np.stack([move._matrix() for _ in range(300)])
    assert np.abs(np.diagonal(drawn, axis1=1, axis2=2) - 1).max() < 0.2
    assert 0.7 < np.linalg.det(drawn).min() < 0.8
    assert 1.2 < np.linalg.det(drawn).max() < 1.4
    mean = drawn.mean(0)
    assert np.abs(mean - np.diag(np.diag(mean))).max() < 0.03


def test_no_strength_only_mirrors(volume):
    move = RandomPosed(["image"], ["label"], strength=0)
    sample = {"image": volume, "label": volume[:1]}
    mirrored = 0
    for seed in range(200):
        move.set_random_state(seed=seed)
        out = move(sample)
        flipped = torch.equal(out["image"], volume.flip(1))
        assert flipped or torch.equal(out["image"], volume)
        assert torch.equal(out["label"], volume[:1].flip(1) if flipped else volume[:1])
        mirrored += flipped
    assert 70 < mirrored < 130  # 100 expected, 4 standard deviations are 28


def test_half_of_the_crops_are_moved_and_labels_keep_their_values(volume):
    label = (volume[:1] > 0).float() * 3
    move = RandomPosed(["image"], ["label", "absent"], flip_probability=0)
    moved = 0
    for seed in range(60):
        move.set_random_state(seed=seed)
        out = move({"image": volume, "label": label})
        assert set(out["label"].unique().tolist()) <= {0, 3}
        assert "absent" not in out
        moved += not torch.equal(out["image"], volume)
        assert torch.equal(out["image"], volume) == torch.equal(out["label"], label)
    assert 17 < moved < 43


def test_entries_of_one_sample_move_together(volume):
    move = RandomPosed(["image", "target"], [], flip_probability=1, affine_probability=1)
    out = move({"image": volume, "target": volume.clone()})
    assert torch.equal(out["image"], out["target"])
    assert out["image"].shape == volume.shape
