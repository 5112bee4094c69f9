"""Scores of a classifier: which classes it finds, how often it is right, and whether it knows when.

Conventions, the same everywhere in medssl:

* A class that the references hold and nobody predicts has recall 0, F1 0 and **no precision** (NaN here,
  "n/a" in print). Macro precision is then NaN too; macro F1 counts the 0.
* A class that the references do not hold has no recall and no F1 and is left out of every macro mean, also
  where it was predicted. (scikit-learn counts such a class as 0.)
* The one-vs-rest AUROC counts a tie as half; its macro mean runs over classes with cases on both sides.
* Images whose class is unknown are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.evaluation.bootstrap import DRAWS, percentile_interval, stratified_weights
from medssl.labels import UNKNOWN

MEASURES = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "auroc",
    "ece",
    "binary_f1_positive",
)
WITH_INTERVAL = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")
"""Measures that get an interval. Resampling pushes the calibration error upward, so that it gets none."""

BINS = 15
SUM_TOLERANCE = 1e-3
"""How far the probabilities of an image may be from summing to 1."""

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


@dataclass(frozen=True)
class ClassScores:
    """What one class scored; NaN where a measure is not defined.

    Args:
        name: Of the class.
        precision: Share of the images called so that are; NaN where none is called so.
        recall: Share of the images of the class that are called so; NaN where there is none.
        f1: Harmonic mean of both; 0 for a class that is there and never called, NaN for one that is not there.
        n: Images of the class.
        n_pred: Images called so.
    """

    name: str
    precision: float
    recall: float
    f1: float
    n: int
    n_pred: int


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, one entry a bin of equal width.

    Args:
        count: Images in the bin.
        accuracy: Share of them that is right, NaN in an empty bin.
        confidence: Mean probability of the predicted class, NaN in an empty bin.
    """

    count: NDArray[np.int64]
    accuracy: Floats
    confidence: Floats

    @property
    def error(self) -> float:
        r"""Expected calibration error, :math:`\sum_b \frac{n_b}{n} |\mathrm{acc}_b - \mathrm{conf}_b|`."""
        gap = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gap * self.count) / self.count.sum()) if self.count.any() else nan


@dataclass(frozen=True)
class ClassificationScores:
    """Everything that is reported about a classifier on one set of images.

    Args:
        classes: Names in the order of the probabilities.
        n: Images that were scored.
        n_unknown: Images left out since nobody knows their class.
        measures: Name in `MEASURES` -> value, NaN where not defined.
        interval: Name in `WITH_INTERVAL` -> ends of the 95 % interval.
        per_class: One entry a class.
        confusion: Images per reference (row) and prediction (column).
        reliability: Confidence against accuracy.
    """

    classes: tuple[str, ...]
    n: int
    n_unknown: int
    measures: Mapping[str, float]
    interval: Mapping[str, tuple[float, float]]
    per_class: tuple[ClassScores, ...]
    confusion: NDArray[np.int64]
    reliability: Reliability

    def record(self) -> dict[str, Any]:
        """Return everything as plain numbers, texts and lists, for a JSON file and for the report."""
        return {
            "classes": list(self.classes),
            "n": self.n,
            "n_unknown": self.n_unknown,
            **self.measures,
            "interval": {name: list(ends) for name, ends in self.interval.items()},
            "per_class": [vars(one) for one in self.per_class],
            "confusion": self.confusion.tolist(),
            "reliability": {name: values.tolist() for name, values in vars(self.reliability).items()},
        }


