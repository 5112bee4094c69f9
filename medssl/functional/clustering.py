"""Deep embedded clustering: soft assignments, cluster frequencies, target distributions.

Every formula works on the class axis 1 of tensors ``(B, K, *spatial)``: whole images have no spatial axes,
voxels have three. All of it stays in log space, so that nothing under- or overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor

RULES = ("dec", "sharpen", "prior", "soft")
"""Target rules, see `log_target_distribution`."""

DEAD_SHARE = 1e-6
"""Least share of the mass that a cluster counts with; a dead cluster would get infinite targets."""


def at_least_float32(x: Tensor) -> Tensor:
    """Return half precision as float32, and float64 as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def log_soft_assignment(z: Tensor, mu: Tensor, alpha: float = 1.0) -> Tensor:
    r"""Return the log of the Student-t similarity between embeddings and cluster centers.

    .. math:: q_{ij} = \frac{u_{ij}}{\sum_k u_{ik}}, \qquad
              u_{ij} = \left(1 + \lVert z_i - \mu_j \rVert^2 / \alpha\right)^{-(\alpha + 1) / 2}

    Args:
        z: Embeddings.
        mu: Cluster centers, one a class.
        alpha: Degrees of freedom, a number or a tensor without axes; 1 in the authors' code.

    Returns:
        log q, float32 at least: distances overflow in float16 and lose their digits in bfloat16. No step
        is one that autocast would lower.

    Shapes:
        z: ``(B, D, *spatial)``; mu: ``(K, D)``; return: ``(B, K, *spatial)``

    Source:
        Xie, Girshick, Farhadi: Unsupervised deep embedding for clustering analysis, ICML 2016, equation 1.
    """
    z = at_least_float32(z)
    centers = at_least_float32(mu).unbind(0)
    squares = [(z - center.view([-1] + [1] * (z.ndim - 2))).square().sum(1) for center in centers]
    log_u = -(alpha + 1) / 2 * torch.log1p(torch.stack(squares, 1) / alpha)
    return log_u.log_softmax(1)


def cluster_mass(q: Tensor, valid: Tensor) -> Tensor:
    r"""Sum the assignments of each cluster, :math:`f_j = \sum_{i \in V} q_{ij}`, in float64.

    Masses of parts add up to the mass of the whole, so a cohort is streamed through.

    Args:
        q: Soft assignments.
        valid: Which elements count: voxels in the mask, each once.

    Shapes:
        q: ``(B, K, *spatial)``; valid: ``(B, *spatial)`` bool; return: ``(K,)``
    """
    counted = torch.where(valid.unsqueeze(1), q.detach().double(), 0.0)
    return counted.sum([0, *range(2, q.ndim)])


def log_target_distribution(
    log_q: Tensor,
    rule: str,
    frequencies: Tensor | None = None,
    prior: Tensor | None = None,
    log_evidence: Tensor | None = None,
) -> Tensor:
    r"""Return the log of the target distribution that assignments are pulled towards.

    .. math:: p_{ij} \propto q_{ij}^2 / f_j \;(\text{dec}), \quad q_{ij}^2 \;(\text{sharpen}), \quad
              q_{ij}^2 \, \pi_j / f_j \;(\text{prior}), \quad q_{ij} \;(\text{soft})

    Args:
        log_q: Log soft assignments of the teacher.
        rule: One of `RULES`.
        frequencies: f, the mass of each cluster over the stated set (subject, pool, running batches); any
            scale. Needed by "dec" and "prior".
        prior: pi, the share of each class among the labeled elements. Needed by "prior".
        log_evidence: Log of a further factor of q that may differ from place to place, such as
            :math:`a^w` of registered labels; f is then the mass of the fused q.

    Returns:
        log p without a gradient, float32 at least: neither p nor f is ever differentiated.

    Raises:
        ValueError: The rule is unknown, or lacks what it needs.

    Shapes:
        log_q, log_evidence, return: ``(B, K, *spatial)``; frequencies, prior: ``(K,)``

    Source:
        "dec": Xie et al. 2016, equation 3. "prior" equals "sharpen" where f is proportional to pi.
    """
    if rule not in RULES:
        msg = f"Unknown target rule: found {rule!r}, expected one of {RULES}."
        raise ValueError(msg)
    if (rule in ("dec", "prior") and frequencies is None) or (rule == "prior" and prior is None):
        needs = "the frequencies of the clusters" + " and the prior" * (rule == "prior")
        msg = f"The target rule {rule!r} needs {needs}."
        raise ValueError(msg)
    log_p = fused_assignment(at_least_float32(log_q.detach()), log_evidence)
    if rule != "soft":
        log_p = 2 * log_p
    if rule in ("dec", "prior"):
        log_p = log_p - _along_classes(log_shares(frequencies), log_p)
    if rule == "prior":
        log_p = log_p + _along_classes(log_shares(prior), log_p)
    return log_p.log_softmax(1)


def fused_assignment(log_q: Tensor, log_evidence: Tensor | None) -> Tensor:
    """Multiply assignments with a further factor and normalize: the log of q a^w / sum_k q a^w."""
    return log_q if log_evidence is None else (log_q + log_evidence).log_softmax(1)


def log_shares(mass: Tensor) -> Tensor:
    """Return log(f / sum f); clusters below `DEAD_SHARE` count as that, all alike if there is no mass."""
    return _shares(mass).clamp_min(DEAD_SHARE).log()


def dead_clusters(mass: Tensor) -> list[int]:
    """Return the clusters that hold no more than `DEAD_SHARE` of the mass."""
    return torch.nonzero(_shares(mass) <= DEAD_SHARE).flatten().tolist()


def center_distances(mu: Tensor) -> Tensor:
    r"""Return how far the centers are apart, :math:`\lVert \mu_j - \mu_k \rVert`, which bounds how sure q can be.

    Shapes:
        mu: ``(K, D)``; return: ``(K (K - 1) / 2,)`` float64, pairs j < k in the order of ``itertools.combinations``
    """
    return torch.pdist(mu.detach().double())


def class_means(z: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Sum the embeddings of each class and count them: means of parts are joined by adding both.

    Args:
        z: Embeddings.
        label: Cluster numbers; all others are left out.
        classes: K.

    Returns:
        Sums and counts, float64; 0 for a class without members.

    Shapes:
        z: ``(B, D, *spatial)``; label: ``(B, *spatial)``; return: ``(K, D)`` and ``(K,)``
    """
    points = z.detach().double().movedim(1, -1)
    members = [points[label == number] for number in range(classes)]
    sums = torch.stack([some.sum(0) for some in members])
    return sums, sums.new_tensor([len(some) for some in members])


def _shares(mass: Tensor) -> Tensor:
    mass = mass.double()
    return mass / mass.sum().clamp_min(torch.finfo(torch.float64).tiny)


def _along_classes(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like).view(1, -1, *[1] * (like.ndim - 2))
