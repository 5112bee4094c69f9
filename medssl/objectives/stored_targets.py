"""Training on stored targets: SSLDEC and pseudo-labels in rounds differ only in how these were made."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from medssl.functional.clustering import cluster_mass
from medssl.functional.divergence import masked_kl
from medssl.objectives.semi_supervised import SemiSupervisedObjective


class StoredTargets(SemiSupervisedObjective):
    r"""Kullback-Leibler divergence from the prediction to the target of the round; one-hot: cross-entropy.

    .. math:: L_\mathrm{unlabeled} = \frac{1}{|V|} \sum_{i \in V} \sum_j p_{ij} (\log p_{ij} - \log q_{ij})

    Args:
        kwargs: See `SemiSupervisedObjective`.

    Notes:
        Voxels whose target is all zero (unsure, or moved in from outside) are unknown and left out.
    """

    def unlabeled_term(
        self, log_q: Tensor, valid: Tensor, unlabeled: Mapping[str, Tensor], first: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the divergence from the stored target."""
        target = unlabeled["target"]
        known = valid & (target.sum(1) > 0.5)
        parts = {
            "confidence": (target.amax(1) * known).sum() / known.sum().clamp_min(1),
            "mass": cluster_mass(target, known),
            "counted": known,
        }
        return masked_kl(target.log(), log_q, known), parts
