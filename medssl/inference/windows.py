"""Overlapping windows with Gaussian weights, as MONAI's sliding window runs a network."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod
from typing import cast

from monai.inferers import sliding_window_inference
from torch import Tensor

from medssl.errors import ConfigError
from medssl.inference.plan import TooLittleMemory, Triple

OVERLAP = 0.25
"""Share of a window's side that the next one covers again. Half of it takes up to twice as long and gives the same Dice
(`benchmarks/margin.py`)."""


def windowed(
    forward: Callable[[Tensor], Tensor], window: int, memory_limit: float, voxel_bytes: float
) -> Callable[[Tensor], Tensor]:
    """Return a function that runs overlapping windows where `forward` would run all at once.

    Neighbors are blended with Gaussian weights, so no seam shows, but a window sees less around a voxel than one
    pass does, and most voxels are computed two to three times. Along a side that is shorter than a window there is one.

    Args:
        forward: Maps a window `(1, C, i, j, k)` to logits `(1, L, i, j, k)`.
        window: Its side in voxels.
        memory_limit: Bytes that a window may take.
        voxel_bytes: Bytes that a pass takes for each voxel it reads.

    Shapes:
        return: `(1, C, I, J, K)` to `(1, L, I, J, K)`

    Raises:
        TooLittleMemory: The function does, where the limit is too small for a window.
    """

    def run(tile: Tensor) -> Tensor:
        sides = cast("Triple", tuple(min(window, side) for side in tile.shape[2:]))
        need = prod(sides) * voxel_bytes
        if need > memory_limit:
            msg = (
                f"The memory limit is too small for a window: found {memory_limit / 2**20:.0f} MiB, expected at "
                f"least {ceil(need / 2**20)} MiB."
            )
            raise TooLittleMemory(msg, "Choose smaller windows, or raise the memory limit.", enough=need)
        logits = sliding_window_inference(
            tile, sides, 1, lambda part: forward(part).to(tile.device), overlap=OVERLAP, mode="gaussian"
        )
        return cast("Tensor", logits)

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
