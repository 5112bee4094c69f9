"""Changes of intensity against naive loops, and Pillow where it defines them alike."""

import colorsys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from medssl.transforms.image_intensity import (
    autocontrast,
    brightness,
    clahe,
    contrast,
    equalize,
    gamma,
    hue,
    luminance,
    posterize,
    saturation,
    sharpness,
    solarize,
)

FACTORS = torch.tensor([0.05, 0.6, 0.95, 1.3])
BY_AMOUNT = {
    "brightness": (brightness, FACTORS),
    "contrast": (contrast, FACTORS),
    "saturation": (saturation, FACTORS),
    "sharpness": (sharpness, FACTORS),
    "hue": (hue, torch.tensor([-0.4, -0.1, 0.2, 0.5])),
    "posterize": (posterize, torch.tensor([1.0, 4.9, 6.0, 8.0])),
    "solarize": (solarize, torch.tensor([0.0, 77.7, 128.0, 256.0])),
}
PLAIN = {
    "autocontrast": autocontrast,
    "equalize": equalize,
    "equalize luminance": partial(equalize, of_luminance=True),
    "clahe": clahe,
    "gamma": partial(gamma, exponent=1.25),
}
ALL = PLAIN | {
    name: (lambda images, change=change, amount=amount: change(images, amount[: len(images)]))
    for name, (change, amount) in BY_AMOUNT.items()
}


def _images(channels=3, height=19, width=23, batch=4, seed=0):
    """Return images of 8 bits, dark and bright ones, not the whole range."""
    levels = np.random.default_rng(seed).integers(20, 220, (batch, channels, height, width))
    levels[0] //= 2
    levels[-1, :, :5] = 20
    return torch.from_numpy(levels).float() / 255


def _pillow(image):
    levels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)


def _tensor(image):
    levels = np.asarray(image, np.float32)
    return torch.from_numpy(levels[..., None] if levels.ndim == 2 else levels).permute(2, 0, 1) / 255


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ALL)
def test_every_change_keeps_shape_type_and_range(name, dtype, channels):
    for images in (_images(channels), torch.zeros(2, channels, 3, 3), torch.ones(1, channels, 2, 2)):
        given = images.to(dtype, copy=True)
        changed = ALL[name](given)
        assert changed.shape == images.shape
        assert changed.dtype == dtype
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert torch.equal(given, images.to(dtype))


@pytest.mark.parametrize("name", ALL)
def test_images_do_not_know_each_other(name):
    images = _images()
    together = ALL[name](images)
    if name in BY_AMOUNT:
        change, amounts = BY_AMOUNT[name]
        alone = [change(one[None], amount[None]) for one, amount in zip(images, amounts, strict=True)]
    else:
        alone = [ALL[name](one[None]) for one in images]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("change", "enhancer"),
    [
        (brightness, ImageEnhance.Brightness),
        (contrast, ImageEnhance.Contrast),
        (saturation, ImageEnhance.Color),
        (sharpness, ImageEnhance.Sharpness),
    ],
)
def test_factors_agree_with_pillow(change, enhancer, channels):
    images = _images(channels)
    changed = change(images, FACTORS)
    for image, found, factor in zip(images, changed, FACTORS.tolist(), strict=True):
        expected = _tensor(enhancer(_pillow(image)).enhance(factor))
        assert (found - expected).abs().max() < 1.6 / 255


@pytest.mark.parametrize("change", [brightness, contrast, saturation, sharpness])
def test_a_factor_of_one_changes_nothing(change):
    images = _images()
    assert torch.allclose(change(images, torch.ones(4)), images, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_posterize_and_solarize_agree_with_pillow(channels):
    images = _images(channels)
    for bits in range(1, 9):
        found = posterize(images, torch.full((4,), float(bits)))
        for image, one in zip(images, found, strict=True):
            assert torch.allclose(one, _tensor(ImageOps.posterize(_pillow(image), bits)), atol=1e-6)
    for threshold in (0, 1, 100, 219, 256):
        found = solarize(images, torch.full((4,), float(threshold)))
        for image, one in zip(images, found, strict=True):
            assert torch.allclose(one, _tensor(ImageOps.solarize(_pillow(image), threshold)), atol=1e-6)


def test_posterize_rounds_to_a_gray_level_first():
    between = torch.tensor([63.4, 63.6]).view(2, 1, 1, 1) / 255
    assert (posterize(between, torch.full((2,), 6.0)) * 255).flatten().tolist() == pytest.approx([60, 64])


@pytest.mark.parametrize("channels", [1, 3])
def test_autocontrast_agrees_with_pillow(channels):
    images = _images(channels)
    for image, found in zip(images, autocontrast(images), strict=True):
        assert (found - _tensor(ImageOps.autocontrast(_pillow(image)))).abs().max() < 1.01 / 255


def test_autocontrast_uses_the_whole_range_and_leaves_constants():
    images = torch.stack([_images(1, batch=1)[0], torch.full((1, 19, 23), 0.3)])
    changed = autocontrast(images)
    assert changed[0].min() == 0
    assert changed[0].max() == 1
    assert torch.equal(changed[1], images[1])


def test_luminance_weighs_red_green_and_blue():
    assert luminance(torch.eye(3).view(3, 3, 1, 1)).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])
    assert luminance(torch.tensor([0.2, 0.4]).view(1, 2, 1, 1)).item() == pytest.approx(0.3)


