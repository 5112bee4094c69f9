"""An honest word on whether the unlabeled images helped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.evaluation.bootstrap import DRAWS, percentile_interval, stratified_weights
from medssl.evaluation.classification import accuracy, confusion_matrix, f1, macro, require_probabilities
from medssl.evaluation.verdict import CANNOT_TELL, DID_NOT_HELP, HELPED, is_gain
from medssl.labels import UNKNOWN

LEAST_IMAGES = 10
"""Fewer held-out images tell nothing: one image is then more than ten points of accuracy."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """How much better the method is on the held-out images, 0.01 being a point.

    Args:
        value: Method minus labeled-only.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = (_points(number) for number in (self.value, self.low, self.high))
        return f"{value} (95 % interval {low} to {high})"


@dataclass(frozen=True)
class ClassificationVerdict:
    """What the comparison of two classifiers on held-out labeled images says.

    Args:
        answer: `HELPED`, `DID_NOT_HELP` or `CANNOT_TELL`.
        sentence: For people.
        n: Held-out images of known class.
        macro_f1: Difference in macro F1, None without any image.
        accuracy: Difference in accuracy, None without any image.
        safe: Whether the method is one to return where nothing was held out.
    """

    answer: str
    sentence: str
    n: int
    macro_f1: Difference | None
    accuracy: Difference | None
    safe: bool = True

    @property
    def method_wins(self) -> bool:
        """Whether the semi-supervised network is the one to use.

        It is unless it did not help; where nobody can tell, the higher macro F1 decides, and where nothing was held
        out the method is, if it is safe.
        """
        if self.answer == CANNOT_TELL:
            return self.safe if self.macro_f1 is None else is_gain(self.macro_f1.value)
        return self.answer == HELPED


def verdict(
    method: str,
    labels: NDArray[np.integer],
    q_baseline: NDArray[np.floating],
    q_method: NDArray[np.floating],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    safe: bool = True,
) -> ClassificationVerdict:
    """Compare two classifiers of equal budget image by image.

    "Helped" needs the whole interval of the difference in macro F1 above 0; a difference that is no gain (`is_gain`),
    ties included, is "did not help"; what is better but not clearly so is "cannot tell", and so is everything on
    fewer than `LEAST_IMAGES` images.

    Args:
        method: Name for the sentence.
        labels: Class numbers of held-out images; 255 is unknown and left out.
        q_baseline: Probabilities of the labeled-only network.
        q_method: Probabilities of the semi-supervised one, for the same images.
        draws: Bootstrap resamples.
        seed: The same seed gives the same verdict.
        safe: Whether the method is one to return where nothing was held out.

    Shapes:
        labels: ``(N,)``
        q_baseline, q_method: ``(N, K)``

    Raises:
        ValueError: The two were scored on different images or classes.

    Notes:
        Both networks are scored on the same resamples, drawn within each class. The interval tells how much
        the choice of held-out images matters. It does not tell how much another training seed would: repeat
        the comparison with other seeds for that. In a simulation of two equally good classifiers (2 and 5
        classes, 10 to 200 images, 400 runs each) 2 to 7 % of the comparisons came out as "helped"; a true
        gain of ten points was seen as such in 8 to 24 % with 10 and 20 images, 43 % with 50, 92 % with 200.
    """
    labels, before, after = (np.asarray(one) for one in (labels, q_baseline, q_method))
    if before.shape != after.shape:
        msg = f"Scored on different images or classes: found {after.shape}, expected {before.shape}."
        raise ValueError(msg)
    for probabilities in (before, after):
        require_probabilities(labels, probabilities, before.shape[1])
    known = labels != UNKNOWN
    labels, answers = labels[known], [one[known].argmax(1) for one in (before, after)]
    if not len(labels):
        kept = "The labeled-only network is kept beside this one."
        if not safe:
            kept = f"As {method} was trained it can go wrong unseen, so the labeled-only network is returned, and that "
            kept += f"of {method} kept beside it."
        sentence = (
            "Cannot tell whether the unlabeled images helped: no labeled image was held out to check with. "
        )
        sentence += kept
        return ClassificationVerdict(CANNOT_TELL, sentence, 0, None, None, safe)
    macro_f1, right = _differences(labels, answers, before.shape[1], draws, seed)
    answer = _answer(len(labels), macro_f1)
    sentence = _sentence(answer, method, len(labels), macro_f1, right)
    return ClassificationVerdict(answer, sentence, len(labels), macro_f1, right)


def without_baseline(method: str) -> ClassificationVerdict:
    """Return what can be said where nothing but the method was trained."""
    sentence = f"Cannot tell whether the unlabeled images helped: no supervised baseline was trained beside {method}."
    return ClassificationVerdict(CANNOT_TELL, sentence, 0, None, None)


def _differences(
    labels: NDArray[np.integer], answers: list[NDArray[np.integer]], n_classes: int, draws: int, seed: int
) -> tuple[Difference, Difference]:
    """Hold the two answers against each other on the images and on resamples of them."""
    ones = np.ones((1, len(labels)))
    value = _gain(labels, answers, n_classes, ones)[:, 0]
    drawn = [_gain(labels, answers, n_classes, one) for one in stratified_weights(labels, draws, seed)]
    ends = [percentile_interval(row) for row in np.concatenate(drawn, axis=1)]
    both = [Difference(float(one), *end) for one, end in zip(value, ends, strict=True)]
    return both[0], both[1]


def _gain(
    labels: NDArray[np.integer], answers: list[NDArray[np.integer]], n_classes: int, weights: Floats
) -> Floats:
    """Gain in macro F1 and in accuracy in every resample, ``(2, R)``; differences that cancel are a tie."""
    before, after = (confusion_matrix(labels, one, n_classes, weights) for one in answers)
    gains = (macro(f1(after), after) - macro(f1(before), before), accuracy(after) - accuracy(before))
    return np.round(gains, 9)


def _answer(n: int, macro_f1: Difference) -> str:
    if n < LEAST_IMAGES:
        return CANNOT_TELL
    if not is_gain(macro_f1.value):
        return DID_NOT_HELP
    return HELPED if macro_f1.low > 0 else CANNOT_TELL


def _sentence(answer: str, method: str, n: int, macro_f1: Difference, right: Difference) -> str:
    images = f"{n} held-out labeled image{'s' if n > 1 else ''}"
    points = f"{method} against labeled-only {macro_f1} points of macro F1 on {images}; accuracy {right}"
    if answer == HELPED:
        return f"The unlabeled images helped: {points}."
    if answer == DID_NOT_HELP:
        return f"The unlabeled images did not help: {points}. The labeled-only network is returned."
    why = f"fewer than {LEAST_IMAGES} images were held out" if n < LEAST_IMAGES else "the interval holds 0"
    better = "higher" if is_gain(macro_f1.value) else "not higher"
    kept = "semi-supervised" if is_gain(macro_f1.value) else "labeled-only"
    return (
        f"Cannot tell whether the unlabeled images helped, since {why}: {points}. Its macro F1 is {better}, so "
        f"the {kept} network is returned; the other one is kept beside it."
    )


def _points(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:+.1f}"  # no "-0.0"
