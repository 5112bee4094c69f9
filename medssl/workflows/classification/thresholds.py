"""What is decided on the validation images of an exported file: when it stays silent, and where a finding begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medssl.errors import ConfigError, DatalistError
from medssl.evaluation.operating_points import (
    OperatingPoint,
    choose_abstain_threshold,
    choose_operating_point,
    score_operating_point,
)
from medssl.inference.onnx_runner import FINDING
from medssl.io.image_items import ImageItem
from medssl.workflows.classification.predict import numbers_of

LEAST_ACCURACY = 0.95
"""Share of right answers that the abstain threshold is chosen for, on the validation images."""


@dataclass(frozen=True)
class Promise:
    """What a user wants of one class: so many caught at least, or so many of the others left alone.

    Args:
        finding: Name of the class.
        sensitivity: Share of its images to catch, 0 to 1.
        specificity: Share of the other images to leave alone, 0 to 1; exactly one of the two is given.

    Raises:
        ConfigError: Both shares or none, or one out of range.
    """

    finding: str
    sensitivity: float | None = None
    specificity: float | None = None

    def __post_init__(self) -> None:
        shares = [share for share in (self.sensitivity, self.specificity) if share is not None]
        if len(shares) != 1 or not 0 <= shares[0] <= 1:
            msg = f"Found sensitivity {self.sensitivity} and specificity {self.specificity} for '{self.finding}'."
            raise ConfigError(msg, "Give one of them, between 0 and 1.")


def thresholds_of(
    probabilities: np.ndarray,
    validation: Sequence[ImageItem],
    classes: Sequence[str],
    promise: Promise | None = None,
) -> dict[str, Any]:
    """Choose both thresholds on validation images, for one file: another precision has other probabilities.

    Args:
        probabilities: Of the file.
        validation: The images, labeled.
        classes: In the order of the columns.
        promise: None: no finding is told apart.

    Returns:
        What the file's card shall say beside its classes: ``abstain_below`` and ``accuracy_above``, where any
        confidence reaches that accuracy, and ``finding``.

    Shapes:
        probabilities: ``(N, K)``

    Raises:
        ValueError: No threshold can be chosen for the promise; see `require_promise`.
    """
    labels = numbers_of(validation, classes)
    told: dict[str, Any] = {}
    silent = choose_abstain_threshold(labels, probabilities, LEAST_ACCURACY)
    if silent is not None:
        told |= {"abstain_below": silent.threshold, "accuracy_above": LEAST_ACCURACY}
    if promise is not None:
        point = choose_operating_point(
            labels,
            probabilities,
            list(classes).index(promise.finding),
            sensitivity=promise.sensitivity,
            specificity=promise.specificity,
        )
        told[FINDING] = {"class": promise.finding, **asdict(point)}
    return told


def require_promise(promise: Promise | None, validation: Sequence[ImageItem], classes: Sequence[str]) -> None:
    """Refuse a promise that nothing can be chosen for.

    Raises:
        ConfigError: There is no such class.
        DatalistError: There are no validation images of the finding, or none of anything else.
    """
    if promise is None:
        return
    if promise.finding not in classes:
        msg = f"There is no class '{promise.finding}'; the model tells apart {', '.join(classes)}."
        raise ConfigError(msg, "Name one of them: --finding CLASS.")
    found = sum(item.label == promise.finding for item in validation)
    if not 0 < found < len(validation):
        msg = f"{found} of {len(validation)} validation images are of class '{promise.finding}', whose threshold they "
        msg += "are to tell; expected some of it and some others."
        raise DatalistError(msg, "Give data with such val/ images: --data IMAGES.")


def spoken(threshold: float) -> str:
    """Say for people from which probability on an image counts as positive."""
    return "never" if threshold > 1 else f"from a probability of {threshold:.3f} on"


def finding_of(
    extra: Mapping[str, Any], classes: Sequence[str], labels: np.ndarray, probabilities: np.ndarray
) -> OperatingPoint | None:
    """Measure the threshold that a card holds on other images; None where it holds none.

    Shapes:
        labels: ``(N,)``
        probabilities: ``(N, K)``
    """
    told = extra.get(FINDING)
    if told is None:
        return None
    positive = list(classes).index(told["class"])
    return score_operating_point(labels, probabilities, positive, float(told["threshold"]))