def _reference_equalize(channel):
    """Return the equalized channel, pixel by pixel."""
    levels = [round(value * 255) for value in channel.flatten().tolist()]
    lowest = levels.count(min(levels))
    if lowest == len(levels):
        return channel
    up_to = [sum(other <= level for other in levels) for level in levels]
    values = [np.round(255 * (count - lowest) / (len(levels) - lowest)) / 255 for count in up_to]
    return torch.tensor(values).view_as(channel)


@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_equals_the_naive_loop(channels):
    images = _images(channels).double()
    expected = torch.stack([torch.stack([_reference_equalize(one) for one in image]) for image in images])
    assert torch.allclose(equalize(images), expected, atol=1e-9)


def test_equalize_by_hand():
    image = torch.tensor([[10, 10, 20], [20, 30, 200]]).float().view(1, 1, 2, 3) / 255
    assert (equalize(image) * 255).round().flatten().tolist() == [0, 0, 128, 128, 191, 255]


def test_equalize_changes_a_mostly_dark_image_and_leaves_a_constant():
    """D3: a digit on black has few bright pixels; Pillow's whole-number division would return it as it is."""
    digit = torch.zeros(1, 1, 28, 28)
    digit[..., 10:16, 10:20] = torch.linspace(0.3, 0.6, 10)
    constant = torch.full((1, 1, 28, 28), 0.3)
    assert (equalize(digit) - digit).abs().max() > 0.1
    assert torch.equal(equalize(constant), constant)


def test_equalized_luminance_keeps_colors():
    """D5: color images work, and their channels move together."""
    images = 0.3 + 0.4 * _images()
    changed = equalize(images, of_luminance=True)
    inside = ((changed > 0) & (changed < 1)).all(1)
    before, after = images[:, 0] - images[:, 2], changed[:, 0] - changed[:, 2]
    assert inside.float().mean() > 0.3
    assert torch.allclose(after[inside], before[inside], atol=1e-6)
    spread = luminance(changed).std((1, 2, 3))
    assert (spread > luminance(images).std((1, 2, 3))).all()
    gray = _images(1)
    assert torch.equal(equalize(gray, of_luminance=True), equalize(gray))


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.05, 0.3])
def test_hue_equals_the_naive_loop(turn):
    images = _images(height=6, width=5).double()
    images[0, :, 0] = 0.4  # gray
    images[1, 0] = images[1, 1]  # ties
    found = hue(images, torch.full((4,), turn, dtype=torch.float64))
    for image, changed in zip(images, found, strict=True):
        for y, x in np.ndindex(6, 5):
            h, s, v = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
            expected = colorsys.hsv_to_rgb((h + turn) % 1, s, v)
            assert changed[:, y, x].tolist() == pytest.approx(expected, abs=1e-9)


def test_a_whole_turn_of_hue_and_gray_images_stay():
    images = _images()
    assert torch.allclose(hue(images, torch.ones(4)), images, atol=1e-5)
    assert torch.allclose(hue(images, torch.zeros(4)), images, atol=1e-5)
    assert torch.equal(hue(images[:, :1], torch.ones(4)), images[:, :1])


def _reference_clahe(gray, clip, tiles):
    """Return the equalized gray image ``(H, W)``, pixel by pixel."""
    H, W = gray.shape
    levels = np.round(gray * 255).astype(int)
    R, S = (max(1, min(tiles, side // 8)) for side in (H, W))
    height, width = -(-H // R), -(-W // S)

    def mapped(r, s, level):
        r, s = min(max(r, 0), R - 1), min(max(s, 0), S - 1)
        counts = [0.0] * 256
        for y in range(r * height, (r + 1) * height):
            for x in range(s * width, (s + 1) * width):
                counts[levels[min(y, H - 1), min(x, W - 1)]] += 1
        limit = max(1, clip * height * width / 256)
        excess = sum(max(count - limit, 0) for count in counts)
        return sum(min(count, limit) + excess / 256 for count in counts[: level + 1]) / (height * width)

    result = np.zeros((H, W))
    for y, x in np.ndindex(H, W):
        r, s = (y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5
        r0, s0 = int(np.floor(r)), int(np.floor(s))
        for dr, ds in np.ndindex(2, 2):
            weight = (1 - abs(r - r0 - dr)) * (1 - abs(s - s0 - ds))
            result[y, x] += weight * mapped(r0 + dr, s0 + ds, levels[y, x])
    return result


@pytest.mark.parametrize("clip", [2.0, 40.0])
def test_clahe_equals_the_naive_loop(clip):
    images = _images(1, 17, 20, batch=2).double()
    found = clahe(images, clip, tiles=2)
    for image, changed in zip(images, found, strict=True):
        assert np.allclose(changed[0].numpy(), _reference_clahe(image[0].numpy(), clip, 2), atol=1e-9)


def test_clahe_raises_local_contrast():
    ramp = torch.linspace(0.2, 0.8, 64).expand(1, 1, 64, 64)
    faint = ramp + 0.02 * torch.sin(torch.arange(64) * 1.5)[:, None]
    changed = clahe(faint, clip=4.0)
    assert changed.std(2).mean() > 1.5 * faint.std(2).mean()
