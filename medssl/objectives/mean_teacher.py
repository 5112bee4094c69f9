"""Mean teacher: the averaged network's probabilities are what the student shall answer to another view."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from medssl.functional.clustering import cluster_mass
from medssl.functional.divergence import masked_squared_difference
from medssl.objectives.semi_supervised import SemiSupervisedObjective, mean_confidence, teacher_log_q


class MeanTeacher(SemiSupervisedObjective):
    r"""Mean squared difference of probabilities between student and teacher.

    .. math:: L_\mathrm{unlabeled} = \frac{1}{|V|} \sum_{i \in V} \sum_j (q_{ij} - \bar q_{ij})^2

    Args:
        teacher: Averaged network; sees the unchanged view, the student the strongly changed one.
        weight: Of the term; squared differences are small, so it is larger than for cross-entropies.
        kwargs: See `SemiSupervisedObjective`.

    Source:
        Tarvainen, Valpola: Mean teachers are better role models, NeurIPS 2017.
    """

    def __init__(self, teacher: Callable[[Tensor], Tensor], *, weight: float = 10.0, **kwargs: Any) -> None:
        super().__init__(weight=weight, **kwargs)
        self.teacher = teacher

    def unlabeled_term(
        self, log_q: Tensor, valid: Tensor, unlabeled: Mapping[str, Tensor], first: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared difference."""
        target = teacher_log_q(self.teacher, unlabeled["image"], first)
        parts = {
            "confidence": mean_confidence(target, valid),
            "mass": cluster_mass(target.exp(), valid),
        }
        return masked_squared_difference(target, log_q, valid), parts
