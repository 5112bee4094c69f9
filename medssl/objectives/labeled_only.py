"""Labeled-only training as an objective; unlabeled crops, if there are any, are not looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from medssl.objectives.semi_supervised import SemiSupervisedObjective


class LabeledOnly(SemiSupervisedObjective):
    """The loss on labeled crops alone.

    Args:
        labeled_loss: Of scores and labels; `SupervisedLoss` where not given.
    """

    def forward(self, network: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``loss``, ``pred`` and ``loss_labeled`` (see `SemiSupervisedObjective.forward`)."""
        labeled = {name: value for name, value in batch.items() if name != "unlabeled"}
        return super().forward(network, labeled)
