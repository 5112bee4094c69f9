"""The model card of a classifier: what it is, what it was trained on, how good it is, where it ends. Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medssl.reporting.names_of_scores import SCORES

TEMPLATE = "model_card.md.j2"

LIMITS = (
    "Trained on the images counted above and on no others: other devices, stains, populations or resolutions may give "
    "other scores. Which images are harder than others was not studied."
)

UNASKED = {"supervised": "Trained on the labeled images alone."}
"""What stands in the place of a verdict."""


@dataclass(frozen=True)
class Origin:
    """What a network was made with, all trainings of a run added up.

    Args:
        steps: Of all of them.
        seed: That the user gave.
        started_from: Random weights, or which others, and their license.
        taught: How many of the training images were labeled by teachers.
        warning: What the license of those weights may forbid; empty where it is free, or where they are random.
    """

    steps: int
    seed: int
    started_from: str
    taught: int = 0
    warning: str = ""


def model_card(
    run: Mapping[str, Any],
    network: Mapping[str, Any],
    origin: Origin,
    *,
    parameters: int,
    temperature: float,
    scores: Mapping[str, Any] | None,
    sentence: str = "",
) -> str:
    """Return the card as Markdown.

    Args:
        run: The record of a run, ``run.json``; with a verdict, baseline and semi-supervised network stand in a table.
        network: Facts of the registry: name, source, id, license of the code.
        origin: See `Origin`.
        parameters: Of the network.
        temperature: Scores are divided by it; 1 where it was not fitted.
        scores: On the validation images, see `evaluation.classification.ClassificationScores.record`; None without any.
        sentence: Whether the unlabeled images helped; empty where that was not asked.
    """
    environment = Environment(
        loader=PackageLoader("medssl.reporting"),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(
        run=run,
        network=network,
        classes=[_cell(name) for name in run["classes"]],
        parameters=parameters,
        temperature=temperature,
        steps=origin.steps,
        seed=origin.seed,
        started_from=origin.started_from,
        taught=origin.taught,
        warning=origin.warning,
        scores=scores,
        measures=_measures(scores) if scores else (),
        per_class=_per_class(scores) if scores else (),
        compared=_compared(run.get("verdict"), scores) if scores else (),
        sentence=sentence or UNASKED.get(run["method"], "Whether the unlabeled images helped was not asked."),
        limits=LIMITS,
    )


def _cell(text: object) -> str:
    """Return a text that ends no cell of a table."""
    return str(text).replace("|", "\\|")


def _measures(scores: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is told about all classes together."""
    found = []
    for key, name in SCORES.items():
        ends = scores["interval"].get(key)
        found.append(
            (name, _number(scores[key]) + (f" [{_number(ends[0])}, {_number(ends[1])}]" if ends else ""))
        )
    return found


def _compared(verdict: Mapping[str, Any] | None, scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return macro F1 and accuracy of the supervised baseline and of the semi-supervised network.

    The scores are those of the one that was returned, the verdict tells how far the other one is from it.
    """
    if verdict is None or verdict["macro_f1"] is None:
        return []
    keys = ("macro_f1", "accuracy")
    baseline_returned = verdict["returned"] == "supervised"
    returned = [scores[key] for key in keys]
    sign = 1 if baseline_returned else -1
    other = [scores[key] + sign * verdict[key]["value"] for key in keys]
    rows = [("supervised baseline", baseline_returned), ("semi-supervised network", not baseline_returned)]
    return [
        (f"{name} (returned)", *map(_number, returned)) if is_returned else (name, *map(_number, other))
        for name, is_returned in rows
    ]


def _per_class(scores: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (_cell(row["name"]), str(row["n"]), *(_number(row[key]) for key in ("precision", "recall", "f1")))
        for row in scores["per_class"]
    ]


def _number(value: float | None) -> str:
    return "n/a" if value is None or isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # no "-0.000"
