"""Views of an image whose predictions are averaged: fixed changes that keep the class, named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor
from torch.nn import functional as F

from medssl.errors import ConfigError
from medssl.transforms.image_filters import bilateral, gaussian_blur, mean_blur, median_blur
from medssl.transforms.image_intensity import clahe, equalize, gamma

View = Callable[[Tensor], Tensor]
"""Maps images ``(B, C, H, W)`` in [0, 1] to images of the same type and shape (a quarter turn: ``(B, C, W, H)``)."""


def identity(images: Tensor) -> Tensor:
    """Return the images themselves.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
    """
    return images


def flip(images: Tensor, axes: Sequence[int]) -> Tensor:
    """Mirror images: axis 3 swaps left and right, axis 2 top and bottom.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
    """
    return images.flip(tuple(axes))


def quarter_turns(images: Tensor, turns: int) -> Tensor:
    """Rotate images counterclockwise.

    Args:
        images: Of any sides.
        turns: Of 90 degrees each.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, W, H)`` where the turns are odd, else ``(B, C, H, W)``
    """
    return images.rot90(turns, (2, 3))


def crop(images: Tensor, share: float, down: float = 0.5, across: float = 0.5) -> Tensor:
    """Cut a part out of images and bring it back to their size (bilinear).

    Args:
        images: In [0, 1].
        share: Side of the part as a share of the image's, below 1.
        down: Where it lies: 0 at the top, .5 in the middle, 1 at the bottom.
        across: 0 at the left, 1 at the right.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
    """
    H, W = images.shape[2:]
    height, width = max(1, round(share * H)), max(1, round(share * W))
    top, left = round(down * (H - height)), round(across * (W - width))
    part = images[:, :, top : top + height, left : left + width]
    return F.interpolate(part, size=(H, W), mode="bilinear", align_corners=False)


_half_turn = partial(flip, axes=(2, 3))

VIEWS: Mapping[str, View] = {
    "identity": identity,
    "hflip": partial(flip, axes=(3,)),
    "vflip": partial(flip, axes=(2,)),
    "hvflip": _half_turn,
    "rot90": partial(quarter_turns, turns=1),
    "rot180": _half_turn,
    "rot270": partial(quarter_turns, turns=3),
    "mean_blur": mean_blur,
    "gaussian_blur_0.7": partial(gaussian_blur, sigma=0.7),
    "gaussian_blur_1.5": partial(gaussian_blur, sigma=1.5),
    "median_blur": median_blur,
    "bilateral": bilateral,
    "gamma_0.8": partial(gamma, exponent=0.8),
    "gamma_1.25": partial(gamma, exponent=1.25),
    "equalize": partial(equalize, of_luminance=True),
    "clahe": clahe,
    "crop_0.75": partial(crop, share=0.75),
    "crop_0.875": partial(crop, share=0.875),
    "crop_top_left": partial(crop, share=0.875, down=0.0, across=0.0),
    "crop_top_right": partial(crop, share=0.875, down=0.0, across=1.0),
    "crop_bottom_left": partial(crop, share=0.875, down=1.0, across=0.0),
    "crop_bottom_right": partial(crop, share=0.875, down=1.0, across=1.0),
}
"""hflip swaps left and right, vflip top and bottom, both together are rot180 (one view of two names).

Turns are counterclockwise; the mean and the median are over 5 x 5 pixels, standard deviations of Gaussians in
pixels; the bilateral filter has diameter 9 and deviations of 75 gray levels and 75 pixels.
"""

DATA_DISTILLATION = ("hflip", "vflip", "hvflip", "mean_blur", "gamma_1.25")
"""The views beside the identity of data distillation in Inés et al. 2022."""

VIEW_PRESETS: Mapping[str, tuple[str, ...]] = {
    "natural": ("hflip", "mean_blur", "gamma_0.8", "gamma_1.25", "crop_0.875"),
    "chest-xray": ("hflip", "mean_blur", "gamma_0.8", "gamma_1.25"),
    "microscopy": ("hflip", "vflip", "hvflip", "rot90", "rot270"),
    "digits": ("gaussian_blur_0.7", "gamma_0.8", "gamma_1.25", "crop_0.875"),
    "grey": DATA_DISTILLATION,
    "none": ("mean_blur", "gamma_1.25"),
}
"""Views beside the identity that suit a kind of image (the names are those of the augmentation presets)."""


def image_views(names: Sequence[str]) -> tuple[View, ...]:
    """Return the views that a configuration names.

    Args:
        names: Of `VIEWS`, in any order.

    Raises:
        ConfigError: There is no such view, or one is named twice (it would count twice in a mean).
    """
    for name in names:
        if name not in VIEWS:
            msg = f"There is no view '{name}' of an image. Choose from: {', '.join(VIEWS)}."
            raise ConfigError(msg)
    views = tuple(VIEWS[name] for name in names)
    twice = [name for name, view in zip(names, views, strict=True) if views.count(view) > 1]
    if twice:
        msg = f"The views {', '.join(twice)} are the same; each would count twice in the mean."
        raise ConfigError(msg, "Name each view once (rot180 and hvflip are one).")
    return views
