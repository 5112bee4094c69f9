"""Ramps: pure functions of the share of training that is done."""

from __future__ import annotations

import math


def linear_ramp(progress: float, start: float, end: float) -> float:
    """Return 0 up to ``start``, 1 from ``end`` on, a line between (Lee 2013, equation 16).

    Args:
        progress: Share of the training done, 0 to 1.
        start: Where the ramp leaves 0.
        end: Where it reaches 1; a step if that is the start.
    """
    if progress >= end:
        return 1.0
    return 0.0 if progress <= start else (progress - start) / (end - start)


def sigmoid_ramp(progress: float, start: float, end: float) -> float:
    r"""Return :math:`\exp(-5 (1 - t)^2)` with t the linear ramp, and exactly 0 up to the start.

    Source:
        Laine, Aila: Temporal ensembling for semi-supervised learning, ICLR 2017, section 3.
    """
    t = linear_ramp(progress, start, end)
    return math.exp(-5 * (1 - t) ** 2) if t > 0 else 0.0


def warmed_decay(decay: float, step: int) -> float:
    """Return the decay of a moving average that forgets its start: min(decay, (1 + step) / (10 + step))."""
    return min(decay, (1 + step) / (10 + step))
