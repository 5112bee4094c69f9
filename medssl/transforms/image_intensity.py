"""Changes of brightness and color: each image of a batch its own amount, all images at once.

Images are ``(B, C, H, W)`` in [0, 1], and stay there; amounts are ``(B,)``. What needs 256 gray levels rounds to
them first. Changes of color leave images of one channel, or of more than three, as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LEVELS = 256


def luminance(images: Tensor) -> Tensor:
    """Return the gray image: ITU-R 601 weights of red, green and blue; else the mean of the channels.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, 1, H, W)``
    """
    if images.shape[1] != 3:
        return images if images.shape[1] == 1 else images.mean(1, keepdim=True)
    red, green, blue = images.split(1, 1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply an image by its factor: 0 is black, 1 unchanged.

    Shapes:
        images: ``(B, C, H, W)``; factor: ``(B,)``; return: ``(B, C, H, W)``
    """
    return (images * _per_image(factor, images)).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend an image with its mean gray: 0 is that gray, 1 unchanged.

    Shapes:
        images: ``(B, C, H, W)``; factor: ``(B,)``; return: ``(B, C, H, W)``
    """
    return _blend(luminance(images.mean((2, 3), keepdim=True)), images, factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend an image with its gray version: 0 is gray, 1 unchanged.

    Shapes:
        images: ``(B, C, H, W)``; factor: ``(B,)``; return: ``(B, C, H, W)``
    """
    return _blend(luminance(images), images, factor) if images.shape[1] == 3 else images


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend an image with its smoothed version: 0 is smooth, 1 unchanged, above 1 sharper.

    The smoothing kernel is 3 x 3 with a weight of 5 / 13 in the middle; the outermost pixels do not change.

    Shapes:
        images: ``(B, C, H, W)``; factor: ``(B,)``; return: ``(B, C, H, W)``
    """
    if min(images.shape[2:]) < 3:
        return images
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = (around + 4 * images[:, :, 1:-1, 1:-1]) / 13
    return _blend(smooth, images, factor)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    r"""Move every hue around the color circle; value and saturation stay.

    .. math:: x_n = v - c \, \max(0, \min(k_n, 4 - k_n, 1)), \qquad k_n = (n + 6 (h + t)) \bmod 6

    with :math:`n = 5, 3, 1` for red, green, blue, value v, chroma c and hue h in turns.

    Args:
        images: Of three channels; others come back unchanged.
        turn: t, -.5 to .5; 1 is once around.

    Shapes:
        images: ``(B, C, H, W)``; turn: ``(B,)``; return: ``(B, C, H, W)``
    """
    if images.shape[1] != 3:
        return images
    red, green, blue = images.split(1, 1)
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    n = torch.tensor([5.0, 3.0, 1.0], dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    k = (n + sixths + 6 * _per_image(turn, images)).remainder(6)
    return (value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)).clamp(0, 1)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of the 8 that a gray level has.

    Args:
        images: Rounded to 256 levels.
        bits: 1 to 8.

    Shapes:
        images: ``(B, C, H, W)``; bits: ``(B,)``; return: ``(B, C, H, W)``
    """
    step = 2.0 ** (8 - _per_image(bits, images).floor())
    return (images * (LEVELS - 1)).round().div_(step).floor_().mul_(step).div_(LEVELS - 1)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the gray levels from a threshold on: 0 inverts all, 256 none.

    Shapes:
        images: ``(B, C, H, W)``; threshold: ``(B,)``; return: ``(B, C, H, W)``
    """
    return torch.where(images * (LEVELS - 1) < _per_image(threshold, images), images, 1 - images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to [0, 1]; one that is constant stays as it is.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
    """
    low = images.amin((2, 3), keepdim=True)
    extent = images.amax((2, 3), keepdim=True) - low
    stretched = (images - low) / extent.clamp_min(1e-12)
    return torch.where(extent > 0, stretched, images).clamp_(0, 1)


def equalize(images: Tensor, of_luminance: bool = False) -> Tensor:
    r"""Make all gray levels about equally frequent.

    .. math:: e(v) = \frac{1}{255} \mathrm{round}\left(255 \, \frac{F(v) - F_{\min}}{N - F_{\min}}\right)

    F(v) counts the pixels up to level v, :math:`F_\min` those of the lowest level that occurs, N all of them.

    Args:
        images: Rounded to 256 levels.
        of_luminance: Equalize the gray image and move all channels by the same amount, so that colors stay;
            else each channel by itself.

    Returns:
        Equalized images. A channel of one level stays as it is.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``

    Notes:
        Pillow's definition divides whole numbers and leaves images of few or mostly dark pixels unchanged (a digit
        of 28 x 28); this one does not.
    """
    if of_luminance and images.shape[1] > 1:
        gray = luminance(images)
        return (images + equalize(gray) - gray).clamp_(0, 1)
    B, C, H, W = images.shape
    level = _levels(images).view(B * C, H * W)
    up_to = _counts(level).cumsum(1)
    lowest = up_to.gather(1, level.amin(1, keepdim=True))
    share = (up_to - lowest).clamp_min(0).to(images.dtype) / (H * W - lowest).clamp_min(1)
    table = (share * (LEVELS - 1)).round() / (LEVELS - 1)
    return torch.where((lowest < H * W).view(B, C, 1, 1), table.gather(1, level).view_as(images), images)


