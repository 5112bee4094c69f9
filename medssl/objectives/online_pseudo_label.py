"""Online pseudo-labels: the network's own arg max is the label of the moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.functional.clustering import cluster_mass
from medssl.functional.pseudo_label import pseudo_label
from medssl.functional.supervised import masked_cross_entropy
from medssl.labels import UNKNOWN
from medssl.objectives.semi_supervised import SemiSupervisedObjective, mean_confidence, teacher_log_q


class OnlinePseudoLabel(SemiSupervisedObjective):
    r"""Cross-entropy against the arg max, ramped up.

    .. math:: L_\mathrm{unlabeled} = -\frac{1}{|V|} \sum_{i \in V} \log q_{i, \hat y_i},
              \qquad \hat y_i = \arg\max_j q_{ij}

    Args:
        teacher: Labels the unchanged view; None: the student labels the very view that it sees (Lee 2013).
        threshold: Voxels less sure are left out.
        kwargs: See `SemiSupervisedObjective`.

    Notes:
        The mean runs over the voxels above the threshold.

    Source:
        Lee: Pseudo-label: the simple and efficient semi-supervised learning method for deep neural
        networks, ICML workshop 2013.
    """

    def __init__(
        self, teacher: Callable[[Tensor], Tensor] | None = None, *, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.teacher = teacher
        self.threshold = threshold

    def unlabeled_term(
        self, log_q: Tensor, valid: Tensor, unlabeled: Mapping[str, Tensor], first: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy against the pseudo-labels."""
        source = (
            log_q if self.teacher is None else teacher_log_q(self.teacher, unlabeled["image"], first)
        ).detach()
        label = torch.where(valid, pseudo_label(source, self.threshold), UNKNOWN)
        hard = F.one_hot(source.argmax(1), source.shape[1]).movedim(-1, 1)
        parts = {
            "confidence": mean_confidence(source, valid),
            "mass": cluster_mass(hard, valid),
            "counted": label != UNKNOWN,
        }
        return masked_cross_entropy(log_q, label), parts
