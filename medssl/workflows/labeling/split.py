"""Which labeled scans validate: chosen by their names once, so that none changes sides as labels arrive."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace

from medssl.io.subjects import Cohort, Subject

LEAST_LABELED = 5
"""Labeled subjects from which on one is held out; with fewer all train, and the last step is kept."""


def validation_names(labeled: Collection[str], chosen: Collection[str]) -> list[str]:
    """Return who validates, of everybody who is labeled so far: a fifth, and always those chosen before.

    Args:
        labeled: Names of labeled subjects.
        chosen: Those that were chosen before.
    """
    names = [name for name in chosen if name in labeled]
    wanted = len(labeled) // LEAST_LABELED
    others = sorted(set(labeled) - set(names), key=_order)
    return sorted([*names, *others[: max(0, wanted - len(names))]])


def with_validation(cohort: Cohort, chosen: Collection[str]) -> tuple[Cohort, list[str]]:
    """Hold subjects out for validation, where the cohort itself names none.

    Args:
        cohort: With all labels so far.
        chosen: Names that were chosen before.

    Returns:
        The cohort, its validating subjects nowhere else, not even as unlabeled; and their names.
    """
    if cohort.validation:
        names = {subject.subject for subject in cohort.validation}
        return _without(cohort, names), sorted(chosen)
    found = validation_names({subject.subject for subject in cohort.training}, chosen)
    held = tuple(subject for subject in cohort.training if subject.subject in found)
    return replace(_without(cohort, {*found, *chosen}), validation=held), found


def _without(cohort: Cohort, names: Collection[str]) -> Cohort:
    """Take subjects out of what training sees, all their sessions."""

    def kept(subjects: tuple[Subject, ...]) -> tuple[Subject, ...]:
        return tuple(subject for subject in subjects if subject.subject not in names)

    return replace(cohort, training=kept(cohort.training), unlabeled=kept(cohort.unlabeled))


def _order(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
