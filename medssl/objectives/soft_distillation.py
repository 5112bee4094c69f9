"""Soft distillation: the student shall answer what its teachers answered, their doubts included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.functional.clustering import cluster_mass
from medssl.functional.distillation import softened_divergence
from medssl.objectives.semi_supervised import SemiSupervisedObjective
from medssl.objectives.supervised import SupervisedLoss


class SoftDistillation(SemiSupervisedObjective):
    r"""Divergence from the teachers' stored probabilities, both softened; labels beside it where there are any.

    .. math:: L_\mathrm{labeled} = \alpha D + (1 - \alpha) L_\mathrm{CE}, \quad L_\mathrm{unlabeled} = \alpha D,
              \qquad D = \frac{T^2}{|V|} \sum_{i \in V}
              \mathrm{KL}\left(\mathrm{softmax}(\log p_i / T) \,\|\, \mathrm{softmax}(\log q_i / T)\right)

    Args:
        temperature: T.
        alpha: :math:`\alpha`, from 0 (labels alone) to 1 (teachers alone).
        kwargs: See `SemiSupervisedObjective`; ``labeled_loss`` is the cross-entropy where not given.

    Notes:
        The teachers' probabilities p stand in the batch as they are, not softened: ``unlabeled["target"]``,
        and ``target`` beside ``image``; without the latter the loss on labeled images is ``labeled_loss``
        alone. A target that is all zero is unknown and left out.

    Source:
        Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015.
    """

    def __init__(self, *, temperature: float = 4.0, alpha: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**{"labeled_loss": SupervisedLoss(dice_weight=0.0), **kwargs})
        if not temperature > 0 or not 0 <= alpha <= 1:
            msg = f"Found temperature={temperature} and alpha={alpha}; expected one above 0, and one from 0 to 1."
            raise ConfigError(msg)
        self.temperature = temperature
        self.alpha = alpha

    def labeled_term(self, scores: Tensor, label: Tensor, batch: Mapping[str, Any], first: int) -> Tensor:
        """Return the loss against labels and, where they are given, the teachers' probabilities."""
        supervised = super().labeled_term(scores, label, batch, first)
        if "target" not in batch:
            return supervised
        log_q = scores[:, first:].float().log_softmax(1)
        divergence = self._divergence(batch["target"], log_q, torch.ones_like(label[:, 0], dtype=torch.bool))
        return self.alpha * divergence + (1 - self.alpha) * supervised

    def unlabeled_term(
        self, log_q: Tensor, valid: Tensor, unlabeled: Mapping[str, Tensor], first: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the divergence from the stored probabilities."""
        target = unlabeled["target"].detach()
        known = valid & _known(target)
        parts = {
            "confidence": (target.amax(1) * known).sum() / known.sum().clamp_min(1),
            "mass": cluster_mass(target, known),
            "counted": known,
        }
        return self.alpha * self._divergence(target, log_q, valid), parts

    def _divergence(self, target: Tensor, log_q: Tensor, valid: Tensor) -> Tensor:
        return softened_divergence(target, log_q, valid & _known(target), self.temperature)


def _known(target: Tensor) -> Tensor:
    return target.sum(1) > 0.5
