"""What the labels that teachers gave look like: how many, of which classes, how sure, and which to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssl.evaluation.audit import audit_pseudo_labels
from medssl.functional.distillation import consensus
from medssl.io.files import read_csv, read_json
from medssl.io.image_cohort import ImageCohort
from medssl.io.image_items import ImageItem, natural_order
from medssl.io.pseudo_label_table import kept_labels
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import numbers_of, predict_passes

AUDIT_FILE = "pseudo_labels/audit.json"
"""Where a distillation writes its audit."""


def run_audit(run: Path, cohort: ImageCohort, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the audit of the labels that the student learned, over all rounds; None where there are none.

    A student that learned answers, not labels, learned those of all images.

    Args:
        run: Folder of a distillation.
        cohort: Its images; the teachers are asked about those of validation, for the curve over thresholds.
        classes: Names in the order of the network's outputs.

    Returns:
        What `medssl.evaluation.audit.PseudoLabelAudit.record` returns; with ``"targets": "soft"`` where answers taught.
        The file that a finished distillation holds, where there is one.
    """
    if (run / AUDIT_FILE).is_file():
        return dict(read_json(run / AUDIT_FILE))
    folder = run / "pseudo_labels"
    tables = [folder / name for name in natural_order(path.name for path in folder.glob("round-*.csv"))]
    if not tables:
        return None
    rows = list(
        {row["path"]: row for table in tables for row in read_csv(table)}.values()
    )  # later ones count
    facts = _facts_of(tables[-1])
    soft = facts.get("targets") == "soft"
    kept = {row["path"] for row in rows} if soft else kept_labels(*tables).keys()
    probabilities = np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows])
    labeled = Counter(item.label for item in cohort.training)
    found = audit_pseudo_labels(
        [row["path"] for row in rows],
        probabilities / probabilities.sum(1, keepdims=True),
        np.array([row["path"] in kept for row in rows]),
        list(classes),
        [labeled[name] for name in classes],
        given=(
            np.array([classes.index(row["label"]) for row in rows]),
            np.array([float(row["confidence"]) for row in rows]),
        ),
        validation=None if soft else _held_out_answers(run, tables[-1], cohort.validation, classes),
    ).record()
    return found | {"targets": "soft", "warnings": []} if soft else found


def _facts_of(table: Path) -> Mapping[str, Any]:
    """Return what is known of how a table of pseudo-labels was made."""
    path = table.with_suffix(".json")
    return read_json(path) if path.is_file() else {}


def _held_out_answers(
    run: Path, table: Path, validation: Sequence[ImageItem], classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Ask the teachers of a round about labeled images, as they were asked about the unlabeled ones.

    Returns:
        True class numbers, what the teachers say, and how sure they are; None where there are no images, no teachers,
        or nobody knows what these saw.

    Shapes:
        return: ``(N,)`` each
    """
    before = int(table.stem.removeprefix("round-")) - 1
    teachers = natural_order(path.name for path in (run / "teachers").glob(f"round-{before}-teacher-*"))
    facts = _facts_of(table)
    if not (validation and teachers and "views" in facts):
        return None
    temperatures = facts.get("temperatures", [1.0] * len(teachers))
    models = [
        load_classifier(run / "teachers" / name).at_temperature(temperature)
        for name, temperature in zip(teachers, temperatures, strict=True)
    ]
    found = consensus(predict_passes(validation, models, facts["views"]), facts.get("reduce", "mean_prob"))
    return numbers_of(validation, classes), found.label.numpy(), found.confidence.numpy()
