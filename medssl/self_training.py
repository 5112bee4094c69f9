"""The one outer loop: fit on labels, predict the unlabeled data, make targets, fit again, until it settles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Prediction = TypeVar("Prediction")

TOLERANCE = 0.001
"""Share of labels that may still change from one round to the next when the loop has settled (DEC's)."""


@dataclass(frozen=True)
class Outcome:
    """How self-training ended.

    Args:
        rounds: Rounds that were fitted after the labeled-only stage.
        reason: Why no further one was.
    """

    rounds: int
    reason: str


def self_train(
    *,
    fit: Callable[[int, Prediction | None], None],
    predict: Callable[[int], Prediction],
    changed: Callable[[Prediction, Prediction], float],
    rounds: int,
    tolerance: float = TOLERANCE,
) -> Outcome:
    """Run SSLDEC, offline pseudo-labels or distillation in rounds: they differ in ``predict`` alone.

    Args:
        fit: Stage 0 on the labels; stage r on labels and the targets of round r.
        predict: Teachers and views predict the unlabeled data, a target rule makes the targets of round r.
        changed: Share of labels that differ between two rounds' targets.
        rounds: Most rounds.
        tolerance: Stop once less than this share has changed.

    Notes:
        A resumed run calls this anew: ``fit`` returns at once for stages that are done, ``predict`` returns
        the stored targets of rounds that are begun.

    Source:
        Enguehard et al., IEEE Access 2019 (rounds); Xie et al., ICML 2016 (tolerance).
    """
    fit(0, None)
    before: Prediction | None = None
    for number in range(1, rounds + 1):
        targets = predict(number)
        if before is not None and changed(before, targets) < tolerance:
            return Outcome(
                number - 1, f"less than {100 * tolerance:g} % of the labels changed in round {number - 1}"
            )
        fit(number, targets)
        before = targets
    return Outcome(rounds, f"all {rounds} rounds are done" if rounds else "no rounds were asked for")
