"""Exponential moving average."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def update_average(average: Iterable[Tensor], current: Iterable[Tensor], decay: float) -> None:
    r"""Move averages towards current values in place, :math:`\bar\theta \leftarrow d \bar\theta + (1 - d) \theta`.

    Whole numbers (counters of batch norm) are copied.

    Args:
        average: Tensors to change.
        current: Tensors of the same shapes.
        decay: d, the share that is kept.
    """
    for mean, value in zip(average, current, strict=True):
        if mean.is_floating_point():
            mean.lerp_(value.to(mean), 1 - decay)
        else:
            mean.copy_(value)
