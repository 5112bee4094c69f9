"""Online SSLDEC: an averaged teacher clusters, a target rule sharpens, the student follows on another view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from medssl.functional.clustering import cluster_mass, log_target_distribution
from medssl.functional.divergence import masked_kl
from medssl.objectives.semi_supervised import SemiSupervisedObjective, mean_confidence, teacher_log_q


class OnlineSSLDEC(SemiSupervisedObjective):
    r"""Kullback-Leibler divergence from the student's assignment to the teacher's target distribution.

    .. math:: L_\mathrm{unlabeled} = \mathrm{KL}(p \,\|\, q), \qquad p = T(\bar q, f)

    Args:
        teacher: Averaged network; clusters the unchanged view. The student sees the strongly changed one.
        rule: Target rule T, see `functional.clustering.log_target_distribution`.
        counts: Voxels of each label among the labeled scans, background included: the prior pi.
        momentum: Share of the running frequencies f that a step keeps.
        confident: Weigh each voxel by the teacher's confidence, rescaled so that a uniform guess has none.
        kwargs: See `SemiSupervisedObjective`.

    Notes:
        Frequencies run over the in-mask voxels of the unlabeled crops of past steps (all scans, `pool`). They
        are part of the checkpoint.

    Source:
        Enguehard et al., IEEE Access 2019, for target and loss; the online teacher is this package's.
    """

    frequencies: Tensor

    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor],
        *,
        counts: Tensor | Sequence[float],
        rule: str = "prior",
        momentum: float = 0.99,
        confident: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.teacher = teacher
        self.rule = rule
        self.momentum = momentum
        self.confident = confident
        self.counts = torch.as_tensor(counts, dtype=torch.float64)
        self.register_buffer("frequencies", torch.zeros(len(self.counts), dtype=torch.float64))

    def unlabeled_term(
        self, log_q: Tensor, valid: Tensor, unlabeled: Mapping[str, Tensor], first: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the divergence from the target."""
        assigned = teacher_log_q(self.teacher, unlabeled["image"], first)
        mass = self._follow(cluster_mass(assigned.exp(), valid), first)
        prior = self.counts[first:]
        log_p = log_target_distribution(assigned, self.rule, self.frequencies[first:].to(mass), prior)
        weight = None
        if self.confident:
            K = assigned.shape[1]
            weight = (K * assigned.amax(1).exp() - 1) / (K - 1)
        parts = {"confidence": mean_confidence(assigned, valid), "mass": mass}
        return masked_kl(log_p, log_q, valid, weight), parts

    def _follow(self, mass: Tensor, first: int) -> Tensor:
        """Move the running frequencies towards those of this step, over all processes."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(mass)
        if float(mass.sum()):
            kept = self.momentum if float(self.frequencies.sum()) else 0.0
            self.frequencies[first:].lerp_((mass / mass.sum()).to(self.frequencies), 1 - kept)
        return mass