def clahe(images: Tensor, clip: float = 2.0, tiles: int = 8) -> Tensor:
    r"""Equalize the gray image tile by tile with bounded contrast, and blend the tiles bilinearly.

    .. math:: e_t(v) = \frac{1}{N_t} \sum_{u \le v} \left(\min(n_t(u), m) + \frac{1}{256} \sum_w
              \max(n_t(w) - m, 0)\right), \qquad m = \max(1, \mathrm{clip} \, N_t / 256)

    Args:
        images: Rounded to 256 levels. All channels move by the same amount, so that colors stay.
        clip: Largest count of a level as a multiple of the mean one.
        tiles: Tiles along each side; fewer where a tile would have less than 8 pixels a side.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``

    Source:
        Zuiderveld, Contrast limited adaptive histogram equalization, Graphics Gems IV, 1994.
    """
    gray = luminance(images)
    H, W = images.shape[2:]
    level = _levels(gray)[:, 0]
    grid = [max(1, min(tiles, side // 8)) for side in (H, W)]
    tables, (height, width) = _tile_tables(level, clip, grid, images.dtype)
    R, S = tables.shape[1:3]
    top, bottom, down = _neighbors(H, height, R, images)
    left, right, across = _neighbors(W, width, S, images)
    image = torch.arange(len(images), device=images.device)[:, None, None]
    upper, lower = (
        torch.lerp(
            tables[image, row[None, :, None], left[None, None], level],
            tables[image, row[None, :, None], right[None, None], level],
            across,
        )
        for row in (top, bottom)
    )
    equal = torch.lerp(upper, lower, down[:, None])[:, None]
    return (images + equal - gray).clamp_(0, 1)


def gamma(images: Tensor, exponent: float) -> Tensor:
    """Raise gray values to a power: below 1 is brighter, above 1 darker.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
    """
    return images.clamp_min(0) ** exponent


def _blend(other: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Return ``factor`` of each image and the rest of the other, kept in [0, 1]."""
    share = _per_image(factor, images)
    return (images * share).add_(other * (1 - share)).clamp_(0, 1)


def _per_image(amount: Tensor, images: Tensor) -> Tensor:
    """Give amounts the axes of images: ``(B, 1, 1, 1)``."""
    return amount.to(images).view(-1, 1, 1, 1)


def _levels(images: Tensor) -> Tensor:
    """Round to whole gray levels, int64."""
    return (images * (LEVELS - 1)).round().long().clamp_(0, LEVELS - 1)


def _counts(level: Tensor) -> Tensor:
    """Count the levels of each row: ``(R, N)`` to ``(R, 256)``."""
    counts = torch.zeros(len(level), LEVELS, dtype=torch.int64, device=level.device)
    return counts.scatter_add_(1, level, torch.ones_like(level))


def _tile_tables(
    level: Tensor, clip: float, grid: Sequence[int], dtype: torch.dtype
) -> tuple[Tensor, tuple[int, int]]:
    """Return the table of each tile ``(B, R, S, 256)`` and the tiles' height and width."""
    B, H, W = level.shape
    R, S = grid
    height, width = -(-H // R), -(-W // S)
    rows = torch.arange(height * R, device=level.device).clamp_max(H - 1)
    columns = torch.arange(width * S, device=level.device).clamp_max(W - 1)
    padded = level[:, rows][:, :, columns]
    tiled = padded.view(B, R, height, S, width).transpose(2, 3).reshape(B * R * S, height * width)
    counts = _counts(tiled).to(dtype)
    limit = max(1.0, clip * height * width / LEVELS)
    excess = (counts - limit).clamp_min(0).sum(1, keepdim=True)
    tables = (counts.clamp_max(limit) + excess / LEVELS).cumsum(1) / (height * width)
    return tables.clamp_max(1).view(B, R, S, LEVELS), (height, width)


def _neighbors(side: int, tile: int, tiles: int, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each pixel of a side the tiles before and after it, and how far it is on the way."""
    place = (torch.arange(side, device=images.device, dtype=images.dtype) + 0.5) / tile - 0.5
    before = place.floor()
    after = (before + 1).clamp_max(tiles - 1).long()
    return before.clamp_min(0).long(), after, place - before
