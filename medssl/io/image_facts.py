"""What all pixels of an image say about how images of its cohort are to be prepared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BRIGHT = 99.9
"""Percentile of an image's values that is to be within the depth that is found for all of them."""


@dataclass(frozen=True)
class PixelFacts:
    """What is kept of an image that was looked at.

    Args:
        channels: Of the image.
        gray: Whether it has one, or three that are equal.
        bright: Percentile `BRIGHT` of the values of an image of 16 bits; None of others.
        greatest: Its greatest value; None of others.
    """

    channels: int
    gray: bool
    bright: float | None = None
    greatest: int | None = None


def pixel_facts(pixels: NDArray[Any]) -> PixelFacts:
    """Look at an image.

    Shapes:
        pixels: ``(H, W, C)``
    """
    channels, gray = pixels.shape[2], is_gray(pixels)
    if pixels.dtype.str[1:] != "u2":
        return PixelFacts(channels, gray)
    bright = float(np.percentile(pixels, BRIGHT, method="lower"))
    return PixelFacts(channels, gray, bright, int(pixels.max()))


def is_gray(pixels: NDArray[Any]) -> bool:
    """Tell whether an image has one channel, or three that are equal.

    Shapes:
        pixels: ``(H, W, C)``
    """
    channels = pixels.shape[2]
    return channels == 1 or (channels == 3 and bool((pixels == pixels[..., :1]).all()))
