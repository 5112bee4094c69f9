"""The model card of a classifier: what it is, what it was trained on, how good it is, where it ends. Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medssl.reporting.classification import SCORES

TEMPLATE = "model_card.md.j2"

LIMITS = (
    "Trained on the images counted above and on no others: other devices, stains, populations or resolutions may give "
    "other scores. Which images are harder than others was not studied."
)


def model_card(
    run: Mapping[str, Any],
    network: Mapping[str, Any],
    *,
    parameters: int,
    temperature: float,
    scores: Mapping[str, Any] | None,
    sentence: str = "",
    taught: int = 0,
) -> str:
    """Return the card as Markdown.

    Args:
        run: The record of a run, ``run.json``.
        network: Facts of the registry: name, source, id, license.
        parameters: Of the network.
        temperature: Scores are divided by it; 1 where it was not fitted.
        scores: On the validation images, see `evaluation.classification.ClassificationScores.record`; None without any.
        sentence: Whether the unlabeled images helped; empty where that was not asked.
        taught: How many of the training images were labeled by teachers.
    """
    loader = PackageLoader("medssl.reporting")
    environment = Environment(
        loader=loader, undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    license_name = network["license"]
    pretrained = "--pretrained" in run["command"]
    return environment.get_template(TEMPLATE).render(
        run=run,
        network=network,
        classes=run["classes"],
        parameters=parameters,
        temperature=temperature,
        weights=license_name if pretrained else "none were used, trained from scratch",
        scores=scores,
        measures=_measures(scores) if scores else (),
        per_class=_per_class(scores) if scores else (),
        sentence=sentence or "Trained without a labeled-only network beside it.",
        limits=LIMITS,
        taught=taught,
    )


def _measures(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is told about all classes together."""
    found = []
    for key, name in SCORES.items():
        ends = scores["interval"].get(key)
        found.append(
            (name, _number(scores[key]) + (f" [{_number(ends[0])}, {_number(ends[1])}]" if ends else ""))
        )
    return found


def _per_class(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (str(row["name"]), str(row["n"]), *(_number(row[key]) for key in ("precision", "recall", "f1")))
        for row in scores["per_class"]
    ]


def _number(value: float | None) -> str:
    return "n/a" if value is None or isnan(value) else f"{value:.3f}"
