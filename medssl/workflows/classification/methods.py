"""What ``--method`` means for images: an overlay of the bundle, or teachers, views and a target rule in rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medssl.errors import ConfigError


@dataclass(frozen=True)
class OnlineMethod:
    """A method whose targets are made within the step.

    Args:
        overlays: Configurations laid over ``train.yaml``; none for the labeled images alone.
        summary: For people.
        values: What it changes in the overlay.
    """

    overlays: tuple[str, ...]
    summary: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Distillation:
    """A method of rounds: teachers predict the unlabeled images, a student is trained on what is sure.

    Args:
        teachers: Least number of teachers.
        views: Whether they look at transformed images too.
        summary: For people.
    """

    teachers: int
    views: bool
    summary: str


ONLINE: Mapping[str, OnlineMethod] = {
    "supervised": OnlineMethod((), "labeled images only"),
    "pseudo-label": OnlineMethod(("train_pseudo_label.yaml",), "the network's own labels, ramped up"),
    "mean-teacher": OnlineMethod(("train_mean_teacher.yaml",), "agreement with an averaged network"),
    "fixmatch": OnlineMethod(("train_fixmatch.yaml",), "sure labels of a weak view teach a strong one"),
    "flexmatch": OnlineMethod(
        ("train_fixmatch.yaml",),
        "FixMatch, a threshold a class that follows learning",
        {"threshold_rule": "flexmatch"},
    ),
    "freematch": OnlineMethod(
        ("train_fixmatch.yaml",),
        "FixMatch, thresholds that adapt themselves",
        {"threshold_rule": "freematch"},
    ),
    "softmatch": OnlineMethod(
        ("train_fixmatch.yaml",),
        "FixMatch, weights instead of a threshold, of predictions aligned with equal shares",
        {"threshold_rule": "softmatch", "alignment": "weights"},
    ),
    "defixmatch": OnlineMethod(("train_defixmatch.yaml",), "FixMatch, its term on labeled images subtracted"),
    "mixmatch": OnlineMethod(("train_mixmatch.yaml",), "guessed labels, mixed with the given ones"),
    "ssldec": OnlineMethod(("train_ssldec.yaml",), "clustered assignments, sharpened to targets"),
}
"""Methods of `medssl classify train`."""

INSIDE: Mapping[str, OnlineMethod] = {
    "stored-targets": OnlineMethod(
        ("train_ssldec.yaml", "train_targets.yaml"), "a round of SSLDEC, see `rounds.train_in_rounds`"
    ),
    "soft-targets": OnlineMethod(
        ("train_soft_targets.yaml",), "a student of soft distillation, see `distill`"
    ),
}
"""Trainings inside a larger one, whose targets a teacher made before; no choice of `--method`."""

DISTILLATIONS: Mapping[str, Distillation] = {
    "plain": Distillation(1, False, "one teacher, one view"),
    "data": Distillation(1, True, "one teacher, several views"),
    "model": Distillation(2, False, "several teachers, one view"),
    "data-model": Distillation(2, True, "several teachers, several views"),
}
"""Methods of `medssl classify distill`; with more rounds than one each is its iterative variant."""


SHORT_NAMES: Mapping[str, str] = {"PD": "plain", "DD": "data", "MD": "model", "MDD": "data-model"}
"""The study's names of distillations -> ours; IPD, IDD, IMD and IMDD are the iterative variants."""

ITERATIVE_ROUNDS = 5
"""Most rounds of an iterative variant by its short name, where no number is given."""


def online_method(name: str) -> OnlineMethod:
    """Return a method of `medssl classify train`.

    Raises:
        ConfigError: There is none of that name.
    """
    if name in INSIDE:
        return INSIDE[name]
    if name not in ONLINE:
        msg = f"There is no method '{name}'. Choose one of: {', '.join(ONLINE)}."
        raise ConfigError(msg)
    return ONLINE[name]


def distillation(name: str) -> Distillation:
    """Return a method of `medssl classify distill`.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in DISTILLATIONS:
        msg = f"There is no distillation '{name}'. Choose one of: {', '.join(DISTILLATIONS)}."
        raise ConfigError(msg)
    return DISTILLATIONS[name]


def named_distillation(name: str, rounds: int | None = None) -> tuple[str, int]:
    """Return the kind of a distillation and its most rounds, by our name or the study's.

    Args:
        name: A key of `DISTILLATIONS` or of `SHORT_NAMES`, the latter with an I before it for the iterative variant.
        rounds: What is asked for; None: `ITERATIVE_ROUNDS` for an iterative variant, else 1.

    Raises:
        ConfigError: An iterative variant is asked for one round.
    """
    iterative = name.startswith("I") and name[1:] in SHORT_NAMES
    kind = SHORT_NAMES.get(name[1:] if iterative else name, name)
    if iterative and rounds == 1:
        msg = f"--kind {name} is iterative; found --rounds 1."
        raise ConfigError(msg, f"Give --rounds 2 or more, or --kind {name[1:]}.")
    return kind, rounds or (ITERATIVE_ROUNDS if iterative else 1)
