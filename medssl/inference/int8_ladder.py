"""Which way of making a network int8 costs no more accuracy than allowed: tried in order, cheapest first."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

logger = logging.getLogger(__name__)

MOST_LOSS = 0.01
"""How much lower the score may be (macro-F1: 1 point)."""

MOST_LAYERS = 8
"""Sensitive layers that are kept in float32 at most; with more, int8 is given up."""

CALIBRATIONS = ("minmax", "entropy", "percentile")
"""Ways to find the range of a tensor, in the order in which they are tried."""


@dataclass(frozen=True)
class Recipe:
    """One way of making a network int8.

    Args:
        calibration: One of `CALIBRATIONS`.
        images: How many are looked at to find the ranges.
        keep: Names of layers that stay in float32.
    """

    calibration: str = "minmax"
    images: int = 200
    keep: tuple[str, ...] = ()

    def __str__(self) -> str:
        kept = f", {len(self.keep)} layers in float32" if self.keep else ""
        return f"{self.calibration}, {self.images} images{kept}"


@dataclass(frozen=True)
class Attempt:
    """A recipe and the score it reached; NaN where it could not be made or scored."""

    recipe: Recipe
    score: float


@dataclass(frozen=True)
class Outcome:
    """What came of the ladder.

    Attributes:
        reference: Score in float32.
        most_loss: How much lower the score in int8 may be.
        attempts: In the order in which they were made.
        chosen: The first that lost no more; None: stay with float32.
    """

    reference: float
    most_loss: float
    attempts: tuple[Attempt, ...]
    chosen: Attempt | None

    def __str__(self) -> str:
        if self.chosen is None:
            return (
                f"int8 is not used: none of {len(self.attempts)} ways came within {self.most_loss:g} of the "
                f"score in float32 ({self.reference:.4f}); float32 is kept"
            )
        return (
            f"int8 by {self.chosen.recipe}: score {self.chosen.score:.4f}, in float32 {self.reference:.4f} "
            f"(way {len(self.attempts)})"
        )


@dataclass
class _Climb:
    score: Callable[[Recipe], float]
    least: float
    attempts: list[Attempt] = field(default_factory=list)

    def passes(self, recipe: Recipe) -> bool:
        attempt = Attempt(recipe, self.score(recipe))
        self.attempts.append(attempt)
        logger.info("int8 by %s: score %.4f, at least %.4f needed.", recipe, attempt.score, self.least)
        return attempt.score >= self.least  # NaN never

    def best(self) -> Recipe:
        """Return the recipe that scored highest, the earliest of equals."""
        return max(self.attempts, key=lambda attempt: _or_lowest(attempt.score)).recipe


def find_recipe(
    score: Callable[[Recipe], float],
    reference: float,
    *,
    ends: Sequence[str],
    sensitive: Callable[[], Sequence[str]],
    start: Recipe | None = None,
    more_images: int = 0,
    most_loss: float = MOST_LOSS,
) -> Outcome:
    """Try recipes until one loses no more than allowed.

    In order: the start; the other calibrations; more images; the first convolution and the classifier in float32;
    then the most sensitive layers too, one more at a time. From the second step on each goes on from the best so far.

    Args:
        score: Makes a network by a recipe and scores it on validation images, higher better; NaN if it cannot.
        reference: Score in float32.
        ends: First convolution and classifier.
        sensitive: Names the layers that suffer most, the worst first; asked only when all else failed.
        start: The first recipe.
        more_images: How many there are at most; no more than the start's: that step is left out.
        most_loss: How much lower than the reference the score may be.
    """
    start = start or Recipe()
    climb = _Climb(score, reference - most_loss)

    def found() -> Outcome:
        return Outcome(reference, most_loss, tuple(climb.attempts), climb.attempts[-1])

    for calibration in dict.fromkeys((start.calibration, *CALIBRATIONS)):
        if climb.passes(replace(start, calibration=calibration)):
            return found()
    if more_images > start.images and climb.passes(replace(climb.best(), images=more_images)):
        return found()
    base = climb.best()
    kept = (*base.keep, *ends)
    if climb.passes(replace(base, keep=kept)):
        return found()
    for layer in [name for name in sensitive() if name not in kept][:MOST_LAYERS]:
        kept = (*kept, layer)
        if climb.passes(replace(base, keep=kept)):
            return found()
    return Outcome(reference, most_loss, tuple(climb.attempts), None)


def _or_lowest(score: float) -> float:
    return -math.inf if math.isnan(score) else score
