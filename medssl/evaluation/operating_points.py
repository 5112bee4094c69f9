"""When a classifier should stay silent, and where it should draw the line between two classes.

Both are chosen on validation images and applied to others: `choose_*` never sees the images that a number is
reported on, `score_*` measures a choice wherever one likes, such as on the test images or after int8.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from medssl.labels import UNKNOWN

NOTHING = 2.0
"""Threshold on a probability that nothing reaches, whatever its precision."""

MARGIN = 0.001
"""How far a threshold lies below the probability it was chosen for: more than rounding, less than what matters."""

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


@dataclass(frozen=True)
class AbstainPoint:
    """A confidence from which a classifier answers.

    Args:
        threshold: Answers where the largest probability is at least this.
        coverage: Share of the images it answers.
        accuracy: Share of its answers that is right; NaN without any.
        n: Images it was measured on.
    """

    threshold: float
    coverage: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class OperatingPoint:
    """A probability from which an image counts as positive.

    Args:
        positive: Class number of the finding.
        threshold: Positive where the probability of that class is at least this.
        sensitivity: Share of the images with the finding that are positive; NaN without any.
        specificity: Share of the others that are not; NaN without any.
        n: Images it was measured on.
    """

    positive: int
    threshold: float
    sensitivity: float
    specificity: float
    n: int


def choose_abstain_threshold(
    labels: Integers, probabilities: Floats, least_accuracy: float
) -> AbstainPoint | None:
    """Find the threshold that answers most validation images while its answers are right often enough.

    Args:
        labels: Class numbers of validation images; 255 is unknown and left out.
        probabilities: Per class, after the temperature.
        least_accuracy: Share of the answers that must be right, 0 to 1.

    Returns:
        The point on these images, or None where no threshold reaches that accuracy.

    Shapes:
        labels: ``(N,)``
        probabilities: ``(N, K)``

    Notes:
        The threshold lies a little (`MARGIN`) below the last confidence that gets an answer, or half way to the next
        lower one, so that rounding does not turn it over. Chosen as the best of many: expect a little less on other
        images, the more so the fewer the validation images.
    """
    labels, probabilities = _known(labels, probabilities)
    confidence = probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    right = np.cumsum((probabilities.argmax(1) == labels)[order])
    answers = np.arange(1, len(labels) + 1)
    last_of_equal = np.diff(confidence[order], append=-1.0) != 0
    allowed = np.flatnonzero(last_of_equal & (right / answers >= least_accuracy))
    if not allowed.size:
        return None
    return score_abstaining(labels, probabilities, _below(confidence, confidence[order][allowed[-1]]))


def answered(probabilities: Floats, threshold: float) -> NDArray[np.bool_]:
    """Tell which images the classifier answers.

    Shapes:
        probabilities: ``(N, K)``
        return: ``(N,)``
    """
    return np.asarray(probabilities.max(1) >= threshold)


def score_abstaining(labels: Integers, probabilities: Floats, threshold: float) -> AbstainPoint:
    """Measure a threshold on images it was not chosen on.

    Shapes:
        labels: ``(N,)``
        probabilities: ``(N, K)``
    """
    labels, probabilities = _known(labels, probabilities)
    says = answered(probabilities, threshold)
    right = probabilities.argmax(1) == labels
    return AbstainPoint(threshold, _share(says), _share(right[says]), len(labels))


def choose_operating_point(
    labels: Integers,
    probabilities: Floats,
    positive: int,
    *,
    sensitivity: float | None = None,
    specificity: float | None = None,
) -> OperatingPoint:
    """Find the threshold on one class that keeps a promise and gives away the least.

    Args:
        labels: Class numbers of validation images; 255 is unknown and left out.
        probabilities: Per class.
        positive: Class number of the finding; all other classes count as without it.
        sensitivity: Share of the findings to catch at least; the threshold is the highest that does.
        specificity: Share of the others to leave alone at least; the threshold is the lowest that does.

    Returns:
        The point on these images. Its threshold lies a little below a probability, as in `choose_abstain_threshold`,
        and above 1 where nothing may be called positive.

    Shapes:
        labels: ``(N,)``
        probabilities: ``(N, K)``

    Raises:
        ValueError: Both promises or none, or the images lack one of the two groups.
    """
    if (sensitivity is None) == (specificity is None):
        msg = f"Found sensitivity {sensitivity} and specificity {specificity}; expected exactly one of them."
        raise ValueError(msg)
    labels, probabilities = _known(labels, probabilities)
    found, score = labels == positive, probabilities[:, positive]
    if found.all() or not found.any():
        msg = (
            f"{int(found.sum())} of {len(found)} validation images are of class {positive}; expected some of "
        )
        msg += "that class and some others."
        raise ValueError(msg)
    thresholds = np.append(np.unique(score), NOTHING)
    if sensitivity is not None:
        caught = np.array([(score[found] >= one).mean() for one in thresholds])
        threshold = thresholds[caught >= sensitivity].max()
    else:
        spared = np.array([(score[~found] < one).mean() for one in thresholds])
        threshold = thresholds[spared >= specificity].min()
    line = threshold if threshold == NOTHING else _below(score, threshold)
    return score_operating_point(labels, probabilities, positive, float(line))


def score_operating_point(
    labels: Integers, probabilities: Floats, positive: int, threshold: float
) -> OperatingPoint:
    """Measure a threshold on images it was not chosen on.

    Shapes:
        labels: ``(N,)``
        probabilities: ``(N, K)``
    """
    labels, probabilities = _known(labels, probabilities)
    found, called = labels == positive, probabilities[:, positive] >= threshold
    return OperatingPoint(positive, threshold, _share(called[found]), _share(~called[~found]), len(labels))


def _below(values: Floats, threshold: float) -> float:
    """Return what tells the values from the threshold on from those below: half way to these, `MARGIN` at most."""
    lower = values[values < threshold]
    gap = threshold - (lower.max() if lower.size else 0.0)
    return float(threshold - min(gap / 2, MARGIN))


def _known(labels: Integers, probabilities: Floats) -> tuple[Integers, Floats]:
    labels = np.asarray(labels)
    known = labels != UNKNOWN
    return labels[known], np.asarray(probabilities, dtype=np.float64)[known]


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if hits.size else nan
