"""How many crops of a step come from unlabeled scans: a pure function of the step."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from medssl.errors import ConfigError

logger = logging.getLogger(__name__)

SCHEDULES = ("union_reinit", "union_warm", "alternate")
"""How a round uses both kinds of scans, and whether it starts from new weights."""


@dataclass(frozen=True)
class Mixture:
    """Unlabeled crops take the place of labeled ones, so that a step costs the same in every method.

    Args:
        start: First step with unlabeled crops.
        share: Their share of a batch, rounded down, at least one crop of either kind where there is room.
        ends: For rounds: the step at which each stage ends, the labeled-only first stage included.
        alternate: Each round takes unlabeled crops only, then labeled ones only.
        turns: For "alternate": how the steps of a round are divided, n_l labeled to n_u unlabeled ones.

    Raises:
        ConfigError: A share, a start or turns that make no training.
    """

    start: int = 0
    share: float = 0.5
    ends: Sequence[int] = ()
    alternate: bool = False
    turns: Sequence[float] = (1, 1)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.start < 0:
            msg = f"Found a share of {self.share} of unlabeled crops from step {self.start} on; expected 0 < share < 1."
            raise ConfigError(msg, "Correct the share, or unlabeled_start.")
        if len(self.turns) != 2 or min(self.turns) <= 0:
            msg = f"Found turns {list(self.turns)}; expected two numbers above 0, of labeled and of unlabeled steps."
            raise ConfigError(msg, "Write them like [1, 2].")
        if not self.alternate and tuple(self.turns) != (1, 1):
            msg = "Turns divide the rounds of the schedule 'alternate'; the others have both kinds in every step."
            raise ConfigError(msg, "Leave turns out, or choose --schedule alternate.")

    def unlabeled(self, step: int, batch_size: int) -> int:
        """Return how many of the crops of a step (counted from 0) are unlabeled."""
        if step < self.start:
            return 0
        if self.alternate:
            return batch_size if self._in_unlabeled_turn(step) else 0
        return min(max(1, int(batch_size * self.share)), batch_size - 1)

    def _in_unlabeled_turn(self, step: int) -> bool:
        n_l, n_u = self.turns
        for first, end in pairwise(self.ends):
            if first <= step < end:
                return step < first + (end - first) * n_u // (n_l + n_u)
        return False


def mixture_for(data: Sequence[object], **options: Any) -> Mixture | None:
    """Return a `Mixture`, or None where there are no unlabeled scans: said, and trained on the labels."""
    if data:
        return Mixture(**options)
    logger.warning("No unlabeled scans: supervised only, every crop comes from the labeled ones.")
    return None


def warm_up(steps: int, ends: Sequence[int] = ()) -> int:
    """Return a twentieth of the steps of the whole training, or of its shortest stage.

    Args:
        steps: Of the whole training.
        ends: Steps at which its stages end; none where it is one stage.
    """
    return min((end - begin for begin, end in pairwise((0, *ends))), default=steps) // 20


def stage_ends(total: int, rounds: int, first_share: float = 0.5, epoch_length: int = 1) -> list[int]:
    """Divide a budget: the labeled-only stage, then rounds of equal length.

    Args:
        total: Epochs of the whole run, all rounds added up.
        rounds: Rounds after the first stage; 0 for none.
        first_share: Share of the budget of the first stage.
        epoch_length: Steps of an epoch; with 1 the ends are epochs.

    Returns:
        Where each of the ``rounds + 1`` stages ends, in steps of ``epoch_length`` an epoch.

    Raises:
        ConfigError: A stage would be empty.
    """
    if rounds == 0:
        return [total * epoch_length]
    first = round(total * first_share)
    ends = [first + round((total - first) * number / rounds) for number in range(rounds + 1)]
    if rounds < 0 or first < 1 or any(end <= begin for begin, end in pairwise(ends)):
        msg = f"{total} epochs cannot hold a labeled-only stage and {rounds} rounds."
        raise ConfigError(msg, "Use fewer rounds or a larger budget.")
    return [end * epoch_length for end in ends]
