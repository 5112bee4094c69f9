import math

import numpy as np
import pytest
import torch

from medssl.transforms.image_geometry import rotation, scaling, shear, translation, warp


def _images(height=7, width=7, channels=2):
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(2))


def _one(value):
    return torch.tensor([float(value)])


def _reference_warp(image, matrix):
    """Look up each pixel of the result in the image, bilinearly; beyond the edge its outermost pixels."""
    H, W = image.shape
    result = np.zeros((H, W))
    for row, column in np.ndindex(H, W):
        # offsets from the middle in pixels; the matrix is meant for a square whose half side is 1
        x, y = column + 0.5 - W / 2, row + 0.5 - H / 2
        u = matrix[0][0] * x + matrix[0][1] * y + matrix[0][2] * W / 2 + W / 2 - 0.5
        v = matrix[1][0] * x + matrix[1][1] * y + matrix[1][2] * H / 2 + H / 2 - 0.5
        u, v = min(max(u, 0), W - 1), min(max(v, 0), H - 1)
        left, top = min(int(u), W - 2), min(int(v), H - 2)
        for dy, dx in np.ndindex(2, 2):
            weight = (1 - abs(u - left - dx)) * (1 - abs(v - top - dy))
            result[row, column] += weight * image[top + dy, left + dx]
    return result


@pytest.mark.parametrize("shape", [(7, 7), (6, 11), (12, 5)])
def test_warp_equals_the_naive_loop(shape):
    images = _images(*shape)
    matrices = rotation(_one(27)) @ scaling(_one(1.3), _one(0.8)) @ shear(_one(0.2), _one(-0.1))
    matrices = matrices @ translation(_one(0.11), _one(-0.07))
    found = warp(images, matrices, "border")[0]
    for image, changed in zip(images[0].numpy(), found.numpy(), strict=True):
        assert np.allclose(changed, _reference_warp(image, matrices[0].tolist()), atol=1e-5)


def test_flips_go_along_their_axis():
    """D2: on an asymmetric 2 x 3 image, left-right is left-right."""
    image = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])[None, None]
    mirrored = warp(image, scaling(_one(-1), _one(1)))[0, 0]
    assert torch.allclose(mirrored, torch.tensor([[0.3, 0.2, 0.1], [0.6, 0.5, 0.4]]), atol=1e-6)
    upturned = warp(image, scaling(_one(1), _one(-1)))[0, 0]
    assert torch.allclose(upturned, torch.tensor([[0.4, 0.5, 0.6], [0.1, 0.2, 0.3]]), atol=1e-6)


def test_the_unit_matrix_returns_the_images_themselves():
    images = _images()
    assert warp(images, torch.eye(3)[None]) is images


def test_quarter_turns_are_exact():
    images = _images()
    turned = [warp(images, rotation(_one(90 * turns))) for turns in range(4)]
    for turns, found in enumerate(turned):
        assert torch.allclose(found, images.rot90(turns, (2, 3)), atol=1e-5)


def test_translation_moves_right_and_down_by_a_share_of_the_side():
    images = _images(10, 10)
    moved = warp(images, translation(_one(0.2), _one(0.1)), "zeros")
    assert torch.allclose(moved[..., 1:, 2:], images[..., :-1, :-2], atol=1e-5)
    assert moved[..., :1, :].abs().max() < 1e-5
    assert moved[..., :, :2].abs().max() < 1e-5


@pytest.mark.parametrize(("padding", "expected"), [("reflection", 0), ("border", 0), ("zeros", None)])
def test_padding_says_what_lies_beyond_the_edge(padding, expected):
    images = _images(10, 10)
    moved = warp(images, translation(_one(0.1), _one(0)), padding)
    outside = torch.zeros_like(images[..., 0]) if expected is None else images[..., expected]
    assert torch.allclose(moved[..., 0], outside, atol=1e-5)


def test_zoom_enlarges():
    images = torch.zeros(1, 1, 20, 20)
    images[..., 8:12, 8:12] = 1
    areas = [float(warp(images, scaling(_one(zoom), _one(zoom))).sum()) for zoom in (0.8, 1.0, 1.5)]
    assert areas == pytest.approx([16 * 0.8**2, 16, 16 * 1.5**2], rel=0.1)


def test_angles_are_right_in_any_aspect_ratio():
    images = torch.zeros(1, 1, 41, 21)
    images[..., 20, 4:17] = 1
    rows, columns = warp(images, rotation(_one(45)), "zeros")[0, 0].nonzero().double().T
    slope = np.polyfit(columns.numpy(), rows.numpy(), 1)[0]
    assert abs(slope) == pytest.approx(math.tan(math.radians(45)), rel=0.05)


def test_each_image_has_its_matrix_and_keeps_type_and_range():
    images = torch.rand(4, 3, 9, 9, dtype=torch.float64)
    degrees = torch.tensor([0.0, 30.0, -30.0, 180.0])
    together = warp(images, rotation(degrees))
    alone = torch.cat([warp(images[i : i + 1], rotation(degrees[i : i + 1])) for i in range(4)])
    assert together.dtype == torch.float64
    assert torch.allclose(together, alone)
    assert together.min() >= 0
    assert together.max() <= 1
