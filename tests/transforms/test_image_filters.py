"""Filters against naive loops over pixels, the outermost of which go on beyond the edge."""

import math

import numpy as np
import pytest
import torch

from medssl.transforms.image_filters import bilateral, gaussian_blur, mean_blur, median_blur


def _images(channels, height=9, width=11, batch=2):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1)).double()


def _around(image, y, x, radius):
    """Yield (dy, dx, values of all channels) of the pixels around one."""
    H, W = image.shape[1:]
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            yield dy, dx, image[:, min(max(y + dy, 0), H - 1), min(max(x + dx, 0), W - 1)]


def _each_pixel(images, value):
    result = np.zeros(images.shape)
    for b, y, x in np.ndindex(len(images), *images.shape[2:]):
        result[b, :, y, x] = value(images[b].numpy(), y, x)
    return torch.from_numpy(result)


def _reference_gaussian(image, y, x, sigma):
    weighted = [
        (math.exp(-(dy**2 + dx**2) / (2 * sigma**2)), values)
        for dy, dx, values in _around(image, y, x, math.ceil(3 * sigma))
    ]
    return sum(weight * values for weight, values in weighted) / sum(weight for weight, _ in weighted)


def _reference_bilateral(image, y, x, sigma_color, sigma_space):
    total, weights = 0, 0
    for dy, dx, values in _around(image, y, x, 4):
        if dy**2 + dx**2 <= 16:
            color = np.abs(values - image[:, y, x]).sum()
            exponent = (dy**2 + dx**2) / (2 * sigma_space**2) + color**2 / (2 * sigma_color**2)
            total, weights = total + math.exp(-exponent) * values, weights + math.exp(-exponent)
    return total / weights


REFERENCES = {
    "mean": (mean_blur, lambda *pixel: np.mean([v for *_, v in _around(*pixel, 2)], 0)),
    "gaussian": (lambda x: gaussian_blur(x, 0.8), lambda *pixel: _reference_gaussian(*pixel, 0.8)),
    "median": (median_blur, lambda *pixel: np.median([v for *_, v in _around(*pixel, 2)], 0)),
    "median 3": (
        lambda x: median_blur(x, 3),
        lambda *pixel: np.median([v for *_, v in _around(*pixel, 1)], 0),
    ),
    "bilateral": (bilateral, lambda *pixel: _reference_bilateral(*pixel, 75 / 255, 75.0)),
    "bilateral 9, .1, 2": (
        lambda x: bilateral(x, 9, 0.1, 2.0),
        lambda *pixel: _reference_bilateral(*pixel, 0.1, 2.0),
    ),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("filtered", "reference"), REFERENCES.values(), ids=REFERENCES)
def test_each_filter_equals_the_naive_loop(filtered, reference, channels):
    images = _images(channels)
    assert torch.allclose(filtered(images), _each_pixel(images, reference), atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 2, 3), (3, 2, 4, 30)])
@pytest.mark.parametrize(("filtered", "reference"), REFERENCES.values(), ids=REFERENCES)
def test_small_images_and_constants_are_no_exception(filtered, reference, shape):
    images = torch.rand(shape)
    assert filtered(images).shape == shape
    assert filtered(images).dtype == images.dtype
    constant = torch.full(shape, 0.25)
    assert torch.allclose(filtered(constant), constant, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.7, 1.5, 3.0])
def test_the_standard_deviation_of_a_gaussian_is_honored(sigma):
    """D4: the number is the deviation, not a border rule."""
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    point[..., 20, 20] = 1
    blurred = gaussian_blur(point, sigma)[0, 0]
    offset = torch.arange(41) - 20.0
    assert blurred.sum().item() == pytest.approx(1)
    assert math.sqrt((blurred.sum(0) * offset**2).sum()) == pytest.approx(sigma, rel=0.03)
    assert math.sqrt((blurred.sum(1) * offset**2).sum()) == pytest.approx(sigma, rel=0.03)


def test_the_bilateral_filter_keeps_an_edge_that_the_mean_smears():
    noise = 0.02 * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    images = noise + (torch.arange(16) >= 8).float() * 0.9
    kept, smeared = bilateral(images, sigma_color=0.1), mean_blur(images)
    assert (kept - images).abs().max() < 0.03
    assert (smeared - images).abs().max() > 0.3
    assert kept[..., :8].std() < 0.5 * images[..., :8].std()


def test_a_large_batch_is_filtered_in_parts(monkeypatch):
    images = _images(2, batch=5)
    whole = median_blur(images)
    monkeypatch.setattr("medssl.transforms.image_filters._ELEMENTS", 2 * 99 * 25 * 2)
    assert torch.equal(median_blur(images), whole)
