"""How far a prediction is from a soft target."""

from __future__ import annotations

import torch
from torch import Tensor

from medssl.functional.clustering import at_least_float32


def masked_kl(log_p: Tensor, log_q: Tensor, valid: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Average the Kullback-Leibler divergence from prediction to target over the valid elements.

    .. math:: L = \frac{1}{|V|} \sum_{i \in V} w_i \sum_j p_{ij} (\log p_{ij} - \log q_{ij})

    Args:
        log_p: Log targets, constants; :math:`-\infty` is allowed, :math:`p \log p` is 0 there. For one-hot
            targets the loss is the cross-entropy.
        log_q: Log predictions.
        valid: V: in the mask, and not unknown.
        weight: w, a confidence per element; 1 where not given.

    Returns:
        Scalar, float32 at least; exactly 0, with a graph, if no element is valid.

    Shapes:
        log_p, log_q: ``(B, K, *spatial)``; valid: ``(B, *spatial)`` bool; weight: ``(B, *spatial)``

    Notes:
        The mean runs over the valid elements of the whole batch (not per crop, not weighted by w), so
        crops with more brain weigh more. The gradient reaches log q only. What stands outside V is not
        looked at: infinite or undefined values there change neither the loss nor a gradient.
    """
    log_p = torch.where(valid.unsqueeze(1), at_least_float32(log_p.detach()), -torch.inf)
    p = log_p.exp()
    terms = torch.where(p == 0, 0.0, p * (log_p - log_q)).sum(1)
    return _masked_mean(terms, valid, weight)


def masked_squared_difference(
    log_p: Tensor, log_q: Tensor, valid: Tensor, weight: Tensor | None = None
) -> Tensor:
    r"""Average the squared difference of probabilities (Brier score) over the valid elements.

    .. math:: L = \frac{1}{|V|} \sum_{i \in V} w_i \sum_j (p_{ij} - q_{ij})^2

    Unlike the divergence it is bounded: a target that is surely wrong pulls no harder than by 2. All
    arguments, shapes and notes are those of `masked_kl`.

    Source:
        Laine, Aila: Temporal ensembling for semi-supervised learning, ICLR 2017, section 2.
    """
    p = at_least_float32(log_p.detach()).exp()
    inside = valid.unsqueeze(1)
    q = torch.where(inside, at_least_float32(log_q), -torch.inf).exp()
    terms = (torch.where(inside, p, 0.0) - q).square().sum(1)
    return _masked_mean(terms, valid, weight)


def _masked_mean(terms: Tensor, valid: Tensor, weight: Tensor | None) -> Tensor:
    if weight is not None:
        terms = terms * torch.where(valid, weight.detach(), 0.0)
    return terms.sum() / valid.sum().clamp_min(1)
