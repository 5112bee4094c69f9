"""FixMatch and its kin: the sure arg max of the weakly changed view is the label of the strongly changed one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.errors import ConfigError
from medssl.functional.thresholds import (
    RULES,
    Rule,
    State,
    align_distribution,
    fairness_cross_entropy,
    running_mean,
    start_state,
)
from medssl.objectives.semi_supervised import SemiSupervisedObjective, mean_confidence
from medssl.objectives.supervised import SupervisedLoss

ALIGNMENTS = ("none", "weights", "both")
"""What distribution alignment changes: nothing, the weights (SoftMatch), or the pseudo-labels as well."""


class FixMatch(SemiSupervisedObjective):
    r"""Cross-entropy of the strong view against pseudo-labels of the weak view, weighed by a threshold rule.

    .. math:: L_\mathrm{unlabeled} = -\frac{1}{|V|} \sum_{i \in V} w_i \log q_{i, \hat y_i}, \qquad
              \hat y_i = \arg\max_j p_{ij}, \quad
              w_i = \mathbb{1}(\max_j p_{ij} \ge \tau) \;\text{(rule "fixed")}

    Args:
        rule: One of `functional.thresholds.RULES`, or a function of the same form that needs no state.
        rule_options: Keyword arguments of the rule, such as ``{"threshold": 0.95}``.
        classes: K, the labels that the network tells apart; all rules but "fixed" need it, and alignment.
        pool: Number of unlabeled images, which ``unlabeled["index"]`` counts; "flexmatch" needs it.
        alignment: One of `ALIGNMENTS`: predictions are shifted so that on average they have the shares of
            ``prior``, see `functional.thresholds.align_distribution`.
        prior: Shares of the classes; uniform where not given.
        fairness_weight: Of FreeMatch's cross-entropy H(t, s), added to the term with the sign it is given:
            the USB library's :math:`\lambda_e` is a *negative* weight here, see
            `functional.thresholds.fairness_cross_entropy`.
        kwargs: See `SemiSupervisedObjective`; ``labeled_loss`` is the cross-entropy where not given.

    Notes:
        The mean runs over all valid unlabeled images, not only the kept ones. Labeled images and both views
        go through the student in one forward pass in training mode; the weak view gives no gradient.
        The state of the rule and the running mean of the alignment are buffers, part of the checkpoint; in
        distributed training they follow the batches of all processes. ``kept`` is the mean weight. Voxels
        work as well, each a sample, but for "flexmatch", which knows images by their number.

    Source:
        Sohn et al.: FixMatch, NeurIPS 2020. Rules: FlexMatch, FreeMatch, SoftMatch.
    """

    views = ("image", "strong")

    def __init__(
        self,
        rule: str | Rule = "fixed",
        *,
        rule_options: Mapping[str, Any] | None = None,
        classes: int = 0,
        pool: int = 0,
        alignment: str = "none",
        prior: Sequence[float] | None = None,
        fairness_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"labeled_loss": SupervisedLoss(dice_weight=0.0), **kwargs})
        state = start_state(rule, classes, pool) if isinstance(rule, str) else {}
        self.rule = _with_options(RULES[rule] if isinstance(rule, str) else rule, rule_options or {})
        self._known_by_index = rule == "flexmatch"
        if fairness_weight and rule != "freematch":
            msg = (
                f"Found fairness_weight {fairness_weight} with the rule '{rule}'; it belongs to 'freematch'."
            )
            raise ConfigError(msg, "Choose that rule, or leave the weight at 0.")
        self.fairness_weight = fairness_weight
        self._state_names = tuple(state)
        for name, value in state.items():
            self.register_buffer(f"rule_{name}", value)
        self.alignment = alignment
        self.prior = _checked_prior(alignment, prior, classes)
        if alignment != "none":
            self.register_buffer("average", torch.zeros(classes, dtype=torch.float64))

    def unlabeled_term(
        self, log_q: Tensor, valid: Tensor, unlabeled: Mapping[str, Tensor], first: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighed cross-entropy against the pseudo-labels."""
        weak, strong = log_q.chunk(2)
        weak = weak.detach()
        weight, label = self._judged(_rows(weak.exp(), valid), self._indices(unlabeled, valid))
        answer = _rows(strong, valid)
        losses = F.nll_loss(answer, label, reduction="none")
        total = (weight.to(losses) * losses).sum()
        term = total / max(len(label), 1)
        if self.fairness_weight:
            term = term + self.fairness_weight * fairness_cross_entropy(answer, weight, self._state())
        parts = {
            "confidence": mean_confidence(weak, valid),
            "mass": label.bincount(minlength=log_q.shape[1]).double(),
            "kept": weight.sum() / max(len(label), 1),
        }
        return term, parts

    def _judged(self, p: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight and pseudo-label of each row; move the state on."""
        if not self._state_names and self.alignment == "none":
            return self.rule(p, indices, {})[0], p.argmax(1)
        rows, own = _of_all_processes(torch.cat([p.double(), indices[:, None]], 1))
        p, indices = rows[:, :-1], rows[:, -1].long()
        aligned = p
        if self.alignment != "none":
            self.average = running_mean(self.average, p)
            aligned = align_distribution(p, self.average, self.prior)
        weight, state = self.rule(aligned, indices, self._state())
        for name in self._state_names:
            setattr(self, f"rule_{name}", state[name])
        labels = (aligned if self.alignment == "both" else p).argmax(1)
        return weight[own], labels[own]

    def _state(self) -> State:
        return {name: getattr(self, f"rule_{name}") for name in self._state_names}

    def _indices(self, unlabeled: Mapping[str, Tensor], valid: Tensor) -> Tensor:
        """Return the number in the pool of each valid element."""
        if "index" not in unlabeled:
            if self._known_by_index:
                msg = "The threshold rule 'flexmatch' found no 'index' in the batch of unlabeled images."
                raise ConfigError(msg, "Use a loader that numbers the images of the pool.")
            return valid.new_zeros(int(valid.sum()), dtype=torch.int64)
        return unlabeled["index"].view(-1, *[1] * (valid.ndim - 1)).expand_as(valid)[valid]


def _rows(values: Tensor, valid: Tensor) -> Tensor:
    """Return the valid elements, classes last: ``(B, K, *spatial)`` to ``(n, K)``."""
    return values.movedim(1, -1)[valid]


def _with_options(rule: Rule, options: Mapping[str, Any]) -> Rule:
    """Bind the options of a rule.

    Raises:
        ConfigError: The rule has no such option.
    """
    known = list(inspect.signature(rule).parameters)[3:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        msg = f"Found rule_options {', '.join(unknown)}; this threshold rule knows: {', '.join(known) or 'none'}."
        raise ConfigError(msg)
    return partial(rule, **options)


def _checked_prior(alignment: str, prior: Sequence[float] | None, classes: int) -> Tensor | None:
    """Return the shares that predictions are aligned with, None for uniform ones.

    Raises:
        ConfigError: The alignment is unknown, or the number of classes or of shares does not fit.
    """
    if alignment not in ALIGNMENTS:
        msg = f"There is no alignment '{alignment}'. Choose one of: {', '.join(ALIGNMENTS)}."
        raise ConfigError(msg)
    if alignment != "none" and classes < 2:
        msg = f"Alignment found classes={classes}; expected the number of classes, at least 2."
        raise ConfigError(msg)
    if prior is None:
        return None
    shares = torch.as_tensor(prior, dtype=torch.float64)
    if shares.shape != (classes,) or not (shares >= 0).all() or not shares.sum() > 0:
        msg = f"Found prior {prior}; expected {classes} shares, none below 0 and not all of them 0."
        raise ConfigError(msg)
    return shares / shares.sum()


def _of_all_processes(rows: Tensor) -> tuple[Tensor, slice]:
    """Return the rows of all processes of distributed training, and which of them are this one's."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows, slice(0, len(rows))
    rank = torch.distributed.get_rank()
    sizes = rows.new_zeros(torch.distributed.get_world_size(), dtype=torch.int64)
    sizes[rank] = len(rows)
    torch.distributed.all_reduce(sizes)
    start = int(sizes[:rank].sum())
    own = slice(start, start + len(rows))
    everyone = rows.new_zeros(int(sizes.sum()), rows.shape[1])
    everyone[own] = rows
    torch.distributed.all_reduce(everyone)
    return everyone, own
