"""What ``--method`` means: overlays of the bundle, and the values that follow from the data."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from medssl.errors import ConfigError
from medssl.functional.clustering import RULES
from medssl.io.nifti import read_labels, read_volume
from medssl.io.subjects import Cohort
from medssl.labels import BACKGROUND_IN_MASK, NO_MASK, UNKNOWN
from medssl.transforms.mixture import SCHEDULES
from medssl.transforms.targets import HARD
from medssl.workflows.budgets import budget_named
from medssl.workflows.models import packaged_bundle

if TYPE_CHECKING:
    from medssl.workflows.train import TrainOptions

logger = logging.getLogger(__name__)

HEAD_CONFIG = "train_ssldec.yaml"
"""The overlay that says how wide the embedding under a clustering head is, and its degrees of freedom."""

ANATOMY_CONFIG = "train_anatomy.yaml"
"""The overlay that registers labeled scans to the unlabeled ones."""

ROUNDS_ANATOMY_CONFIG = "train_rounds_anatomy.yaml"
"""The overlay that puts registered labels into stored targets."""

PRIORS = ("auto", "none", "class", "anatomical")
"""Choices of ``--prior``: what is known about the targets before the network is asked."""

FEW_LABELED = 8
"""With more labeled scans than these "auto" leaves registration alone."""


@dataclass(frozen=True)
class Method:
    """One choice of ``--method``.

    Args:
        overlay: Configuration laid over ``train.yaml``; None for labeled-only.
        clustering_head: Whether the network ends in one.
        rule: Its target rule in rounds.
        summary: For people.
    """

    overlay: str | None
    clustering_head: bool
    rule: str
    summary: str

    @property
    def semi_supervised(self) -> bool:
        """Whether unlabeled scans are used."""
        return self.overlay is not None


METHODS: Mapping[str, Method] = {
    "supervised": Method(None, False, "", "labeled scans only"),
    "pseudo-label": Method("train_pseudo_label.yaml", False, "hard", "the network's own labels, ramped up"),
    "mean-teacher": Method("train_mean_teacher.yaml", False, "soft", "agreement with an averaged network"),
    "ssldec": Method("train_ssldec.yaml", True, "prior", "clustered assignments, sharpened to targets"),
}


def method_named(name: str) -> Method:
    """Return a method.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in METHODS:
        msg = f"There is no method '{name}'. Choose one of: {', '.join(METHODS)}."
        raise ConfigError(msg)
    return METHODS[name]


def overlays_of(options: TrainOptions, cohort: Cohort | None = None) -> list[str]:
    """Return the overlays of a run, in their order; a cohort decides where the user left it open."""
    method = method_named(options.method)
    if not method.semi_supervised:
        return []
    anatomy = uses_anatomy(options, cohort)
    overlays = [str(method.overlay), *([ANATOMY_CONFIG] if anatomy else [])]
    if options.rounds:
        overlays += ["train_rounds.yaml", *([ROUNDS_ANATOMY_CONFIG] if anatomy else [])]
    return overlays


def uses_anatomy(options: TrainOptions, cohort: Cohort | None = None) -> bool:
    """Tell whether labeled scans are registered to the unlabeled ones."""
    if options.prior != "auto" or options.method != "ssldec" or options.rounds or cohort is None:
        return options.prior == "anatomical" and (cohort is None or bool(cohort.unlabeled))
    return bool(cohort.unlabeled) and len(cohort.training) <= FEW_LABELED


def method_values(options: TrainOptions) -> dict[str, Any]:
    """Return what a method's options change in its configuration.

    Raises:
        ConfigError: An option that the method does not have, or that does not go with another.
    """
    method = method_named(options.method)
    _require_fitting(options)
    _require_steps_for_rounds(options)
    _require_no_patience_in_rounds(options)
    _require_no_forgotten_weights(options)
    rule = options.target_rule or {"class": "prior", "none": "sharpen"}.get(options.prior)
    if options.rounds:
        values = {"rounds": options.rounds, "target_rule": rule or method.rule}
        return values | ({"schedule": options.schedule} if options.schedule else {})
    return {"target_rule": rule} if rule and options.method == "ssldec" else {}


def target_rule(options: TrainOptions) -> str:
    """Return the target rule that a run ends up with."""
    chosen = options.settings.get("target_rule") or method_values(options).get("target_rule")
    return str(chosen or method_named(options.method).rule)


def first_cluster(options: TrainOptions, cohort: Cohort) -> int:
    """Return the number of the first label that has a cluster: 1 where a mask keeps background out."""
    if not _is_clustered(options):
        return 0
    return 0 if options.settings.get("background_cluster", background_is_inside(cohort)) else 1


def _require_fitting(options: TrainOptions) -> None:
    """Refuse options that do not go together.

    Raises:
        ConfigError: With what would.
    """
    msg = cure = ""
    _require_known("prior", options.prior, PRIORS)
    if options.prior != "auto" and options.method != "ssldec":
        msg = f"--prior {options.prior} belongs to --method ssldec."
        cure = "Leave --prior out, or choose that method."
    elif not method_named(options.method).semi_supervised:
        if options.rounds or options.target_rule or options.schedule:
            msg = "--rounds, --target-rule and --schedule belong to semi-supervised methods."
            cure = f"Choose one: --method {' or '.join(list(METHODS)[1:])}."
    elif options.rounds < 0:
        msg, cure = f"--rounds {options.rounds} is below 0.", "Give 1 or more, or leave it out."
    elif options.schedule is not None and not options.rounds:
        msg, cure = "--schedule says how rounds go on, but there are none.", "Add --rounds N."
    elif options.target_rule is not None and not options.rounds and options.method != "ssldec":
        msg = f"--method {options.method} has no target rule without rounds."
        cure = "Add --rounds N, or use --method ssldec."
    else:
        _require_known("schedule", options.schedule, SCHEDULES)
        _require_known("target rule", options.target_rule, (*RULES, *([HARD] if options.rounds else [])))
    if msg:
        raise ConfigError(msg, cure)


