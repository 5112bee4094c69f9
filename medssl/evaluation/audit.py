"""What the pseudo-labels of the unlabeled images look like before anybody trusts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.evaluation.classification import require_probabilities
from medssl.labels import UNKNOWN

MOST = 3.0
"""A class that gets more than this many times its share of the labeled images is worth a warning."""

HISTOGRAM_BINS = 20
THRESHOLDS = (*(round(0.05 * step, 2) for step in range(20)), 0.97, 0.99)
LEAST_CERTAIN = 24

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ThresholdPoint:
    """What a threshold would have kept of labeled validation images.

    Args:
        threshold: Images with a confidence above it (strictly) are kept.
        coverage: Share of the images kept.
        precision: Share of the kept ones whose label is right; NaN where none is kept.
        n: Images kept.
    """

    threshold: float
    coverage: float
    precision: float
    n: int


@dataclass(frozen=True)
class UncertainImage:
    """An unlabeled image that the teachers are unsure of.

    Args:
        name: Of the image.
        label: Class name the teachers lean to.
        confidence: Its probability.
        kept: Whether it was kept all the same.
    """

    name: str
    label: str
    confidence: float
    kept: bool


@dataclass(frozen=True)
class PseudoLabelAudit:
    """Numbers for the record and the report.

    Args:
        classes: Names in their order.
        n: Unlabeled images.
        n_kept: Those whose pseudo-label is kept.
        predicted: Images per predicted class, kept or not.
        kept: Images per class that are kept.
        labeled: Labeled images per class.
        edges: Ends of the confidence bins, one more than bins.
        confidence: Images per confidence bin.
        confidence_kept: Kept images per confidence bin.
        curve: Precision and coverage against the threshold on validation images; empty without any.
        least_certain: The images to look at, least certain first.
        warnings: What is odd about the classes, in sentences.
    """

    classes: tuple[str, ...]
    n: int
    n_kept: int
    predicted: tuple[int, ...]
    kept: tuple[int, ...]
    labeled: tuple[int, ...]
    edges: tuple[float, ...]
    confidence: tuple[int, ...]
    confidence_kept: tuple[int, ...]
    curve: tuple[ThresholdPoint, ...]
    least_certain: tuple[UncertainImage, ...]
    warnings: tuple[str, ...]

    @property
    def coverage(self) -> float:
        """Share of the unlabeled images that are kept; NaN without any."""
        return self.n_kept / self.n if self.n else nan

    def record(self) -> dict[str, Any]:
        """Return everything as plain numbers, texts and lists, for a JSON file and for the report."""
        return {
            **vars(self),
            "coverage": self.coverage,
            "curve": [vars(point) for point in self.curve],
            "least_certain": [vars(image) for image in self.least_certain],
        }


def audit_pseudo_labels(
    names: Sequence[str],
    probabilities: NDArray[np.floating],
    kept: NDArray[np.bool_],
    classes: Sequence[str],
    labeled: Mapping[str, int] | Sequence[int],
    *,
    given: tuple[NDArray[np.integer], NDArray[np.floating]] | None = None,
    validation: tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.floating]] | None = None,
    least: int = LEAST_CERTAIN,
) -> PseudoLabelAudit:
    """Audit the pseudo-labels of one round.

    Args:
        names: Of the unlabeled images; ties in the list of uncertain ones are broken by name, so that the
            order of the images does not matter.
        probabilities: Mean over teachers and views.
        kept: Which images keep their pseudo-label.
        classes: Names in the order of the columns.
        labeled: Labeled training images per class, by name or in the order of the classes.
        given: Class numbers and confidences of the pseudo-labels, where these are not simply the likeliest classes
            and their probabilities, as when passes vote.
        validation: True class numbers of labeled validation images, never of test images, and what they are told to be,
            as in ``given``.
        least: Length of the list of uncertain images.

    Shapes:
        probabilities: ``(N, K)``
        kept: ``(N,)``
        given: ``(N,)`` and ``(N,)``
        validation: ``(M,)`` each

    Raises:
        ValueError: Lengths, class numbers or probabilities do not fit.
    """
    probabilities, kept = np.asarray(probabilities, dtype=np.float64), np.asarray(kept, dtype=bool)
    if not len(names) == len(kept) == len(probabilities):
        msg = f"Found {len(names)} names, {len(probabilities)} rows of probabilities and {len(kept)} decisions; "
        msg += "expected as many of each."
        raise ValueError(msg)
    require_probabilities(np.full(len(names), UNKNOWN), probabilities, len(classes))
    counts = [labeled[name] for name in classes] if isinstance(labeled, Mapping) else list(labeled)
    label, confidence = (probabilities.argmax(1), probabilities.max(1)) if given is None else given
    per_class = np.bincount(label[kept], minlength=len(classes))
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    return PseudoLabelAudit(
        classes=tuple(classes),
        n=len(names),
        n_kept=int(kept.sum()),
        predicted=tuple(np.bincount(label, minlength=len(classes)).tolist()),
        kept=tuple(per_class.tolist()),
        labeled=tuple(int(count) for count in counts),
        edges=tuple(edges.tolist()),
        confidence=tuple(np.histogram(confidence, edges)[0].tolist()),
        confidence_kept=tuple(np.histogram(confidence[kept], edges)[0].tolist()),
        curve=() if validation is None else threshold_curve(*validation),
        least_certain=_least_certain(names, label, confidence, kept, classes)[:least],
        warnings=class_warnings(classes, per_class.tolist(), counts),
    )


def threshold_curve(
    labels: NDArray[np.integer],
    told: NDArray[np.integer],
    confidence: NDArray[np.floating],
    thresholds: Sequence[float] = THRESHOLDS,
) -> tuple[ThresholdPoint, ...]:
    """Say how many pseudo-labels each threshold would keep, and how many of them would be right.

    Args:
        labels: Class numbers of labeled validation images; 255 is unknown and left out.
        told: What the same teachers and views make of the same images, by the same rule.
        confidence: Of these.
        thresholds: Kept is what lies above (strictly).

    Shapes:
        labels, told, confidence: ``(M,)``
    """
    labels, told, confidence = np.asarray(labels), np.asarray(told), np.asarray(confidence, dtype=np.float64)
    known = labels != UNKNOWN
    confidence, right = confidence[known], told[known] == labels[known]
    points = []
    for threshold in thresholds:
        above = confidence > threshold
        coverage = float(above.mean()) if above.size else nan
        precision = float(right[above].mean()) if above.any() else nan
        points.append(ThresholdPoint(threshold, coverage, precision, int(above.sum())))
    return tuple(points)


def class_warnings(classes: Sequence[str], kept: Sequence[int], labeled: Sequence[int]) -> tuple[str, ...]:
    """Warn of a class that no pseudo-label has, or that has more than `MOST` times its labeled share.

    Args:
        classes: Names.
        kept: Pseudo-labels kept per class.
        labeled: Labeled training images per class.
    """
    if not sum(kept):
        return ("No pseudo-label is kept: training sees the labeled images alone. Lower the threshold.",)
    warnings = [_warning(*row, sum(kept), sum(labeled)) for row in zip(classes, kept, labeled, strict=True)]
    return tuple(warning for warning in warnings if warning)


def _warning(name: str, kept: int, labeled: int, all_kept: int, all_labeled: int) -> str:
    if not kept:
        return (
            f"No pseudo-label says '{name}': training sees nothing new of that class. Lower the threshold, or "
            f"keep the same number of each class."
        )
    share, expected = kept / all_kept, labeled / all_labeled if all_labeled else 0.0
    if share > MOST * expected:
        return (
            f"{share:.0%} of the pseudo-labels say '{name}', which is {expected:.0%} of the labeled images. "
            f"Look at some of them, or keep the same number of each class."
        )
    return ""


def _least_certain(
    names: Sequence[str],
    label: NDArray[np.integer],
    confidence: Floats,
    kept: NDArray[np.bool_],
    classes: Sequence[str],
) -> tuple[UncertainImage, ...]:
    order = sorted(range(len(names)), key=lambda place: (confidence[place], names[place]))
    return tuple(
        UncertainImage(names[place], classes[label[place]], float(confidence[place]), bool(kept[place]))
        for place in order
    )
