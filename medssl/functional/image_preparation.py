"""From the pixels of an image file to a network's input, in numpy: what training does with torch, without it.

`transforms.classification` takes the depth from here and resizes with torch; where torch is not, `prepare_image` does
all of it, and differs by at most one of 255 gray values where a half is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError

Floats = NDArray[np.float32]

_WHITE = (255, 4095, 65535)
"""Greatest values of 8, 12 and 16 bits."""

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]
"""ITU-R 601 weights of red, green and blue."""


def prepare_image(
    image: NDArray[Any], size: int, channels: int, interpolation: str, *, fit: str, white: int | None
) -> NDArray[np.uint8]:
    """Bring an image to a network's size, number of channels and 8 bits.

    Args:
        image: Pixels as its file holds them.
        size: Side of the result in pixels.
        channels: 1, 3, or as many as the image has. Gray is repeated, color becomes luminance.
        interpolation: "bilinear" or "bicubic", both with antialiasing.
        fit: "crop": the shorter side becomes ``size`` and the middle is cut out; "squash": the whole image.
        white: Value of 16-bit images that becomes 255; None: each image's own depth.

    Shapes:
        image: ``(H, W, C)``; return: ``(channels, size, size)``

    Raises:
        InputError: The array is no image, or its channels do not fit.
    """
    require_image(image)
    values = _with_channels(eight_bits(image, white), channels)
    H, W = values.shape[1:]
    height, width = scaled_size(H, W, size, fit)
    top, left = (height - size) // 2, (width - size) // 2
    if (height, width) != (H, W):
        values = values @ resampling(W, width, interpolation, left, size).T
        values = np.clip(resampling(H, height, interpolation, top, size) @ values, 0, 255)
    else:
        values = values[:, top : top + size, left : left + size]
    return np.round(values).astype(np.uint8)


def white_of(greatest: float) -> int:
    """Return the greatest value of the least depth, 8, 12 or 16 bits, that holds a value."""
    return next(white for white in _WHITE if greatest <= white)


def require_image(image: NDArray[Any]) -> None:
    """Refuse what is no 2D image of finite real numbers.

    Raises:
        InputError: What was found instead.
    """
    if image.ndim != 3 or 0 in image.shape or image.dtype.kind not in "buif":
        msg = f"Found an array of shape {image.shape} and type {image.dtype}; expected (height, width, channels)."
        raise InputError(msg, "Give a 2D image with real numbers.")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        msg = f"The image holds {int((~np.isfinite(image)).sum())} pixel values that are infinite or not a number."
        raise InputError(msg, "Replace them, or leave the image out.")


def eight_bits(image: NDArray[Any], white: int | None) -> Floats:
    """Return an image on the scale of 0 to 255, not yet rounded.

    8 bits are taken as they are. 16 bits: the full range up to ``white`` becomes 0 to 255; without it, the greatest
    value tells the depth. Others: values in [0, 1] times 255, else from the least to the greatest value.

    Shapes:
        image: ``(H, W, C)``; return: ``(C, H, W)``
    """
    values = np.array(image.transpose(2, 0, 1), np.float32, order="C")
    if image.dtype.kind == "u" and image.dtype.itemsize <= 2:
        top = 255 if image.dtype.itemsize == 1 else white or white_of(values.max())
        return values if top == 255 else np.minimum(values * np.float32(255 / top), 255)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, np.finfo(np.float32).tiny)
    return values * 255


def scaled_size(height: int, width: int, size: int, fit: str) -> tuple[int, int]:
    """Return height and width after resizing, before the middle is cut out."""
    if fit != "crop":
        return size, size
    shorter = min(height, width)
    return round(height * size / shorter), round(width * size / shorter)


@lru_cache(maxsize=4)
def resampling(
    before: int, after: int, interpolation: str, begin: int = 0, count: int | None = None
) -> Floats:
    """Return the matrix of antialiased interpolation along one axis, or some of its rows.

    The kernel is stretched by the ratio where the image becomes smaller, and its weights add up to 1.

    Args:
        before: Pixels that are there.
        after: Pixels of the result.
        interpolation: "bilinear" or "bicubic".
        begin: First row that is wanted.
        count: Rows that are wanted; None: all from there on.

    Shapes:
        return: ``(count, before)``
    """
    count = after - begin if count is None else count
    ratio = before / after
    stretch = max(ratio, 1.0)
    kernel, support = _KERNELS[interpolation]
    reach = support * stretch
    matrix = np.zeros((count, before), np.float32)
    for row, center in enumerate((np.arange(begin, begin + count) + 0.5) * ratio):
        first, last = max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), before)
        weights = kernel(np.abs(np.arange(first, last) - center + 0.5) / stretch)
        matrix[row, first:last] = weights / weights.sum()
    matrix.setflags(write=False)
    return matrix


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - x, 0)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -1/2."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


_KERNELS: Mapping[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], int]] = {
    "bilinear": (_triangle, 1),
    "bicubic": (_cubic, 2),
}
"""Interpolation -> kernel of the distance in pixels, and how far it reaches."""


def _with_channels(values: Floats, channels: int) -> Floats:
    found = len(values)
    if found == channels:
        return values
    if found == 1:
        return np.repeat(values, channels, 0)
    if channels == 1 and found == 3:
        return (_LUMINANCE * values).sum(0, keepdims=True)
    raise channels_differ(found, channels)


def channels_differ(found: int, expected: int) -> InputError:
    """Return the error for channels that cannot be turned into those of a network."""
    msg = f"The image has {found} channels; the network takes {expected}."
    cure = f"Only gray and color can be turned into each other: convert the image, or train with --channels {found}."
    return InputError(msg, cure)