def _require_steps_for_rounds(options: TrainOptions) -> None:
    """Refuse more rounds than a small budget has steps for; of a user's own number of steps nothing is known.

    Raises:
        ConfigError: With how many it has.
    """
    most, rounds = budget_named(options.budget).rounds, int(options.settings.get("rounds", options.rounds))
    own_steps = {"epochs", "steps_per_epoch"} & set(options.settings)
    if most is not None and rounds > most and not own_steps:
        msg = f"--rounds {rounds}: the steps of --budget {options.budget} are enough for {most} rounds."
        raise ConfigError(msg, f"Give {most} or fewer, or choose --budget full.")


def _require_no_patience_in_rounds(options: TrainOptions) -> None:
    """Refuse to stop early within stages whose steps are counted.

    Raises:
        ConfigError: With what to do.
    """
    patience = options.settings.get("patience")
    if options.rounds and patience:
        msg = f"--rounds take all their steps; patience {patience} would end their stages unevenly."
        raise ConfigError(msg, "Leave patience out, or train without --rounds.")


def _require_no_forgotten_weights(options: TrainOptions) -> None:
    """Refuse given weights that each round would forget, or that nobody asks what they have learned from.

    Raises:
        ConfigError: With what to do.
    """
    if "init_weights" in options.settings:
        msg = "Found --set init_weights=...; weights are given with --init, which asks what they have learned from."
        raise ConfigError(msg, "Use --init.")
    if (
        options.init
        and options.rounds
        and options.settings.get("schedule", options.schedule) == "union_reinit"
    ):
        msg = "--schedule union_reinit starts each round from new weights, and would forget those of --init."
        raise ConfigError(msg, "Choose --schedule union_warm or alternate, or leave --init out.")


def _require_known(what: str, found: str | None, known: Iterable[str]) -> None:
    known = list(known)
    if found is not None and found not in known:
        msg = f"There is no {what} '{found}' here. Choose one of: {', '.join(known)}."
        raise ConfigError(msg, "The target rule 'hard' needs --rounds N." if found == HARD else "")


def network_values(network: Mapping[str, Any], cohort: Cohort, options: TrainOptions) -> dict[str, Any]:
    """Return the description of the network, with a clustering head where the method has one."""
    shape = {"in_channels": "$len(@contrasts)", "out_channels": "$len(@labels)"}
    if not _is_clustered(options):
        if method_named(options.method).semi_supervised and target_rule(options) == "dec":
            logger.warning(
                "Without a clustering head background is a class like the others: the target rule 'dec' takes voxels "
                "from the largest class in every round. 'prior' does not."
            )
        return {"network_def": {**network, **shape}}
    told = yaml.safe_load((packaged_bundle() / "configs" / HEAD_CONFIG).read_text(encoding="utf-8"))
    told |= options.settings
    background = options.settings.get("background_cluster", background_is_inside(cohort))
    if background and target_rule(options) == "dec":
        logger.warning(
            "Background is a cluster of its own here, and far larger than the others: the target rule 'dec' "
            "takes voxels from it in every round. 'prior' does not."
        )
    head = {
        "_target_": "medssl.networks.ClusteringNetwork",
        "backbone": {**network, **shape, "out_channels": told["features"]},
        "features": told["features"],
        "labels": "$len(@labels)",
        "background": background,
        "alpha": told["alpha"],
    }
    inside = {"background_cluster": background} if method_named(options.method).clustering_head else {}
    return {"network_def": head, **inside}


def _is_clustered(options: TrainOptions) -> bool:
    chosen = options.clustering_head
    return method_named(options.method).clustering_head if chosen is None else chosen


def settings_of_network(settings: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """Let ``network_def#growth_rate`` mean the backbone's where the network ends in a clustering head."""
    if "backbone" not in network:
        return dict(settings)
    named: dict[str, Any] = {}
    for name, value in settings.items():
        part = name.removeprefix("network_def#")
        inside = part != name and part.partition("#")[0] not in (*network, "alpha")
        named[f"network_def#backbone#{part}" if inside else name] = value
    return named


def background_is_inside(cohort: Cohort) -> bool:
    """Tell whether background occurs inside the mask of the labeled scans, so that it needs a cluster."""
    outside = inside = 0
    for subject in cohort.training:
        if subject.mask == NO_MASK:
            return True
        first = read_volume(subject.images[0], subject.key).data
        mask = first != 0 if subject.mask is None else read_volume(subject.mask, subject.key).data > 0
        label = read_labels(str(subject.label), subject.key, cohort.table, subject.encoding).data
        known = mask & (label != UNKNOWN)
        outside += int(np.count_nonzero(known & (label == cohort.table.values[0])))
        inside += int(np.count_nonzero(known))
    return outside > BACKGROUND_IN_MASK * max(inside, 1)
