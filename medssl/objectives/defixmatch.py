"""DeFixMatch: FixMatch whose term is measured on labeled images too, and that subtracted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.functional.clustering import at_least_float32
from medssl.objectives.fixmatch import FixMatch


class DeFixMatch(FixMatch):
    r"""FixMatch without bias: the expected value of the loss is that of supervised training, whatever the term.

    .. math:: L = L_\mathrm{labeled} + \lambda \left(
              \frac{1}{n_u} \sum_{i \in U} h(x_i) - \frac{1}{n_l} \sum_{i \in L} h(x_i) \right), \quad
              h(x) = -\mathbb{1}(\max_j p_j \ge \tau) \log q_{\hat y}

    with p of the weakly and q of the strongly changed view of x, :math:`\hat y = \arg\max_j p_j`. The labels are
    learned from both views, each with weight 1/2.

    Args:
        rule_options: ``{"threshold": 0.95}`` of the rule "fixed", the only one here.
        weight: :math:`\lambda`; above 1/2 the loss has no lower bound where pseudo-labels are the labels.
        kwargs: See `SemiSupervisedObjective`.

    Raises:
        ConfigError: The labeled images of a batch have no strongly changed view.

    Notes:
        Whole images alone. The batch holds ``strong`` beside ``image`` for the labeled images as well
        (`ImageLoader`'s ``labeled_strong``). The term may be negative. ``kept``, ``mass`` and ``confidence`` are those
        of the unlabeled images; ``n_labeled`` counts both views.

    Source:
        Schmutz, Humbert, Mattei: Don't fear the unlabelled: safe semi-supervised learning via debiasing, ICLR 2023.
        Both views for the labels and the weight as in the USB library.
    """

    def __init__(
        self, *, rule_options: Mapping[str, Any] | None = None, weight: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__("fixed", rule_options=rule_options, weight=weight, **kwargs)

    def forward(self, network: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what `SemiSupervisedObjective` does."""
        if "image" not in batch:
            return super().forward(network, batch)
        if "strong" not in batch:
            msg = "DeFixMatch found labeled images without a strongly changed view."
            raise ConfigError(msg, "Use a loader with labeled_strong=True.")
        both = {name: torch.cat([batch[name]] * 2) for name in ("label", "weight") if name in batch}
        both["image"] = torch.cat([batch["image"], batch["strong"]])
        output = super().forward(network, {**batch, **both})
        if "loss_unlabeled" in output:
            first = int(getattr(getattr(network, "module", network), "first", 0))
            log_q = at_least_float32(output["pred"][: len(both["image"]), first:]).log_softmax(1)
            valid = torch.ones_like(batch["label"][:, 0], dtype=torch.bool)
            own, _ = self.unlabeled_term(log_q, valid, {}, first)
            output["loss"] = output["loss"] - float(output["unlabeled_weight"]) * own
            output["loss_unlabeled"] = output["loss_unlabeled"] - own.detach()
        return output
