"""The labels that teachers give to unlabeled images: which are kept, and a table that shows all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.functional.distillation import (
    Consensus,
    consensus,
    kept_images,
    mean_probabilities,
    require_keep_rule,
    teacher_votes,
)
from medssl.functional.energy import unlike
from medssl.io.files import write_csv
from medssl.io.image_items import ImageItem
from medssl.io.subjects import TRANSDUCTIVE

COLUMNS = (
    *("path", "label", "class_index", "confidence", "kept", "round", "teacher_votes", "n_views"),
    *("weight", "energy"),
)
"""Of a table of pseudo-labels, before the probabilities of the classes."""

REJECTED = "unlike"
"""What stands in the column "kept", beside "yes" and "no", of an image that is unlike the labeled ones."""

WEIGHTS = ("none", "confidence")
"""How much a kept label counts in the loss: as much as a given one, or its confidence."""


@dataclass(frozen=True, kw_only=True)
class KeepRule:
    """Which labels a student learns from, see `functional.distillation.kept_images`, and how much each counts.

    Args:
        threshold: A label is kept where its probability is above; or a threshold a class, in the order of the classes.
        top_k: Keep the so many surest of each class instead, in each round.
        percentile: Keep what is above this percentile of the probabilities instead: 80 keeps a fifth; in each round.
        reduce: "mean_prob" or "vote".
        balance: Keep no more than so many times as many of a class as of the scarcest, all rounds added up; None: as
            they come.
        cap: Keep no more than so many times as many as there are given labels, all rounds added up; None for no limit.
        weight: One of `WEIGHTS`.
        energy_percentile: Keep no label of an image that is unlike the held-out ones: whose energy, see
            `functional.energy`, is above this percentile of theirs; None: of any image.

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
    energy_percentile: float | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None and self.percentile is not None:
            msg = (
                f"Found top_k {self.top_k} and percentile {self.percentile}; each decides alone what is kept."
            )
            raise ConfigError(msg, "Give one of them.")
        if self.weight not in WEIGHTS:
            msg = f"There is no weight '{self.weight}' of kept labels. Choose one of: {', '.join(WEIGHTS)}."
            raise ConfigError(msg)
        if self.energy_percentile is not None and not 0 <= self.energy_percentile <= 100:
            msg = f"Found an energy percentile of {self.energy_percentile}; expected one from 0 to 100."
            raise ConfigError(msg)
        for name, least in (("cap", 0), ("balance", 1)):
            found = getattr(self, name)
            if found is not None and not (isfinite(found) and found >= least):
                msg = f"Found --{name} {found}; expected a finite number of at least {least}."
                raise ConfigError(msg, f"Leave --{name} out for no limit.")
        require_keep_rule(*self.as_rule)

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


@dataclass(frozen=True)
class Answers:
    """What the teachers of a round say of unlabeled images.

    Args:
        passes: See `predict.predict_passes`.
        views: Of an image that each teacher saw.
        energies: Of the images, see `predict.mean_energies`; None where nothing asks for them.
        reference: Energies of labeled images.

    Shapes:
        passes: ``(M, N, K)``, M teachers times views; energies: ``(N,)``; reference: any number
    """

    passes: Tensor
    views: int
    energies: Tensor | None = None
    reference: Tensor | None = None


def write_pseudo_labels(  # noqa: PLR0913 (what a table is made of)
    path: Path,
    items: Sequence[ImageItem],
    classes: Sequence[str],
    answers: Answers,
    rule: KeepRule,
    *,
    labeled: int,
    round_number: int,
    before: Mapping[str, int],
    transductive: bool = False,
) -> None:
    """Write one row an unlabeled image: its label, how sure it is, and whether it is kept.

    Args:
        path: CSV to write.
        items: The images, in the order of the answers.
        classes: In the order of the probabilities.
        answers: See `Answers`.
        rule: Which labels are kept.
        labeled: Number of given labels, for the cap.
        round_number: Counted from 1.
        before: Class -> labels of it that earlier rounds kept, none where all are labeled anew.
        transductive: Whether held-out images may be among them; a column then says so in every row.

    Raises:
        OutputError: The folder cannot be written to.
    """
    found = consensus(answers.passes, rule.reduce)
    votes = teacher_votes(answers.passes, found.label, answers.views)
    rejected = _rejected(answers, rule)
    places = {name: place for place, name in enumerate(sorted(item.name for item in items))}
    order = torch.tensor([places[item.name] for item in items], dtype=torch.int64)
    earlier = torch.tensor([before.get(name, 0) for name in classes])
    kept = _kept_but(rejected, found, rule, labeled, order, earlier)
    stamp = TRANSDUCTIVE if transductive else {}
    rows = []
    for place, (item, q) in enumerate(zip(items, mean_probabilities(answers.passes).tolist(), strict=True)):
        number = int(found.label[place])
        rows.append(
            {
                "path": item.name,
                "label": classes[number],
                "class_index": number,
                "confidence": float(found.confidence[place]),
                "kept": REJECTED if rejected[place] else "yes" if kept[place] else "no",
                "round": round_number,
                "teacher_votes": int(votes[place]),
                "n_views": answers.views,
                "weight": float(found.confidence[place]) if rule.weight == "confidence" else 1.0,
                "energy": "" if answers.energies is None else float(answers.energies[place]),
                **{f"p_{name}": value for name, value in zip(classes, q, strict=True)},
                **stamp,
            }
        )
    write_csv(path, rows, [*COLUMNS, *[f"p_{name}" for name in classes], *stamp])


def _rejected(answers: Answers, rule: KeepRule) -> Tensor:
    """Tell which images are too unlike the labeled ones to have a label at all."""
    if rule.energy_percentile is None or answers.energies is None or answers.reference is None:
        return torch.zeros(answers.passes.shape[1], dtype=torch.bool)
    return unlike(answers.energies, answers.reference, rule.energy_percentile)


def _kept_but(
    rejected: Tensor, found: Consensus, rule: KeepRule, labeled: int, order: Tensor, before: Tensor
) -> Tensor:
    """Choose the labels that are kept from those that are not rejected."""
    name, value = rule.as_rule
    kept = torch.zeros_like(rejected)
    kept[~rejected] = kept_images(
        Consensus(found.label[~rejected], found.confidence[~rejected]),
        name,
        value=value,
        balance=rule.balance,
        most=None if rule.cap is None else int(rule.cap * labeled),
        order=order[~rejected],
        before=before,
    )
    return kept
