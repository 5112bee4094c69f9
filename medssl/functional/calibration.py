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
    return calibration_error_of(calibration_gaps(confidence, correct, bins), len(confidence))


def calibration_gaps(confidence: Tensor, correct: Tensor, bins: int = 15) -> Tensor:
    r"""Return what sums up over elements, :math:`n_b (\mathrm{acc}_b - \mathrm{conf}_b)` of each bin.

    Args:
        confidence: Probability of the predicted class, 0 to 1.
        correct: Whether it was the right one.
        bins: Bins of equal width.

    Shapes:
        confidence, correct: ``(N,)``; return: ``(bins,)``, float64
    """
    place = (confidence.double() * bins).long().clamp(0, bins - 1)
    gap = confidence.new_zeros(bins, dtype=torch.float64)
    return gap.index_add_(0, place, correct.double() - confidence.double())


def calibration_error_of(gaps: Tensor, elements: int) -> float:
    """Return the calibration error of gaps that were summed up; NaN without elements.

    Args:
        gaps: See `calibration_gaps`.
        elements: How many were summed up.

    Shapes:
        gaps: ``(bins,)``
    """
    return float(gaps.abs().sum() / elements) if elements else float("nan")
