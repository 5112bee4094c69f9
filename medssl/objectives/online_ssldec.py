"""Online SSLDEC: an averaged teacher clusters, a target rule sharpens, the student follows on another view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.functional.anatomy import anatomy_weights, log_anatomical_factor, weights_from
from medssl.functional.clustering import RULES, cluster_mass, fused_assignment, log_target_distribution
from medssl.functional.divergence import masked_kl, masked_squared_difference
from medssl.objectives.semi_supervised import (
    SemiSupervisedObjective,
    mean_confidence,
    over_processes,
    teacher_log_q,
)

DISTANCES: Mapping[str, Callable[..., Tensor]] = {"kl": masked_kl, "squared": masked_squared_difference}
"""How far a prediction is from its target: as published, or bounded."""


class OnlineSSLDEC(SemiSupervisedObjective):
    r"""Distance of the student's assignment from the teacher's target distribution.

    .. math:: L_\mathrm{unlabeled} = \mathrm{KL}(p \,\|\, q), \qquad p = T(\bar q \, a^w, f)

    Args:
        teacher: Averaged network; clusters the unchanged view. The student sees the strongly changed one.
        labels: Number of labels, background included.
        rule: Target rule T, see `functional.clustering.log_target_distribution`.
        momentum: Share of the running frequencies f that a step keeps.
        confident: Weigh each voxel by the teacher's confidence, rescaled so that a uniform guess has none.
        distance: "kl", or "squared" in its place, see `DISTANCES`.
        anatomy_weight: w of the anatomical prior a, one number or one a label, background included; used
            where the unlabeled crops bring a ``prior (B, K, I, J, K)`` over all labels.
        kwargs: See `SemiSupervisedObjective`.

    Notes:
        Frequencies f run over the in-mask voxels of the unlabeled crops of past steps (all scans, `pool`), the
        prior pi over those of all labeled crops so far: both are drawn alike, whereas whole scans hold more of
        what lies at their rim than crops do. Both are part of the checkpoint.

    Source:
        Enguehard et al., IEEE Access 2019, for target and loss; the online teacher is this package's.
    """

    frequencies: Tensor
    label_mass: Tensor

    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor],
        *,
        labels: int,
        rule: str = "prior",
        momentum: float = 0.99,
        confident: bool = False,
        distance: str = "kl",
        anatomy_weight: float | Sequence[float] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.teacher = teacher
        if rule not in RULES:
            msg = f"There is no target rule '{rule}'. Choose one of: {', '.join(RULES)}."
            raise ConfigError(msg)
        self.rule = rule
        self.momentum = momentum
        self.confident = confident
        if distance not in DISTANCES:
            msg = f"There is no distance '{distance}'. Choose one of: {', '.join(DISTANCES)}."
            raise ConfigError(msg)
        self.distance = DISTANCES[distance]
        self.anatomy_weight = anatomy_weights(anatomy_weight, labels)
        self.register_buffer("frequencies", torch.zeros(labels, dtype=torch.float64))
        self.register_buffer("label_mass", torch.zeros(labels, dtype=torch.float64))

    def forward(self, network: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Count the labels, then return the loss (see `SemiSupervisedObjective.forward`)."""
        if "label" in batch:
            labels = len(self.label_mass)
            known = batch["label"][batch["label"] < labels].long()
            self.label_mass += over_processes(known.bincount(minlength=labels).double()).to(self.label_mass)
        return super().forward(network, batch)

    def unlabeled_term(
        self, log_q: Tensor, valid: Tensor, unlabeled: Mapping[str, Tensor], first: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the divergence from the target."""
        assigned = teacher_log_q(self.teacher, unlabeled["image"], first)
        fused = self.fused(assigned, unlabeled.get("prior"), first)
        mass = self._follow(cluster_mass(fused.exp(), valid), first)
        log_p = self.log_target(fused, first)
        weight = None
        if self.confident:
            K = assigned.shape[1]
            weight = (K * assigned.amax(1).exp() - 1) / (K - 1)
        parts = {"confidence": mean_confidence(assigned, valid), "mass": mass}
        return self.distance(log_p, log_q, valid, weight), parts

    def fused(self, log_q: Tensor, prior: Tensor | None, first: int) -> Tensor:
        """Return the log of q a^w, normalized; of q alone where no scans were registered.

        Shapes:
            log_q, return: ``(B, K - first, *spatial)``; prior: ``(B, K, *spatial)``
        """
        if prior is None:
            return log_q
        factor = log_anatomical_factor(prior[:, first:], weights_from(self.anatomy_weight, first))
        return fused_assignment(log_q, factor)

    def log_target(self, fused: Tensor, first: int) -> Tensor:
        """Return the log target of a fused assignment, under the frequencies and the prior counted so far."""
        frequencies, prior = (part[first:].to(fused.device) for part in (self.frequencies, self.label_mass))
        return log_target_distribution(fused, self.rule, frequencies, prior)

    def _follow(self, mass: Tensor, first: int) -> Tensor:
        """Move the running frequencies towards those of this step, over all processes."""
        mass = over_processes(mass)
        if float(mass.sum()):
            kept = self.momentum if float(self.frequencies.sum()) else 0.0
            self.frequencies[first:].lerp_((mass / mass.sum()).to(self.frequencies), 1 - kept)
        return mass
