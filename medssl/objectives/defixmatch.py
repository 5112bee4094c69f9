"""DeFixMatch: FixMatch whose term is measured on labeled images too, and that subtracted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.objectives.fixmatch import FixMatch


class DeFixMatch(FixMatch):
    r"""FixMatch without bias: the expected value of the loss is that of supervised training, whatever the term.

    .. math:: L = L_\mathrm{labeled} + \lambda \left(
              \frac{1}{n_u} \sum_{i \in U} h(x_i) - \frac{1}{n_l} \sum_{i \in L} h(x_i) \right), \quad
              h(x) = -\mathbb{1}(\max_j p_j \ge \tau) \log q_{\hat y}

    with p of the weakly and q of the strongly changed view of x, :math:`\hat y = \arg\max_j p_j`.

    Args:
        rule_options: ``{"threshold": 0.95}`` of the rule "fixed", the only one here.
        kwargs: See `SemiSupervisedObjective`.

    Raises:
        ConfigError: The labeled images of a batch have no strongly changed view.

    Notes:
        Whole images alone. The batch holds ``strong`` beside ``image`` for the labeled images as well
        (`ImageLoader`'s ``labeled_strong``). These go through the network three times, all in the one forward pass:
        for their labels, and in both views. The term may be negative. ``kept``, ``mass`` and ``confidence`` are those
        of the unlabeled images.

    Source:
        Schmutz, Humbert, Mattei: Don't fear the unlabelled: safe semi-supervised learning via debiasing, ICLR 2023.
    """

    def __init__(self, *, rule_options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__("fixed", rule_options=rule_options, **kwargs)

    def forward(self, network: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what `SemiSupervisedObjective` does."""
        unlabeled = batch.get("unlabeled")
        if unlabeled is None or "image" not in batch:
            return super().forward(network, batch)
        if "strong" not in batch:
            msg = "DeFixMatch found labeled images without a strongly changed view."
            raise ConfigError(msg, "Use a loader with labeled_strong=True.")
        joined = {view: torch.cat([unlabeled[view], batch[view]]) for view in self.views}
        joined["mask"] = torch.cat([unlabeled["mask"], torch.ones_like(batch["label"], dtype=torch.float32)])
        joined["unlabeled"] = torch.tensor(len(unlabeled["mask"]))
        return super().forward(network, {**batch, "unlabeled": joined})

    def unlabeled_term(
        self, log_q: Tensor, valid: Tensor, unlabeled: Mapping[str, Tensor], first: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return FixMatch's term of the unlabeled images less that of the labeled ones."""
        if "unlabeled" not in unlabeled:
            return super().unlabeled_term(log_q, valid, unlabeled, first)
        n = int(unlabeled["unlabeled"])
        (term, parts), (own, _) = (
            super(DeFixMatch, self).unlabeled_term(
                torch.cat([view[some] for view in log_q.chunk(2)]), valid[some], unlabeled, first
            )
            for some in (slice(n), slice(n, None))
        )
        return term - own, parts | {"counted": valid[:n]}