def scores(
    labels: Integers,
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    *,
    positive: int = 1,
    draws: int = DRAWS,
    seed: int = 0,
) -> ClassificationScores:
    """Score predicted probabilities against known classes.

    Args:
        labels: Class numbers; 255 is unknown and left out.
        probabilities: Rows that sum to 1; the largest entry is the answer, the first of equal ones.
        classes: Names in the order of the columns.
        positive: The class of `binary_f1_positive`, which is NaN unless there are two classes.
        draws: Bootstrap resamples of the intervals; 0 for none.
        seed: The same seed gives the same intervals.

    Shapes:
        labels: ``(N,)``
        probabilities: ``(N, K)``

    Raises:
        ValueError: Shapes, class numbers or probabilities do not fit, or no image has a known class.

    Notes:
        The intervals are percentiles over resamples of the images within each class (see
        `stratified_weights`). They tell how much the images at hand matter, not how much another training
        seed would.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    require_probabilities(labels, probabilities, len(classes))
    known = labels != UNKNOWN
    if not known.any():
        msg = f"Found no image with a known class among {len(labels)}; expected at least one to score."
        raise ValueError(msg)
    labels, probabilities = labels[known], probabilities[known]
    confusion = confusion_matrix(labels, probabilities.argmax(1), len(classes))
    return ClassificationScores(
        classes=tuple(classes),
        n=len(labels),
        n_unknown=int((~known).sum()),
        measures=_measures(labels, probabilities, confusion, positive),
        interval=_intervals(labels, probabilities, draws, seed) if draws else {},
        per_class=_per_class(confusion, classes),
        confusion=confusion.astype(np.int64),
        reliability=reliability(labels, probabilities),
    )


def require_probabilities(labels: Integers, probabilities: Floats, n_classes: int) -> None:
    """Refuse labels and probabilities that do not belong together.

    Shapes:
        labels: ``(N,)``
        probabilities: ``(N, K)``

    Raises:
        ValueError: Shapes, class numbers or probabilities do not fit.
    """
    if probabilities.shape != (len(labels), n_classes):
        msg = f"Found probabilities of shape {probabilities.shape}; expected ({len(labels)}, {n_classes})."
        raise ValueError(msg)
    wrong = sorted(set(np.unique(labels).tolist()) - set(range(n_classes)) - {UNKNOWN})
    if wrong:
        msg = f"Found class numbers {wrong}; expected 0 to {n_classes - 1}, or {UNKNOWN} for unknown."
        raise ValueError(msg)
    sums = probabilities.sum(1)
    bad = ~(np.abs(sums - 1) <= SUM_TOLERANCE) | (probabilities < 0).any(1)
    if bad.any():
        row = int(bad.argmax())
        msg = f"Row {row} of the probabilities is {probabilities[row].tolist()}; expected numbers of at least 0 "
        msg += "that sum to 1. Did you pass logits?"
        raise ValueError(msg)


def confusion_matrix(
    labels: Integers, pred: Integers, n_classes: int, weights: Floats | None = None
) -> Floats:
    """Count images per reference (row) and prediction (column).

    Args:
        labels: Class numbers.
        pred: Predicted class numbers.
        n_classes: Rows and columns.
        weights: How often each image counts, in several resamples; once without.

    Shapes:
        labels, pred: ``(N,)``
        weights: ``(R, N)``
        return: ``(K, K)``, with weights ``(R, K, K)``
    """
    cells = labels.astype(np.int64) * n_classes + pred
    shape = (n_classes, n_classes)
    if weights is None:
        return np.bincount(cells, minlength=n_classes**2).reshape(shape).astype(np.float64)
    counts = [np.bincount(cells, row, minlength=n_classes**2).reshape(shape) for row in weights]
    return np.array(counts, dtype=np.float64).reshape(-1, *shape)


def accuracy(confusion: Floats) -> Floats:
    """Return the share of images on the diagonal.

    Shapes:
        confusion: ``(..., K, K)``
        return: ``(...)``
    """
    return _ratio(_diagonal(confusion).sum(-1), confusion.sum((-2, -1)))


def precision(confusion: Floats) -> Floats:
    """Return the share of each column that is right, NaN for a class that is never predicted.

    Shapes:
        confusion: ``(..., K, K)``
        return: ``(..., K)``
    """
    return _ratio(_diagonal(confusion), confusion.sum(-2))


def recall(confusion: Floats) -> Floats:
    """Return the share of each row that is right, NaN for a class without images.

    Shapes:
        confusion: ``(..., K, K)``
        return: ``(..., K)``
    """
    return _ratio(_diagonal(confusion), confusion.sum(-1))


def f1(confusion: Floats) -> Floats:
    r"""Return :math:`2 TP / (2 TP + FP + FN)` of each class, NaN for a class without images.

    Shapes:
        confusion: ``(..., K, K)``
        return: ``(..., K)``
    """
    images = confusion.sum(-1)
    values = _ratio(2 * _diagonal(confusion), images + confusion.sum(-2))
    return np.where(images > 0, values, nan)


def macro(values: Floats, confusion: Floats) -> Floats:
    """Return the mean over the classes that have images; NaN if one of these has no value.

    Shapes:
        values: ``(..., K)``
        confusion: ``(..., K, K)``
        return: ``(...)``
    """
    there = confusion.sum(-1) > 0
    return _ratio(np.where(there, values, 0.0).sum(-1), there.sum(-1))


def binary_f1_positive(confusion: Floats, positive: int = 1) -> float:
    """Return the F1 of the positive one of two classes, only to compare with published figures.

    A classifier that calls everything positive scores well by it: 0.77 where 62.5 % are positive.

    Returns:
        F1 of the class; NaN for other than two classes.

    Shapes:
        confusion: ``(K, K)``
    """
    return float(f1(confusion)[positive]) if len(confusion) == 2 else nan


def auroc(labels: Integers, probabilities: Floats, weights: Floats | None = None) -> Floats:
    """Return the area under the ROC curve, one class against the rest, as a mean over classes.

    Each area is the share of pairs of an image of the class and another one in which the former has the
    higher probability; equal ones count half.

    Args:
        labels: Class numbers.
        probabilities: Per class.
        weights: How often each image counts, in several resamples; once without.

    Returns:
        0.5 (chance) to 1 as a rule; NaN where no class has images on both sides.

    Shapes:
        labels: ``(N,)``
        probabilities: ``(N, K)``
        weights: ``(R, N)``
        return: ``(R,)``, without weights ``()``
    """
    counts = np.ones((1, len(labels))) if weights is None else weights
    areas = [
        _area(labels == one, probabilities[:, one], counts)
        for one in range(probabilities.shape[1])
        if 0 < np.count_nonzero(labels == one) < len(labels)
    ]
    mean = np.mean(areas, axis=0) if areas else np.full(len(counts), nan)
    return mean[0] if weights is None else mean


def reliability(labels: Integers, probabilities: Floats, bins: int = BINS) -> Reliability:
    """Hold the confidence of answers against the share that is right, in bins of equal width.

    Shapes:
        labels: ``(N,)``
        probabilities: ``(N, K)``

    Source:
        Guo et al.: On calibration of modern neural networks, ICML 2017, equation 3. The same bins as
        `medssl.functional.calibration.calibration_error`.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    return Reliability(
        count=count,
        accuracy=_ratio(np.bincount(place, right, minlength=bins), count),
        confidence=_ratio(np.bincount(place, confidence, minlength=bins), count),
    )


