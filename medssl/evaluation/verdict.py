"""An honest word on whether the unlabeled scans helped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

HELPED = "helped"
DID_NOT_HELP = "did not help"
CANNOT_TELL = "cannot tell"
NOTHING_UNLABELED = "no unlabeled scans"

ONE_LABELED = "with one labeled scan whether the unlabeled scans helped: nothing is left to check with"
LEARNED = "whether the unlabeled scans helped: the weights of --init know every labeled scan that could tell"
NONE_LEFT = (
    "whether the unlabeled scans helped: all of them are of the subjects that would be held out, none is left to learn "
    "from"
)
"""Why there is no comparison, as the end of "Cannot tell"."""

MARGIN = 0.0005
"""Least gain in mean Dice or macro F1 that counts: anything less would be printed as 0.0 points."""


@dataclass(frozen=True)
class Verdict:
    """What the comparison of two networks on held-out labeled scans says.

    Args:
        answer: `HELPED`, `DID_NOT_HELP`, `CANNOT_TELL` or `NOTHING_UNLABELED`.
        sentence: For people.
        difference: Mean Dice of the method minus that of labeled-only, None where nothing was held out.
        dice: Scan -> mean Dice of (labeled-only, method).
        safe: Whether the method is one to return where nothing could be checked.
    """

    answer: str
    sentence: str
    difference: float | None
    dice: Mapping[str, tuple[float, float]]
    safe: bool = True

    @property
    def method_wins(self) -> bool:
        """Whether the semi-supervised network is the one to use."""
        return self.answer == HELPED or (self.answer == CANNOT_TELL and self.safe)


def is_gain(difference: float) -> bool:
    """Tell whether a difference is a gain: of `MARGIN` at least, so that a tie is none."""
    return difference >= MARGIN


def in_points(differences: NDArray[np.float64]) -> tuple[float, str]:
    """Return the mean of differences in Dice, one a held-out scan, and the words for it."""
    mean = round(float(differences.mean()), 9)  # differences that cancel are a tie, whatever floats say
    scans = f"{len(differences)} held-out labeled scan{'s' if len(differences) > 1 else ''}"
    better = int((differences > 0).sum())
    return mean, f"{100 * mean:+.1f} Dice points in the mean of {scans}, better on {better}"


def nothing_unlabeled() -> Verdict:
    """Return what is said where there are no unlabeled scans."""
    sentence = "There are no unlabeled scans: supervised only, the labeled-only network is returned."
    return Verdict(NOTHING_UNLABELED, sentence, None, {})


def overruled(found: Verdict, method: str, why: str) -> Verdict:
    """Return the verdict where the network that would be returned is no good, whatever the comparison said.

    Args:
        found: What the comparison said: `HELPED`, or `CANNOT_TELL`.
        method: Name for the sentence.
        why: What is wrong with the network of the method, such as "lost white matter".
    """
    if found.answer == CANNOT_TELL:  # nothing was compared, and nothing is now
        sentence = f"{found.sentence.partition('. ')[0]}. {method} {why}, so the labeled-only network is returned, and "
        return replace(found, sentence=f"{sentence}that of {method} kept beside it.", safe=False)
    sentence = f"{found.sentence} But {method} {why}: the labeled-only network is returned."
    return replace(found, answer=DID_NOT_HELP, sentence=sentence, safe=False)


def verdict(
    method: str,
    labeled_only: Mapping[str, float],
    with_unlabeled: Mapping[str, float],
    *,
    safe: bool = True,
    why_not: str = ONE_LABELED,
) -> Verdict:
    """Compare two networks of equal budget scan by scan.

    The semi-supervised network has to be better in the mean, by `MARGIN` at least; a tie goes to labeled-only.
    Where nothing can be compared it is returned if it is safe by construction: if it goes on from what the labels
    taught it, and what the unlabeled scans add grows from nothing. One that is trained from new weights on targets
    alone may lose everything (`docs/experiments.md`).

    Args:
        method: Name for the sentence.
        labeled_only: Held-out scan -> mean Dice over the labels.
        with_unlabeled: The same of the semi-supervised network.
        safe: Whether it is safe by construction.
        why_not: Why nothing is left to check with, where nothing is, as the end of a sentence.

    Raises:
        ValueError: The two were scored on different scans.
    """
    if set(labeled_only) != set(with_unlabeled):
        msg = f"Scored on different scans: found {sorted(with_unlabeled)}, expected {sorted(labeled_only)}."
        raise ValueError(msg)
    pairs = {scan: (labeled_only[scan], with_unlabeled[scan]) for scan in sorted(labeled_only)}
    differences = np.array([after - before for before, after in pairs.values()])
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        why = (
            "whether the unlabeled scans helped: no held-out labeled scan could be scored"
            if pairs
            else why_not or ONE_LABELED
        )
        kept = "The labeled-only network is kept beside this one"
        if not safe:
            kept = f"With these settings {method} can go wrong unseen, so the labeled-only network is returned, and "
            kept += f"that of {method} kept beside it"
        sentence = f"Cannot tell {why}. {kept}; compare their maps by eye."
        return Verdict(CANNOT_TELL, sentence, None, pairs, safe)
    mean, points = in_points(differences)
    if is_gain(mean):
        sentence = f"The unlabeled scans helped: {method} against labeled-only {points}."
        return Verdict(HELPED, sentence, mean, pairs)
    sentence = (
        f"The unlabeled scans did not help: {method} against labeled-only {points}. The labeled-only network "
        f"is returned."
    )
    return Verdict(DID_NOT_HELP, sentence, mean, pairs)
