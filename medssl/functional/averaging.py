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
    pairs = [(mean, value.to(mean)) for mean, value in zip(average, current, strict=True)]
    averaged = [pair for pair in pairs if pair[0].is_floating_point()]
    if averaged:
        means, values = zip(*averaged, strict=True)
        torch._foreach_lerp_(means, values, 1 - decay)
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)
