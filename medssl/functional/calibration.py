"""Whether a network is as sure as it is right."""

from __future__ import annotations

import torch
from torch import Tensor


def calibration_error(confidence: Tensor, correct: Tensor, bins: int = 15) -> float:
    r"""Return the expected calibration error, :math:`\sum_b \frac{n_b}{n} |\mathrm{acc}_b - \mathrm{conf}_b|`.

    Args:
        confidence: Probability of the predicted class, 0 to 1.
        correct: Whether it was the right one.
        bins: Bins of equal width.

    Returns:
        0 (as sure as right) to 1; NaN without elements.

    Shapes:
        confidence, correct: ``(N,)``

    Source:
        Guo et al.: On calibration of modern neural networks, ICML 2017, equation 3.
    """
    if not len(confidence):
        return float("nan")
    place = (confidence.double() * bins).long().clamp(0, bins - 1)
    gap = confidence.new_zeros(bins, dtype=torch.float64)
    gap.index_add_(0, place, correct.double() - confidence.double())
    return float(gap.abs().sum() / len(confidence))
