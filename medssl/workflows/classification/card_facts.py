"""What a file of weights tells of how it was made; it is passed on, so it names no folder of this machine."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from medssl.networks import ClusteringNetwork
from medssl.networks.compact import classifier_of
from medssl.workflows.configuration import one_line
from medssl.workflows.models import read_config

RECORDED = ("command", "method", "rounds", "targets", "seed", "budget", "versions", "images")
"""What the card takes from ``run.json``; among the versions is the revision of a checkout."""

_FOLDERS = re.compile(r"[/\\]")
_QUOTED = re.compile(r"(?<!\+)(?<!\+ )(?P<mark>['\"])(?P<text>[^'\"]*[/\\][^'\"]*)(?P=mark)")


def card_facts(run: Path, record: Mapping[str, Any], network: nn.Module) -> dict[str, Any]:
    """Return what made a network: command, versions, seed, architecture, the whole configuration.

    Args:
        run: Run folder with ``configs/train.yaml``.
        record: What ``run.json`` holds.
        network: The trained one.
    """
    config = dict(read_config(run / "configs" / "train.yaml", {}).config)
    config.pop("_meta_", None)
    config["pretrained"] = record.get(
        "pretrained", config["pretrained"]
    )  # by its name, not that of the copy in the run
    told = {name: record[name] for name in RECORDED if name in record}
    if "command" in told:
        told["command"] = command_without_folders(str(told["command"]))
    return {
        **told,
        "architecture": architecture_of(network),
        "averaged": config["average"],
        "config": without_folders(config) | {"classes": config["classes"]},  # names may hold a slash
    }


def architecture_of(network: nn.Module) -> dict[str, Any]:
    """Say where a network comes from, how it normalizes its input, one number a channel, and what its head is."""
    classifier = classifier_of(network)
    return {
        "source": classifier.facts.source,
        "id": classifier.facts.id,
        "mean": _rounded(classifier.mean),
        "std": _rounded(classifier.std),
        "head": "clustering" if isinstance(network, ClusteringNetwork) else "linear",
    }


def without_folders(value: Any) -> Any:
    """Return plain values in which every path is cut down to its last name, in expressions those in quotes.

    Quoted parts that are appended to something (``$@bundle_root + '/data'``) stay, since they name no place.
    """
    if isinstance(value, Mapping):
        return {name: without_folders(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(one) for one in value]
    if not isinstance(value, str):
        return value
    if value.startswith("$"):
        return _QUOTED.sub(lambda found: f"{found['mark']}{_last(found['text'])}{found['mark']}", value)
    return _last(value)


def command_without_folders(command: str) -> str:
    """Return a command whose paths are cut down to their last names."""
    words = shlex.split(command)
    for place, word in enumerate(words):
        name, equals, setting = word.partition("=")
        if words[place - 1] == "--set" and _FOLDERS.search(setting):
            words[place] = name + equals + one_line(without_folders(yaml.safe_load(setting)))
        elif words[place - 1] != "--set":
            words[place] = _last(word)
    return shlex.join(words)


def finite(told: Any) -> Any:
    """Return JSON values with null for numbers that are none, as a macro precision without answers of a class."""
    if isinstance(told, Mapping):
        return {name: finite(value) for name, value in told.items()}
    if isinstance(told, list):
        return [finite(value) for value in told]
    return None if isinstance(told, float) and not math.isfinite(told) else told


def _last(text: str) -> str:
    return _FOLDERS.split(text.rstrip("/\\"))[-1]


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 6) for value in values.flatten()]
