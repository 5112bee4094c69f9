"""Overlapping windows with Gaussian weights, as MONAI's sliding window runs a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from monai.inferers import sliding_window_inference
from torch import Tensor

from medssl.errors import ConfigError

OVERLAP = 0.5
"""Share of a window's side that the next one covers again."""

MAPS = 16
"""Maps of the whole region that remain: joined logits and weights."""


def windowed(forward: Callable[[Tensor], Tensor], window: int) -> Callable[[Tensor], Tensor]:
    """Return a function that runs overlapping windows where `forward` would run all at once.

    Neighbors are blended with Gaussian weights, so no seam shows, but a window sees less around a voxel than one
    pass does, and most voxels are computed eight times.

    Args:
        forward: Maps a window `(1, C, w, w, w)` to logits `(1, L, w, w, w)`.
        window: Its side in voxels.

    Shapes:
        return: `(1, C, I, J, K)` to `(1, L, I, J, K)`
    """

    def run(tile: Tensor) -> Tensor:
        sides = (window,) * 3
        return cast("Tensor", sliding_window_inference(tile, sides, 1, forward, overlap=OVERLAP, mode="gaussian"))

    return run


def require_window(window: int, multiple: int) -> int:
    """Return a side that the network can run.

    Args:
        window: Side in voxels.
        multiple: The network's multiple.

    Raises:
        ConfigError: It is no multiple, or a single one.
    """
    if window < 2 * multiple or window % multiple:
        msg = f"Windows of {window} voxels cannot be run; expected a multiple of {multiple}, at least {2 * multiple}."
        raise ConfigError(msg, f"Choose --window {max(2, round(window / multiple)) * multiple}.")
    return window
