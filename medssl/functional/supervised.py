"""Losses against labels, blind to voxels whose label is unknown."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.labels import UNKNOWN


def masked_cross_entropy(
    logits: Tensor,
    label: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    log_prior: Tensor | None = None,
) -> Tensor:
    r"""Average the cross-entropy over the voxels whose label is known.

    .. math:: L = \frac{\sum_{i \in V} w_i c_{y_i} \ell_i}{\sum_{i \in V} w_i c_{y_i}}, \quad
              \ell_i = -(1 - \epsilon) \log q_{i, y_i} - \frac{\epsilon}{K} \sum_k \log q_{ik}, \quad
              q_i = \mathrm{softmax}(z_i + \tau \log \pi), \quad V = \{i : y_i \ne 255\}

    Args:
        logits: Network scores z.
        label: Channel numbers y; 255 is unknown.
        label_smoothing: :math:`\epsilon`, the share of the target that all classes divide equally.
        class_weight: c, one number a class; 1 where not given.
        weight: w, one number a sample of the batch; 1 where not given.
        log_prior: :math:`\tau \log \pi`, what the shares of the classes add to the scores (logit adjustment); 0 where
            not given.

    Returns:
        Scalar; exactly 0, with a graph, if no voxel is known or all weights are 0.

    Shapes:
        logits: ``(B, K, *spatial)``
        label: ``(B, *spatial)``
        class_weight, log_prior: ``(K,)``; weight: ``(B,)``

    Notes:
        The mean runs over the known voxels of the whole batch, so crops with more brain weigh more. A class
        weight counts for the whole loss of a voxel, its smoothed part included (torch weighs that by class).
        With :math:`\tau = 1` the scores z themselves aim at the mean accuracy of the classes: the network predicts with
        them as they are.

    Source:
        Logit adjustment: Menon et al., Long-tail learning via logit adjustment, ICLR 2021, equation 10.
    """
    logits = logits.float()
    if log_prior is not None:
        logits = logits + log_prior.to(logits).view(1, -1, *[1] * (logits.ndim - 2))
    losses = F.cross_entropy(
        logits,
        label.long(),
        ignore_index=UNKNOWN,
        reduction="sum" if class_weight is weight is None else "none",
        label_smoothing=label_smoothing,
    )
    known = label != UNKNOWN
    if class_weight is weight is None:
        return losses / known.sum().clamp_min(1)
    weights = known.float()
    if class_weight is not None:
        weights = weights * class_weight.to(weights)[label.long() * known]
    if weight is not None:
        weights = weights * weight.to(weights).view(-1, *[1] * (label.ndim - 1))
    return (weights * losses).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


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
