"""Random changes of image batches: weak and strong, the whole batch at once, each image its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.transforms.image_geometry import matrices_of, rotation, scaling, shear, translation, warp
from medssl.transforms.image_intensity import (
    autocontrast,
    brightness,
    contrast,
    equalize,
    hue,
    posterize,
    saturation,
    sharpness,
    solarize,
)

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""Maps images ``(B, C, H, W)`` in [0, 1] and random numbers to images of the same shape and type."""

_Drawn = tuple[Tensor, Tensor]
"""Number of the operation that each image drew, and its amount, each ``(B,)``."""

POSE_PROBABILITY = 0.75
LIGHTING_PROBABILITY = 0.75


class _Operation(NamedTuple):
    """A change of strong augmentation, and the bounds of its amount."""

    change: Callable[..., Tensor]
    low: float
    high: float


GEOMETRY: Mapping[str, _Operation] = {
    "rotate": _Operation(rotation, -30, 30),
    "shear_x": _Operation(lambda amount: shear(amount, 0 * amount), -0.3, 0.3),
    "shear_y": _Operation(lambda amount: shear(0 * amount, amount), -0.3, 0.3),
    "translate_x": _Operation(lambda amount: translation(amount, 0 * amount), -0.3, 0.3),
    "translate_y": _Operation(lambda amount: translation(0 * amount, amount), -0.3, 0.3),
}
"""Name -> matrices, and the least and greatest amount: degrees, or shares of the side."""

INTENSITY: Mapping[str, _Operation] = {
    "identity": _Operation(lambda images, _: images, 0, 0),
    "autocontrast": _Operation(lambda images, _: autocontrast(images), 0, 0),
    "brightness": _Operation(brightness, 0.05, 0.95),
    "color": _Operation(saturation, 0.05, 0.95),
    "contrast": _Operation(contrast, 0.05, 0.95),
    "equalize": _Operation(lambda images, _: equalize(images), 0, 0),
    "hue": _Operation(hue, -0.1, 0.1),
    "posterize": _Operation(posterize, 4, 9),
    "sharpness": _Operation(sharpness, 0.05, 0.95),
    "solarize": _Operation(solarize, 0, 256),
}
"""Name -> change, and the least and greatest amount (posterize: bits, rounded down to 4 to 8)."""

_POSE = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_RANDAUGMENT = (
    *("autocontrast", "brightness", "color", "contrast", "equalize", "identity", "posterize", "sharpness"),
    *("solarize", *_POSE),
)
_GREY = ("brightness", "equalize", "identity", "sharpness", *_POSE)


@dataclass(frozen=True)
class Preset:
    """What may happen to an image of one kind without changing its class.

    Args:
        horizontal_flip: Left and right may be swapped.
        vertical_flip: Top and bottom may be swapped.
        quarter_turns: It may be turned by 90, 180 and 270 degrees.
        rotation: Greatest angle in degrees, to either side.
        zoom: Least and greatest enlargement.
        shift: Greatest movement as a share of the side, along each axis.
        shear: Greatest slant along each axis.
        lighting: Brightness and contrast are multiplied by 1 - lighting to 1 + lighting.
        operations: Of `GEOMETRY` and `INTENSITY`; strong augmentation draws from them. None: it changes nothing.
        padding: What lies beyond the edge: "reflection", or the outermost pixels ("border").

    Raises:
        ConfigError: There is no such operation.
    """

    horizontal_flip: bool = False
    vertical_flip: bool = False
    quarter_turns: bool = False
    rotation: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    shear: float = 0.0
    lighting: float = 0.0
    operations: tuple[str, ...] = ()
    padding: str = "reflection"

    def __post_init__(self) -> None:
        unknown = [name for name in self.operations if name not in GEOMETRY and name not in INTENSITY]
        if unknown:
            msg = f"There is no operation '{unknown[0]}'. Choose from: {', '.join([*GEOMETRY, *INTENSITY])}."
            raise ConfigError(msg)


