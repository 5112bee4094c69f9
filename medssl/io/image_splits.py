"""Seeded draws from the labeled images: which keep their label, which validate, which test.

Every order is made of hashes of the seed and the images' names: it hangs neither on the order of the files nor on
the other images. A group (patient, lesion, eye) never stands on both sides of a split.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from medssl.errors import ConfigError, DatalistError
from medssl.io.image_items import ImageCohort, ImageItem

_LOGGER = logging.getLogger(__name__)

Unit = tuple[ImageItem, ...]
"""Images that stay together: those of a group, or one image without a group."""

LEAST_HELD_OUT = 5
"""Labeled images of a class, from which on some may be held out without asking."""


def draw_labeled(cohort: ImageCohort, *, labels_per_class: int, seed: int) -> ImageCohort:
    """Keep the labels of a few training images; the others become unlabeled.

    The images of a draw are contained in those of every larger draw at the same seed. Within a class, each group
    gives one image before any gives a second, so that few labels still show many patients.

    Args:
        cohort: Whose training images are drawn from.
        labels_per_class: Number that keep their label in each class.
        seed: Of the draw.

    Raises:
        ConfigError: The number is not positive.
        DatalistError: A class has fewer labeled images.
    """
    if labels_per_class < 1:
        msg = f"labels_per_class is {labels_per_class}; expected 1 or more."
        raise ConfigError(msg)
    by_class = _by_class(cohort.training)
    short = {name: len(by_class[name]) for name in cohort.classes if len(by_class[name]) < labels_per_class}
    if short:
        found = ", ".join(f"'{name}' has {count}" for name, count in short.items())
        msg = f"Too few labeled training images: {found}; expected {labels_per_class} in each class."
        raise DatalistError(
            msg, f"Ask for {min(short.values())} labels a class at most, or label more images."
        )
    drawn = {
        item.name
        for items in by_class.values()
        for item in _spread_over_groups(items, seed)[:labels_per_class]
    }
    return replace(
        cohort,
        training=tuple(item for item in cohort.training if item.name in drawn),
        unlabeled=cohort.unlabeled
        + tuple(replace(item, label=None) for item in cohort.training if item.name not in drawn),
    )


def carve_validation(cohort: ImageCohort, *, share: float = 0.2, seed: int) -> ImageCohort:
    """Take validation images from the labeled training images, class by class.

    The last labeled image of a class stays in training. Unlabeled images of a group that validates are left out,
    with a warning.

    Args:
        cohort: Without validation images.
        share: Of each class, in (0, 1); at least one image where a class has two.
        seed: Of the draw.

    Raises:
        ConfigError: The share is out of range.
        DatalistError: There are validation images already, or none could be taken.
    """
    if cohort.validation:
        msg = f"The cohort has {len(cohort.validation)} validation images already; expected none."
        raise DatalistError(msg, "Use them as they are, or move them to the training images.")
    training, validation = _divided(cohort.training, share, f"validation/{seed}")
    if not validation:
        msg = f"No validation image could be taken from {len(training)} training images: "
        msg += "every class, or every group, would lose its last labeled image."
        raise DatalistError(msg, "Label more images, or give validation images (val/).")
    carved = replace(cohort, training=training, validation=validation)
    _warn_of_missing(carved, "validation")
    return _without_groups_of(carved, validation)


def split_cohort(
    cohort: ImageCohort, *, validation: float = 0.1, test: float = 0.2, seed: int
) -> ImageCohort:
    """Divide the labeled images, which are all for training so far, into training, validation and test.

    Args:
        cohort: Without validation and test images.
        validation: Share of all labeled images of each class; 0 leaves them to `carve_validation`.
        test: Share of all labeled images of each class.
        seed: Of the draw.

    Raises:
        ConfigError: The shares are out of range.
        DatalistError: The cohort is divided already, or too small.
    """
    if cohort.test:
        msg = f"The cohort has {len(cohort.test)} test images already; expected none."
        raise DatalistError(msg, "Use them as they are, or move them to the training images.")
    if not 0 < validation + test < 1:
        msg = f"validation and test take {validation + test:g} of the images; expected less than 1."
        raise ConfigError(msg)
    kept, tested = _divided(cohort.training, test, f"test/{seed}")
    if not tested:
        msg = f"No test image could be taken from {len(kept)} labeled images."
        raise DatalistError(msg, "Label more images, or give test images (test/).")
    divided = _without_groups_of(replace(cohort, training=kept, test=tested), tested)
    _warn_of_missing(divided, "test")
    return carve_validation(divided, share=validation / (1 - test), seed=seed) if validation else divided


def fold_cohort(cohort: ImageCohort, *, folds: int = 5, seed: int) -> tuple[ImageCohort, ...]:
    """Divide the labeled training images into folds; each validates once, test images stay what they are.

    Args:
        cohort: Without validation images.
        folds: Their number, 2 or more.
        seed: Of the draw.

    Returns:
        One cohort a fold.

    Raises:
        ConfigError: Fewer than two folds.
        DatalistError: There are validation images already, or a class has fewer images or groups than folds.
    """
    if folds < 2:
        msg = f"folds is {folds}; expected 2 or more."
        raise ConfigError(msg)
    if cohort.validation:
        msg = f"The cohort has {len(cohort.validation)} validation images already; expected none."
        raise DatalistError(msg, "Move them to the training images.")
    units = _units(cohort.training, f"folds/{seed}")
    _require_units(cohort, units, folds)
    fold_of = _balanced(units, folds)
    cohorts = []
    for fold in range(folds):
        held = tuple(item for item in cohort.training if fold_of[item.name] == fold)
        rest = tuple(item for item in cohort.training if fold_of[item.name] != fold)
        cohorts.append(_without_groups_of(replace(cohort, training=rest, validation=held), held))
    return tuple(cohorts)


def _rank(seed: object, *parts: str) -> bytes:
    """Return a random-looking key that hangs on nothing but its arguments."""
    return hashlib.sha256("\0".join((str(seed), *parts)).encode("utf-8", "surrogateescape")).digest()


def _by_class(items: Iterable[ImageItem]) -> dict[str, list[ImageItem]]:
    found: dict[str, list[ImageItem]] = defaultdict(list)
    for item in items:
        if item.label is not None:
            found[item.label].append(item)
    return found


def _spread_over_groups(items: Iterable[ImageItem], seed: int) -> list[ImageItem]:
    """Order the images of a class: the first of every group, then the second of every group, and so on."""
    ordered = sorted(items, key=lambda item: _rank(f"labels/{seed}", item.name))
    turn: Counter[str] = Counter()
    turns = {}
    for item in ordered:
        group = f"group/{item.group}" if item.group else f"image/{item.name}"
        turns[item.name] = turn[group]
        turn[group] += 1
    return sorted(ordered, key=lambda item: turns[item.name])


def _units(items: Iterable[ImageItem], seed: str) -> list[Unit]:
    """Return what stays together in random order."""
    found: dict[str, list[ImageItem]] = defaultdict(list)
    for item in items:
        found[f"group/{item.group}" if item.group else f"image/{item.name}"].append(item)
    return [tuple(found[key]) for key in sorted(found, key=lambda key: _rank(seed, key))]


def _divided(
    items: Sequence[ImageItem], share: float, seed: str
) -> tuple[tuple[ImageItem, ...], tuple[ImageItem, ...]]:
    """Take a share of each class, unit by unit; return what is left and what was taken."""
    if not 0 < share < 1:
        msg = f"The share of images to set aside is {share:g}; expected a number between 0 and 1."
        raise ConfigError(msg)
    sizes = Counter(item.label for item in items)
    wanted = {name: min(max(1, round(share * size)), size - 1) for name, size in sizes.items()}
    taken: Counter[str | None] = Counter()
    chosen = set()
    for unit in _units(items, seed):
        more = Counter(item.label for item in unit)
        spares_one = all(taken[name] + count < sizes[name] for name, count in more.items())
        nearer = sum(
            abs(wanted[name] - taken[name] - count) - abs(wanted[name] - taken[name])
            for name, count in more.items()
        )
        if spares_one and nearer < 0:
            taken += more
            chosen |= {item.name for item in unit}
    kept = tuple(item for item in items if item.name not in chosen)
    return kept, tuple(item for item in items if item.name in chosen)


def _balanced(units: Iterable[Unit], folds: int) -> Mapping[str, int]:
    """Give each unit, the largest first, to the fold that has fewest images of its classes."""
    counts = [Counter[str | None]() for _ in range(folds)]
    fold_of = {}
    for unit in sorted(units, key=len, reverse=True):
        own = Counter(item.label for item in unit)
        crowd = [sum(own[name] * have[name] for name in own) for have in counts]
        fold = min(range(folds), key=lambda number: (crowd[number], counts[number].total()))
        counts[fold] += own
        fold_of.update({item.name: fold for item in unit})
    return fold_of


def _require_units(cohort: ImageCohort, units: Iterable[Unit], folds: int) -> None:
    """Refuse classes that cannot be in every fold."""
    found = Counter(label for unit in units for label in {item.label for item in unit})
    short = ", ".join(f"'{name}' has {found[name]}" for name in cohort.classes if found[name] < folds)
    if short:
        msg = f"Too few labeled images or groups for {folds} folds: {short}; expected {folds} in each class."
        raise DatalistError(msg, "Make fewer folds, or label more images.")


def _without_groups_of(cohort: ImageCohort, held_out: Iterable[ImageItem]) -> ImageCohort:
    """Leave out unlabeled images of groups that are held out."""
    groups = {item.group for item in held_out} - {None}
    kept = tuple(item for item in cohort.unlabeled if item.group not in groups)
    lost = len(cohort.unlabeled) - len(kept)
    if lost:
        _LOGGER.warning("%d unlabeled images left out: their groups are held out now", lost)
    return replace(cohort, unlabeled=kept)


def _warn_of_missing(cohort: ImageCohort, section: str) -> None:
    found = {item.label for item in cohort.section(section)}
    missing = [name for name in cohort.classes if name not in found]
    if missing:
        _LOGGER.warning("%s has no image of %s: their scores will be undefined", section, ", ".join(missing))
