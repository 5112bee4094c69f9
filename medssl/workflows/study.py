"""Scoring runs in memory, for experiments that compare many of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from medssl.evaluation.metrics import score_labels
from medssl.inference.predictor import Predictor
from medssl.io.nifti import read_labels
from medssl.io.subjects import Subject
from medssl.workflows.anatomical_factor import Factor
from medssl.workflows.models import load_model
from medssl.workflows.prediction import predict_native


def dice_of_run(
    run: Path,
    subjects: Iterable[Subject],
    anatomy: Factor | None = None,
    *,
    resample: bool = False,
) -> dict[str, list[float]]:
    """Segment labeled subjects with a run and return their Dice, per label in the order of the subjects.

    Args:
        run: Run folder, bundle or file of weights.
        subjects: Subjects with a label; NaN where neither map holds the label.
        anatomy: Registered labels that have a say.
        resample: Bring other contrasts to the first one's grid by their headers.
    """
    model = load_model(run)
    predictor = Predictor(network=model.network)
    dice: dict[str, list[float]] = {label.abbreviation: [] for label in model.table.foreground}
    for subject in subjects:
        labels = predict_native(subject, model, predictor, resample, anatomy)
        reference = read_labels(str(subject.label), subject.key, model.table, subject.encoding)
        for row in score_labels(labels, reference.data, reference.grid.spacing, model.table):
            dice[str(row["label"])].append(float(row["dice"]))
    return dice


def mean_over_labels(dice: Mapping[str, Sequence[float]], subjects: Iterable[Subject]) -> dict[str, float]:
    """Return the mean Dice over the labels of each subject, by its key; NaN where no label could be scored."""
    return {
        subject.key: float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
        for subject, values in zip(subjects, np.array(list(dice.values())).T, strict=True)
    }