def as_text(value: float, digits: int = 3) -> str:
    """Write a score for people: "n/a" where it is not defined."""
    return "n/a" if isnan(value) else f"{value:.{digits}f}"


def _measures(
    labels: Integers, probabilities: Floats, confusion: Floats, positive: int
) -> Mapping[str, float]:
    values = (
        accuracy(confusion),
        macro(recall(confusion), confusion),
        macro(precision(confusion), confusion),
        macro(recall(confusion), confusion),
        macro(f1(confusion), confusion),
        auroc(labels, probabilities),
        reliability(labels, probabilities).error,
        binary_f1_positive(confusion, positive),
    )
    return {name: float(value) for name, value in zip(MEASURES, values, strict=True)}


def _intervals(
    labels: Integers, probabilities: Floats, draws: int, seed: int
) -> Mapping[str, tuple[float, float]]:
    """Resample the images and return the middle 95 % of each measure."""
    pred = probabilities.argmax(1)
    drawn: dict[str, list[Floats]] = {name: [] for name in WITH_INTERVAL}
    for weights in stratified_weights(labels, draws, seed):
        confusion = confusion_matrix(labels, pred, probabilities.shape[1], weights)
        drawn["accuracy"].append(accuracy(confusion))
        drawn["balanced_accuracy"].append(macro(recall(confusion), confusion))
        drawn["macro_f1"].append(macro(f1(confusion), confusion))
        drawn["auroc"].append(auroc(labels, probabilities, weights))
    return {name: percentile_interval(np.concatenate(values)) for name, values in drawn.items()}


def _per_class(confusion: Floats, classes: Sequence[str]) -> tuple[ClassScores, ...]:
    columns = (precision(confusion), recall(confusion), f1(confusion), confusion.sum(1), confusion.sum(0))
    return tuple(
        ClassScores(name, float(p), float(r), float(f), int(n), int(n_pred))
        for name, p, r, f, n, n_pred in zip(classes, *columns, strict=True)
    )


def _area(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve of one class in every resample, ``(R,)``."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))  # where a run of equal scores begins
    drawn = weights[:, order]
    of_class = np.add.reduceat(drawn * positive[order], starts, axis=1)
    others = np.add.reduceat(drawn * ~positive[order], starts, axis=1)
    below = np.cumsum(others, axis=1) - others
    return _ratio((of_class * (below + others / 2)).sum(1), of_class.sum(1) * others.sum(1))


def _diagonal(confusion: Floats) -> Floats:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _ratio(above: NDArray[np.number], below: NDArray[np.number]) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, nan), where=below != 0)
