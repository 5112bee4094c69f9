"""The labels that teachers give to unlabeled images: which are kept, and a table that shows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.functional.distillation import (
    consensus,
    kept_images,
    mean_probabilities,
    require_keep_rule,
    teacher_votes,
)
from medssl.io.files import write_csv
from medssl.io.image_items import ImageItem

COLUMNS = (
    *("path", "label", "class_index", "confidence", "kept", "round", "teacher_votes", "n_views"),
    "weight",
)
"""Of a table of pseudo-labels, before the probabilities of the classes."""

WEIGHTS = ("none", "confidence")
"""How much a kept label counts in the loss: as much as a given one, or its confidence."""


@dataclass(frozen=True, kw_only=True)
class KeepRule:
    """Which labels a student learns from, see `functional.distillation.kept_images`, and how much each counts.

    Args:
        threshold: A label is kept where its probability is above; or a threshold a class, in the order of the classes.
        top_k: Keep the so many surest of each class instead.
        percentile: Keep what is above this percentile of the probabilities instead: 80 keeps a fifth.
        reduce: "mean_prob" or "vote".
        balance: Keep no more than so many times as many of a class as of the scarcest; None: as they come.
        cap: Keep no more than so many times as many as there are given labels; None for no limit.
        weight: One of `WEIGHTS`.

    Raises:
        ConfigError: A number is out of range, a word is unknown, or two rules are given.
    """

    threshold: float | Sequence[float] = 0.8
    top_k: int | None = None
    percentile: float | None = None
    reduce: str = "mean_prob"
    balance: float | None = None
    cap: float | None = None
    weight: str = "none"

    def __post_init__(self) -> None:
        if self.top_k is not None and self.percentile is not None:
            msg = (
                f"Found top_k {self.top_k} and percentile {self.percentile}; each decides alone what is kept."
            )
            raise ConfigError(msg, "Give one of them.")
        if self.weight not in WEIGHTS:
            msg = f"There is no weight '{self.weight}' of kept labels. Choose one of: {', '.join(WEIGHTS)}."
            raise ConfigError(msg)
        require_keep_rule(*self.as_rule, self.balance)

    @property
    def as_rule(self) -> tuple[str, float | Sequence[float]]:
        """Name and value of the rule, as `functional.distillation.kept_images` takes them."""
        if self.top_k is not None:
            return "top_k_per_class", self.top_k
        if self.percentile is not None:
            return "percentile", self.percentile
        return "per_class_threshold" if isinstance(self.threshold, Sequence) else "threshold", self.threshold

    def as_options(self) -> list[tuple[str, object]]:
        """Return what a command says about it."""
        told: dict[str, object] = {name.replace("_", "-"): value for name, value in vars(self).items()}
        if isinstance(self.threshold, Sequence):
            told["threshold"] = ",".join(map(str, self.threshold))
        return [(name, None if value in (None, "none") else str(value)) for name, value in told.items()]


def write_pseudo_labels(
    path: Path,
    items: Sequence[ImageItem],
    classes: Sequence[str],
    passes: Tensor,
    rule: KeepRule,
    *,
    views: int,
    labeled: int,
    round_number: int,
) -> None:
    """Write one row an unlabeled image: its label, how sure it is, and whether it is kept.

    Args:
        path: CSV to write.
        items: The images, in the order of the passes.
        classes: In the order of the probabilities.
        passes: See `predict.predict_passes`.
        rule: Which labels are kept.
        views: Of an image that each teacher saw.
        labeled: Number of given labels, for the cap.
        round_number: Counted from 1.

    Raises:
        OutputError: The folder cannot be written to.
    """
    found = consensus(passes, rule.reduce)
    votes = teacher_votes(passes, found.label, views)
    places = {name: place for place, name in enumerate(sorted(item.name for item in items))}
    name, value = rule.as_rule
    kept = kept_images(
        found,
        name,
        value=value,
        balance=rule.balance,
        most=None if rule.cap is None else int(rule.cap * labeled),
        order=torch.tensor([places[item.name] for item in items]),
    )
    rows = []
    for place, (item, q) in enumerate(zip(items, mean_probabilities(passes).tolist(), strict=True)):
        number = int(found.label[place])
        rows.append(
            {
                "path": item.name,
                "label": classes[number],
                "class_index": number,
                "confidence": float(found.confidence[place]),
                "kept": "yes" if bool(kept[place]) else "no",
                "round": round_number,
                "teacher_votes": int(votes[place]),
                "n_views": views,
                "weight": float(found.confidence[place]) if rule.weight == "confidence" else 1.0,
                **{f"p_{name}": value for name, value in zip(classes, q, strict=True)},
            }
        )
    write_csv(path, rows, [*COLUMNS, *[f"p_{name}" for name in classes]])
