"""The energy of a network's scores: how unlike an image is to those that the network learned."""

from __future__ import annotations

import torch
from torch import Tensor

from medssl.functional.clustering import at_least_float32


def energy(scores: Tensor) -> Tensor:
    r"""Return the free energy :math:`E(x) = -\log \sum_c e^{f_c(x)}`: low where a class is told from large scores.

    Args:
        scores: f, what a network says before the softmax.

    Shapes:
        scores: ``(*, K)``; return: ``(*)``

    Notes:
        Unlike the largest probability, which sees only differences of scores, it sees how large they are.

    Source:
        Liu, Wang, Owens, Li: Energy-based out-of-distribution detection, NeurIPS 2020, sections 2 (the energy) and
        3.1 (as a score), at temperature 1.
    """
    return -at_least_float32(scores).logsumexp(-1)


def unlike(energies: Tensor, reference: Tensor, percentile: float) -> Tensor:
    """Tell which energies are above a percentile of those of reference images, strictly.

    Args:
        energies: Of the images in question.
        reference: Of images that are as they should be, one at least.
        percentile: 0 to 100, interpolated linearly; 95 also calls a twentieth of the reference images unlike.

    Shapes:
        energies, return: ``(N,)``, the latter bool; reference: ``(M,)``
    """
    return energies.double() > torch.quantile(reference.double(), percentile / 100)
