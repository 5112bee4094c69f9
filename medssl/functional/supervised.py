"""Losses against labels, blind to voxels whose label is unknown."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.labels import UNKNOWN


def masked_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    r"""Average the cross-entropy over the voxels whose label is known.

    .. math:: L = -\frac{1}{|V|} \sum_{i \in V} \log \mathrm{softmax}(z_i)_{y_i}, \qquad V = \{i : y_i \ne 255\}

    Args:
        logits: Network scores z.
        label: Channel numbers y; 255 is unknown.

    Returns:
        Scalar; exactly 0, with a graph, if no voxel is known.

    Shapes:
        logits: ``(B, K, *spatial)``
        label: ``(B, *spatial)``

    Notes:
        The mean runs over the known voxels of the whole batch, so crops with more brain weigh more.
    """
    total = F.cross_entropy(logits.float(), label.long(), ignore_index=UNKNOWN, reduction="sum")
    return total / (label != UNKNOWN).sum().clamp_min(1)


def masked_dice_loss(logits: Tensor, label: Tensor, smooth: float = 1.0) -> Tensor:
    r"""Return one minus the soft Dice, averaged over the foreground classes, over known voxels.

    .. math:: L = 1 - \frac{1}{K-1} \sum_{k=1}^{K-1}
              \frac{2 \sum_{i \in V} q_{ik} p_{ik} + s}{\sum_{i \in V} (q_{ik} + p_{ik}) + s}

    Args:
        logits: Network scores; q is their softmax, p the one-hot label.
        label: Channel numbers; 255 is unknown.
        smooth: s, in voxels; keeps absent classes finite.

    Returns:
        Scalar in [0, 1].

    Shapes:
        logits: ``(B, K, *spatial)``
        label: ``(B, *spatial)``

    Notes:
        Sums run over the whole batch (batch Dice): single crops often lack a class.
    """
    K = logits.shape[1]
    known = (label != UNKNOWN).unsqueeze(1)
    q = torch.softmax(logits.float(), dim=1) * known
    p = F.one_hot(label.long() * known.squeeze(1), K).movedim(-1, 1) * known
    axes = [0, *range(2, logits.ndim)]
    overlap = (q * p).sum(axes)[1:]
    mass = (q + p).sum(axes)[1:]
    return 1 - ((2 * overlap + smooth) / (mass + smooth)).mean()
