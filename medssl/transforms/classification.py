"""From the array of an image file to the uint8 tensor that training and prediction share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medssl.errors import ConfigError
from medssl.functional.image_preparation import channels_differ, eight_bits, require_image, scaled_size
from medssl.transforms.image_intensity import luminance
from medssl.transforms.image_views import image_views

INTERPOLATIONS = ("bilinear", "bicubic")
FITS = ("crop", "squash")


@dataclass(frozen=True)
class ImagePreprocessing:
    """Bring any image to one size, number of channels and 8 bits; see `image_preprocessing`."""

    size: int
    channels: int = 3
    interpolation: str = "bilinear"
    fit: str = "crop"
    white: int | None = None
    view: str = "identity"

    def __post_init__(self) -> None:
        for what, found, known in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("fit", self.fit, FITS),
        ):
            if found not in known:
                msg = f"There is no {what} '{found}' of images. Choose one of: {', '.join(known)}."
                raise ConfigError(msg)
        if self.size < 1 or self.channels < 1:
            msg = f"Found size {self.size} and {self.channels} channels; expected at least 1 of each."
            raise ConfigError(msg, "Correct size or channels.")
        image_views([self.view])

    def __call__(self, image: NDArray[Any]) -> Tensor:
        """Return the image as ``(channels, size, size)`` uint8."""
        require_image(image)
        gray = eight_bits(image, self.white)
        prepared = _with_channels(torch.from_numpy(gray)[None], self.channels)
        if self.view != "identity":
            prepared = 255 * image_views([self.view])[0](prepared / 255).clamp(0, 1)
        return _with_size(prepared, self.size, self.interpolation, self.fit)[0].round().to(torch.uint8)


def image_preprocessing(
    size: int,
    channels: int,
    interpolation: str = "bilinear",
    *,
    fit: str = "crop",
    white: int | None = None,
    view: str = "identity",
) -> Callable[[NDArray[Any]], Tensor]:
    """Return the step from the array of an image file to the network's size: deterministic, one image at a time.

    Args:
        size: Side of the result in pixels.
        channels: 1, 3, or as many as the images have. Gray is repeated, color becomes luminance.
        interpolation: "bilinear" or "bicubic", both with antialiasing.
        fit: "crop": the shorter side becomes ``size`` and the middle is cut out, as weight sets do, many of which
            leave out a margin too (`NetworkFacts.crop`), which is kept here: lesions lie at borders.
            "squash": the whole image, its aspect ratio lost.
        white: Value of 16-bit images that becomes 255, as are those above it; None: each image's own depth.
        view: One of `VIEWS`, applied at full resolution before the size changes.

    Returns:
        A function of one array ``(H, W, C)``.

    Shapes:
        return: ``(channels, size, size)`` uint8

    Raises:
        ConfigError: A value is unknown or out of range.
        InputError: (When called) the array is no image, or its channels do not fit.

    Notes:
        8 bits are taken as they are. 16 bits: the full range up to ``white`` becomes 0 to 255; without it, the
        greatest value of an image tells its depth, 8 bits up to 255, 12 up to 4095, else 16 (12-bit scans divided
        by 257 would keep 16 gray levels), so that a dark image may come out brighter than its like.
        Others (floats, signed numbers): values in [0, 1] times 255, else from the image's own
        least to its greatest value; a constant becomes black. An image that has the size and the channels
        already passes bit for bit.
    """
    return ImagePreprocessing(size, channels, interpolation, fit, white, view)


def _with_channels(image: Tensor, channels: int) -> Tensor:
    found = image.shape[1]
    if found == channels:
        return image
    if found == 1:
        return image.expand(-1, channels, -1, -1)
    if channels == 1 and found == 3:
        return luminance(image)
    raise channels_differ(found, channels)


def _with_size(image: Tensor, size: int, interpolation: str, fit: str) -> Tensor:
    H, W = image.shape[2:]
    height, width = scaled_size(H, W, size, fit)
    if (height, width) != (H, W):
        resized = F.interpolate(
            image, size=(height, width), mode=interpolation, align_corners=False, antialias=True
        )
        image = resized.clamp(0, 255)
    top, left = (height - size) // 2, (width - size) // 2
    return image[:, :, top : top + size, left : left + size]