PRESETS: Mapping[str, Preset] = {
    "natural": Preset(
        horizontal_flip=True,
        rotation=10,
        zoom=(1.0, 1.1),
        shift=0.125,
        lighting=0.2,
        operations=_RANDAUGMENT,
    ),
    "chest-xray": Preset(
        horizontal_flip=True,
        rotation=10,
        zoom=(1.0, 1.1),
        shift=0.05,
        lighting=0.2,
        operations=("autocontrast", "contrast", *_GREY),
    ),
    "microscopy": Preset(
        horizontal_flip=True,
        vertical_flip=True,
        quarter_turns=True,
        rotation=10,
        zoom=(1.0, 1.1),
        shift=0.125,
        lighting=0.2,
        operations=(*_RANDAUGMENT, "hue"),
    ),
    "digits": Preset(
        rotation=10,
        zoom=(0.9, 1.1),
        shift=0.075,
        shear=0.1,
        operations=(*("autocontrast", "brightness", "contrast", "identity", "sharpness"), *_POSE),
        padding="border",
    ),
    "grey": Preset(
        horizontal_flip=True,
        rotation=10,
        zoom=(1.0, 1.1),
        shift=0.125,
        lighting=0.2,
        operations=_GREY,
    ),
    "none": Preset(),
}
"""Kind of image -> its changes. No preset turns a chest X-ray upside down or a digit around."""


@dataclass(frozen=True)
class WeakAugmentation:
    """Flip, turn, enlarge, move and light each image a little; see `weak_augmentation`."""

    preset: Preset

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the changed images.

        Shapes:
            images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
        """
        count, preset = len(images), self.preset
        matrices = _symmetries(preset, count, generator) @ _pose(preset, count, generator)
        factors = [_lighting(preset, count, generator) for _ in range(2)]
        images = warp(images, matrices, preset.padding)
        if preset.lighting == 0:
            return images
        return contrast(brightness(images, factors[0]), factors[1])


@dataclass(frozen=True)
class StrongAugmentation:
    """Apply a few drawn operations of drawn strength, then cut a square out; see `strong_augmentation`."""

    preset: Preset
    n: int = 3
    cutout: float = 0.5

    def __post_init__(self) -> None:
        if self.n < 0 or not 0 <= self.cutout <= 1:
            msg = f"Found n {self.n} and cutout {self.cutout}; expected n from 0 on and a cutout of 0 to 1."
            raise ConfigError(msg, "Correct them.")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the changed images.

        Shapes:
            images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
        """
        names, count = self.preset.operations, len(images)
        matrices = _symmetries(self.preset, count, generator)
        shift = (_uniform(count, -self.preset.shift, self.preset.shift, generator) for _ in range(2))
        matrices = matrices @ translation(*shift)
        drawn = [_draw(names, count, generator) for _ in range(self.n if names else 0)]
        for changes in _drawn_matrices(names, drawn):
            matrices = matrices @ changes
        images = _changed_intensity(warp(images, matrices, self.preset.padding), names, drawn)
        return cut_out(images, self.cutout, generator) if names else images


def weak_augmentation(preset: str | Preset) -> Augmentation:
    """Return the changes that any training uses: pose and lighting, within what the kind of image allows.

    Args:
        preset: One of `PRESETS`, or one's own.

    Returns:
        A function of images and random numbers; each image gets its own.

    Raises:
        ConfigError: There is no such preset.

    Notes:
        Rotation, zoom and shear change three images in four, brightness and contrast likewise; flips one in
        two; shifts all. All changes of pose are one bilinear interpolation.
    """
    return WeakAugmentation(_preset(preset))


def strong_augmentation(preset: str | Preset, n: int = 3, cutout: float = 0.5) -> Augmentation:
    """Return RandAugment with cutout, over the operations of a preset and its flips and shifts.

    Args:
        preset: One of `PRESETS`, or one's own.
        n: Operations an image, drawn with replacement; the amount of each is uniform between its bounds.
        cutout: Greatest side of the square that is cut out, as a share of the image's; 0 for none.

    Returns:
        A function of images and random numbers; each image gets its own.

    Raises:
        ConfigError: There is no such preset, or a number is out of range.

    Notes:
        The drawn changes of pose come first, all in one bilinear interpolation, then those of intensity in the
        order in which they were drawn. What is cut out gets the mean of the image's channel.

    Source:
        Cubuk et al.: RandAugment, NeurIPS 2020; DeVries and Taylor: Cutout, arXiv 1708.04552; both as used for
        FixMatch (Sohn et al., NeurIPS 2020). Own implementation.
    """
    return StrongAugmentation(_preset(preset), n, cutout)


