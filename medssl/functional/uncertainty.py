"""How sure a network is of its answer, and how far two answers are apart."""

from __future__ import annotations

import torch
from torch import Tensor

from medssl.functional.clustering import at_least_float32


def predictive_entropy(probabilities: Tensor) -> Tensor:
    r"""Return the entropy of the predicted labels at each place, in nats.

    .. math:: H_i = -\sum_j p_{ij} \log p_{ij}

    Args:
        probabilities: p, non-negative, sums to 1 over axis 1.

    Returns:
        0 where one label is sure, :math:`\log K` where all are equally likely.

    Shapes:
        probabilities: ``(B, K, *spatial)``; return: ``(B, *spatial)``
    """
    return -torch.xlogy(p := at_least_float32(probabilities), p).sum(1)


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the Jensen-Shannon divergence of two predictions at each place, in nats.

    .. math:: D_i = H\!\left(\tfrac{p_i + q_i}{2}\right) - \tfrac12 H(p_i) - \tfrac12 H(q_i)

    This is what two voters disagree about: where both are equally unsure, as in noise, it is 0 while the
    entropy is large. With voters that are samples of a network it is known as mutual information.

    Args:
        first: p, non-negative, sums to 1 over axis 1.
        second: q, likewise.

    Returns:
        0 where they are equal, :math:`\log 2` where each is sure of another label.

    Shapes:
        first, second: ``(B, K, *spatial)``; return: ``(B, *spatial)``

    Source:
        Query by committee with this divergence: McCallum, Nigam: Employing EM and pool-based active learning for
        text classification, ICML 1998. Own implementation.
    """
    p, q = at_least_float32(first), at_least_float32(second)
    middle = predictive_entropy((p + q) / 2)
    return (middle - (predictive_entropy(p) + predictive_entropy(q)) / 2).clamp_min(0)


def near_border(labels: Tensor, inside: Tensor, reach: int = 1) -> Tensor:
    """Tell which voxels of a mask are near a border between two labels.

    A voxel is on a border if one of its neighbors along an axis is in the mask too and has another label. The
    rim of the mask is no border: what lies outside has no label.

    Args:
        labels: A label a voxel.
        inside: The mask.
        reach: Steps along the axes, inside the mask, from a voxel on a border to its counterpart across: 1 for
            the voxels on borders alone, 2 for their neighbors as well, ...

    Shapes:
        labels: ``(B, *spatial)``; inside, return: the same, bool

    Raises:
        ValueError: ``reach`` is below 1.
    """
    if reach < 1:
        msg = f"reach is {reach}; expected 1 or more voxels."
        raise ValueError(msg)
    near = torch.zeros_like(inside)
    for axis in range(1, labels.ndim):
        low, high = _neighbors(labels, axis)
        in_low, in_high = _neighbors(inside, axis)
        _mark(near, axis, (low != high) & in_low & in_high)
    for _ in range(reach - 1):
        wider = near.clone()
        for axis in range(1, labels.ndim):
            low, high = _neighbors(near, axis)
            _mark(wider, axis, low | high)
        near = wider & inside
    return near


def mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean of each sample over some of its places; 0 where there are none.

    Shapes:
        values: ``(B, *spatial)``; where: the same, bool; return: ``(B,)``
    """
    kept = torch.where(where, values, 0.0)
    return kept.flatten(1).sum(1) / where.flatten(1).sum(1).clamp_min(1)


def _neighbors(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return what each pair of neighbors along an axis holds."""
    return x.narrow(axis, 0, x.shape[axis] - 1), x.narrow(axis, 1, x.shape[axis] - 1)


def _mark(marks: Tensor, axis: int, pairs: Tensor) -> None:
    """Mark both members of some pairs of neighbors along an axis."""
    for half in _neighbors(marks, axis):
        half.logical_or_(pairs)
