"""Pseudo-labels: the likeliest class where the prediction is sure enough."""

from __future__ import annotations

import torch
from torch import Tensor

from medssl.functional.clustering import at_least_float32
from medssl.labels import UNKNOWN


def pseudo_label(log_q: Tensor, threshold: float = 0.0) -> Tensor:
    r"""Return :math:`\arg\max_j q_{ij}` where its probability reaches a threshold, else unknown.

    Args:
        log_q: Log probabilities of the teacher.
        threshold: Least probability; 0 keeps every element.

    Returns:
        Class numbers, 255 where unsure. No gradient.

    Shapes:
        log_q: ``(B, K, *spatial)``; return: ``(B, *spatial)`` int64

    Source:
        Lee: Pseudo-label, ICML workshop 2013 (threshold 0); Sohn et al.: FixMatch, NeurIPS 2020 (threshold).
    """
    best, label = at_least_float32(log_q.detach()).max(1)
    return torch.where(best.exp() >= threshold, label, UNKNOWN)