def cut_out(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Fill one square an image with the mean of each channel.

    Args:
        images: In [0, 1].
        share: Greatest side of the square as a share of the image's shorter side; drawn uniformly from 0 on. Its
            middle lies anywhere in the image, so that it may reach over the edge.
        generator: Random numbers.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
    """
    H, W = images.shape[2:]
    half, down, across = (0.5 * share * min(H, W), H, W)
    half, down, across = (
        _uniform(len(images), 0, most, generator).to(images) for most in (half, down, across)
    )
    y, x = (torch.arange(side, dtype=images.dtype, device=images.device) + 0.5 for side in (H, W))
    in_rows = (y - down[:, None]).abs() < half[:, None]
    in_columns = (x - across[:, None]).abs() < half[:, None]
    inside = (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
    return torch.where(inside, images.mean((2, 3), keepdim=True), images)


def _preset(preset: str | Preset) -> Preset:
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        msg = f"There is no augmentation preset '{preset}'. Choose one of: {', '.join(PRESETS)}."
        raise ConfigError(msg)
    return PRESETS[preset]


def _symmetries(preset: Preset, count: int, generator: torch.Generator) -> Tensor:
    """Draw flips and quarter turns."""
    across, down, turns = torch.rand(3, count, generator=generator)
    flips = [
        torch.where((chance < 0.5) & allowed, -1.0, 1.0)
        for chance, allowed in ((across, preset.horizontal_flip), (down, preset.vertical_flip))
    ]
    matrices = scaling(*flips)
    if not preset.quarter_turns:
        return matrices
    cosine, sine = (torch.tensor(values)[(4 * turns).long()] for values in ((1.0, 0, -1, 0), (0.0, 1, 0, -1)))
    return matrices @ matrices_of(cosine, -sine, sine, cosine)


def _pose(preset: Preset, count: int, generator: torch.Generator) -> Tensor:
    """Draw rotation, zoom and shear of three images in four, and shifts of all."""
    changed = torch.rand(count, generator=generator) < POSE_PROBABILITY
    angle = _uniform(count, -preset.rotation, preset.rotation, generator)
    zoom = _uniform(count, *preset.zoom, generator)
    slants = [_uniform(count, -preset.shear, preset.shear, generator) for _ in range(2)]
    shifts = [_uniform(count, -preset.shift, preset.shift, generator) for _ in range(2)]
    posed = rotation(angle) @ scaling(zoom, zoom) @ shear(*slants)
    return torch.where(changed[:, None, None], posed, torch.eye(3)) @ translation(*shifts)


def _lighting(preset: Preset, count: int, generator: torch.Generator) -> Tensor:
    """Draw factors of brightness or contrast; 1 for one image in four."""
    changed = torch.rand(count, generator=generator) < LIGHTING_PROBABILITY
    factor = _uniform(count, 1 - preset.lighting, 1 + preset.lighting, generator)
    return torch.where(changed, factor, 1.0)


def _draw(names: tuple[str, ...], count: int, generator: torch.Generator) -> _Drawn:
    """Draw one operation an image, and its amount between the bounds."""
    choice = torch.randint(len(names), (count,), generator=generator)
    operations = [GEOMETRY[name] if name in GEOMETRY else INTENSITY[name] for name in names]
    low, extent = torch.tensor([(one.low, one.high - one.low) for one in operations])[choice].unbind(1)
    return choice, low + extent * torch.rand(count, generator=generator)


def _drawn_matrices(names: tuple[str, ...], drawn: Sequence[_Drawn]) -> Tensor:
    """Return the matrices of the operations that images drew, ``(n, B, 3, 3)``; unit matrices where it is no pose."""
    if not drawn:
        return torch.empty(0, 0, 3, 3)
    choice, amount = (torch.stack(part) for part in zip(*drawn, strict=True))
    matrices = torch.eye(3).repeat(*choice.shape, 1, 1)
    for number, name in enumerate(names):
        chosen = choice == number
        if name in GEOMETRY and chosen.any():
            matrices[chosen] = GEOMETRY[name].change(amount[chosen])
    return matrices


def _changed_intensity(images: Tensor, names: tuple[str, ...], drawn: Sequence[_Drawn]) -> Tensor:
    """Apply to each image the operations that it drew: sorted by operation, so that each changes one slice."""
    place = torch.arange(len(images))
    for choice, amount in drawn:
        order = choice[place].argsort(stable=True)
        place = place[order]
        sorted_amount = amount[place]
        images = images.index_select(0, order.to(images.device))
        ends = choice.bincount(minlength=len(names)).cumsum(0).tolist()
        for name, start, end in zip(names, [0, *ends], ends, strict=False):
            if name in INTENSITY and name != "identity" and start < end:
                images[start:end] = INTENSITY[name].change(images[start:end], sorted_amount[start:end])
    return images.index_select(0, place.argsort().to(images.device)) if drawn else images


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)
