"""Which unlabeled samples to label next: ranks, distances, and the weighted coverage of a pool."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rank_share(values: Tensor) -> Tensor:
    r"""Return the share of all values that lie below each of them, equal ones counted half.

    .. math:: r_i = \frac1N \sum_j \left([x_j < x_i] + \tfrac12 [x_j = x_i]\right)

    Quantities of different units can be averaged by it, and one extreme value weighs no more than the largest.

    Args:
        values: x.

    Returns:
        In (0, 1); 1/2 for all where all are equal. A value counts itself half.

    Shapes:
        values, return: ``(N,)``
    """
    below = (values[None] < values[:, None]).to(torch.float64)
    equal = (values[None] == values[:, None]).to(torch.float64)
    return (below + equal / 2).mean(1)


def standardized(descriptors: Tensor) -> Tensor:
    """Give each feature mean 0 and standard deviation 1 over the samples; a constant one becomes 0.

    Shapes:
        descriptors, return: ``(N, F)``
    """
    centered = descriptors - descriptors.mean(0)
    deviation = centered.square().mean(0).sqrt()
    constant = deviation <= 1e-9 * descriptors.abs().amax(0).clamp_min(1e-30)
    return torch.where(constant, 0.0, centered / torch.where(constant, 1.0, deviation))


def descriptor_distance(features: Tensor, groups: Sequence[int]) -> Tensor:
    r"""Return the distances of samples, each group of features counted once however many it holds.

    .. math:: d_{ij}^2 = \sum_g \frac{1}{|g|} \sum_{f \in g} (z_{if} - z_{jf})^2

    Args:
        features: z, standardized.
        groups: How many features each group holds, in their order.

    Shapes:
        features: ``(N, F)``; return: ``(N, N)``

    Raises:
        ValueError: The groups do not add up to the features.
    """
    if sum(groups) != features.shape[1]:
        msg = f"The groups {list(groups)} hold {sum(groups)} features; found {features.shape[1]}."
        raise ValueError(msg)
    weights = torch.cat([features.new_full((size,), size**-0.5) for size in groups])
    scaled = features * weights
    return (scaled[:, None] - scaled[None]).square().sum(-1).sqrt()


def similarity(distance: Tensor) -> Tensor:
    r"""Turn distances into similarities by a Gaussian kernel as wide as the median distance.

    .. math:: s_{ij} = \exp\!\left(-\frac{d_{ij}^2}{2 \sigma^2}\right), \qquad
        \sigma = \operatorname{median}_{i < j} d_{ij}

    Args:
        distance: d, symmetric, 0 on the diagonal.

    Returns:
        1 on the diagonal; 1 everywhere if the median is 0.

    Shapes:
        distance, return: ``(N, N)``
    """
    pairs = distance[torch.triu(torch.ones_like(distance, dtype=torch.bool), diagonal=1)]
    sigma = pairs.quantile(0.5) if pairs.numel() else distance.new_zeros(())
    return torch.ones_like(distance) if sigma == 0 else torch.exp(-distance.square() / (2 * sigma**2))


def greedy_coverage(similar: Tensor, weight: Tensor, labeled: Tensor) -> tuple[list[int], list[float]]:
    r"""Order the unlabeled samples so that each covers the most of what those before it leave uncovered.

    A sample j is covered as well as the labeled one that is most similar to it, :math:`S_j`. Labeling i gains

    .. math:: g_i = \frac{\sum_j w_j \max(0, s_{ij} - S_j)}{\sum_j w_j},

    summed over the unlabeled. The best i is taken, :math:`S_j` becomes :math:`\max(S_j, s_{ij})`, and so on. So
    a twin of a sample that was taken gains next to nothing, and an outlier little more than itself.

    Args:
        similar: s, in [0, 1], symmetric, 1 on the diagonal.
        weight: w, how much it matters to cover a sample (here: how unsure the network is of it); positive.
        labeled: Which samples are labeled; they are not ordered.

    Returns:
        The unlabeled samples in order, and the gain of each when it is taken; gains never rise. Equal gains go
        by weight, then by number.

    Shapes:
        similar: ``(N, N)``; weight: ``(N,)``; labeled: ``(N,)`` bool

    Notes:
        The sum is a monotone submodular function of the set that is labeled, so the first n together gain at
        least 63 % of what the best n could.

    Source:
        Facility location with weights: Wei, Iyer, Bilmes: Submodularity in data subset selection and active
        learning, ICML 2015. Uncertain and representative at once, for segmentation: Yang et al.: Suggestive
        annotation, MICCAI 2017, https://arxiv.org/abs/1706.04737. Own implementation.
    """
    pool = torch.where(labeled, 0.0, weight)
    covered = similar[labeled].amax(0) if labeled.any() else torch.zeros_like(weight)
    waiting = [int(place) for place in (~labeled).nonzero()[:, 0]]
    order: list[int] = []
    gains: list[float] = []
    while waiting:
        gain = (pool * (similar[waiting] - covered).clamp_min(0)).sum(1) / pool.sum()
        best = max(range(len(waiting)), key=lambda at: (float(gain[at]), float(weight[waiting[at]]), -at))
        order.append(waiting.pop(best))
        gains.append(float(gain[best]))
        covered = torch.maximum(covered, similar[order[-1]])
    return order, gains
