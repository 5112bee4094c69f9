"""What ``--method`` means: overlays of the bundle, and the values that follow from the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl.errors import ConfigError
from medssl.io.nifti import read_labels, read_volume
from medssl.io.subjects import Cohort
from medssl.labels import NO_MASK, UNKNOWN

if TYPE_CHECKING:
    from medssl.workflows.train import TrainOptions

logger = logging.getLogger(__name__)

FEATURES = 16
"""Channels of the embedding under a clustering head."""

BACKGROUND_IN_MASK = 0.005
"""Share of mask voxels labeled as background from which on background has a cluster of its own."""


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


def overlays_of(options: TrainOptions) -> list[str]:
    """Return the overlays of a run, in their order.

    Raises:
        ConfigError: Rounds are asked for without a semi-supervised method.
    """
    method = method_named(options.method)
    if not method.semi_supervised:
        if options.rounds or options.target_rule or options.schedule:
            msg = "--rounds, --target-rule and --schedule belong to semi-supervised methods."
            raise ConfigError(msg, f"Choose one: --method {' or '.join(list(METHODS)[1:])}.")
        return []
    return [str(method.overlay), *(["train_rounds.yaml"] if options.rounds else [])]


def method_values(options: TrainOptions) -> dict[str, Any]:
    """Return what a method's options change in its configuration.

    Raises:
        ConfigError: An option that the method does not have.
    """
    method = method_named(options.method)
    values: dict[str, Any] = {}
    if options.rounds:
        values |= {"rounds": options.rounds, "target_rule": options.target_rule or method.rule}
        if options.schedule is not None:
            values["schedule"] = options.schedule
        return values
    if options.schedule is not None:
        msg = "--schedule says how rounds go on, but there are none."
        raise ConfigError(msg, "Add --rounds N.")
    if options.target_rule is not None:
        if options.method != "ssldec":
            msg = f"--method {options.method} has no target rule without rounds."
            raise ConfigError(msg, "Add --rounds N, or use --method ssldec.")
        values["target_rule"] = options.target_rule
    return values


def network_values(network: Mapping[str, Any], cohort: Cohort, options: TrainOptions) -> dict[str, Any]:
    """Return the description of the network, with a clustering head where the method has one."""
    shape = {"in_channels": "$len(@contrasts)", "out_channels": "$len(@labels)"}
    method = method_named(options.method)
    clustered = method.clustering_head if options.clustering_head is None else options.clustering_head
    if not clustered:
        return {"network_def": {**network, **shape}}
    background = background_is_inside(cohort)
    if background and options.target_rule == "dec":
        logger.warning(
            "Background is a cluster of its own here, and far larger than the others: the target rule 'dec' "
            "takes voxels from it in every round. 'prior' does not."
        )
    head = {
        "_target_": "medssl.networks.ClusteringNetwork",
        "backbone": {**network, **shape, "out_channels": FEATURES},
        "features": FEATURES,
        "labels": "$len(@labels)",
        "background": background,
    }
    inside = {"background_cluster": background} if method.clustering_head else {}
    return {"network_def": head, **inside}


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
