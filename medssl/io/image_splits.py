"""Seeded draws from the labeled images: which keep their label, which validate, which test.

Every order is made of hashes of the seed and the images' names: it hangs neither on the order of the files nor on
the other images. A group (patient, lesion, eye) never stands on both sides of a split, and neither does an image that
is there several times, where the digests of the pixels are given.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medssl.errors import ConfigError, DatalistError
from medssl.io.image_items import ImageCohort, ImageItem

_LOGGER = logging.getLogger(__name__)

Unit = tuple[ImageItem, ...]
"""Images that stay together: those of a group, copies of one image, or one image alone."""

Digests = Mapping[Path, bytes]
"""Path -> digest of the pixels, as `image_leaks.inspect_images` finds them; an image without one has no copies."""

LEAST_HELD_OUT = 5
"""Labeled images of a class, from which on some may be held out without asking."""


def draw_labeled(
    cohort: ImageCohort, *, labels_per_class: int, seed: int, digests: Digests | None = None
) -> ImageCohort:
    """Keep the labels of a few training images; the others become unlabeled.

    The images of a draw are contained in those of every larger draw at the same seed. Within a class, each group
    gives one image before any gives a second, so that few labels still show many patients.

    Args:
        cohort: Whose training images are drawn from.
        labels_per_class: Number that keep their label in each class.
        seed: Of the draw.
        digests: Images of equal pixels count as one group; None: as the groups they are in.

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
        for item in _spread_over_groups(items, seed, digests)[:labels_per_class]
    }
    return replace(
        cohort,
        training=tuple(item for item in cohort.training if item.name in drawn),
        unlabeled=cohort.unlabeled
        + tuple(replace(item, label=None) for item in cohort.training if item.name not in drawn),
    )


def carve_validation(
    cohort: ImageCohort,
    *,
    share: float = 0.2,
    seed: int,
    digests: Digests | None = None,
    rare: Collection[str] = (),
    transductive: bool = False,
) -> ImageCohort:
    """Take validation images from the labeled training images, class by class.

    The last labeled image of a class stays in training. Unlabeled images of a group that validates, and unlabeled
    copies, are left out, with a warning.

    Args:
        cohort: Without validation images.
        share: Of each class, in (0, 1); at least one image where a class has two.
        seed: Of the draw.
        digests: Images of equal pixels stay together; None: only groups do.
        rare: Classes whose images validate only together with images of other classes; no warning names them.
        transductive: Leave the unlabeled copies in.

    Raises:
        ConfigError: The share is out of range.
        DatalistError: There are validation images already, or none could be taken.
    """
    _require_none(cohort, "validation", "Use them as they are (--validation 0), or move")
    training, validation = _divided(cohort.training, share, f"validation/{seed}", digests, rare)
    if not validation:
        msg = f"No validation image could be taken from {len(training)} training images: "
        msg += "every class, or every group, would lose its last labeled image."
        raise DatalistError(msg, "Label more images, or give validation images (val/).")
    carved = replace(cohort, training=training, validation=validation)
    _warn_of_missing(carved, "validation", rare)
    return without_unlabeled_of(carved, validation, None if transductive else digests)


def split_cohort(
    cohort: ImageCohort,
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int,
    digests: Digests | None = None,
) -> ImageCohort:
    """Divide the labeled training images into training, validation and test.

    Args:
        cohort: Without images in the sections that are to be drawn.
        validation: Share of these images of each class; 0 draws none: the section stays as it is.
        test: Share of these images of each class; 0 draws none: the section stays as it is.
        seed: Of the draw.
        digests: Images of equal pixels stay together; None: only groups do.

    Raises:
        ConfigError: The shares are out of range.
        DatalistError: The cohort is divided already, or too small.
    """
    require_divisible(cohort, validation=validation, test=test)
    divided = _tested(cohort, test, seed, digests) if test else cohort
    if not validation:
        return divided
    return carve_validation(divided, share=validation / (1 - test), seed=seed, digests=digests)


def require_divisible(cohort: ImageCohort, *, validation: float, test: float) -> None:
    """Refuse, before any image is read, what `split_cohort` cannot divide.

    Args:
        cohort: See `split_cohort`.
        validation: Share.
        test: Share.

    Raises:
        ConfigError: The shares are out of range.
        DatalistError: The cohort has images in a section that is to be drawn.
    """
    if not (validation or test):
        msg = "--validation and --test are both 0, so nothing would be divided."
        raise ConfigError(msg, "Give one of them a share above 0.")
    if not 0 < validation + test < 1:
        msg = f"validation and test take {validation + test:g} of the images; expected less than 1."
        raise ConfigError(msg)
    for section, share in (("test", test), ("validation", validation)):
        if share:
            _require_none(cohort, section, f"Use them as they are (--{section} 0), or move")


def fold_cohort(
    cohort: ImageCohort, *, folds: int = 5, seed: int, digests: Digests | None = None
) -> tuple[ImageCohort, ...]:
    """Divide the labeled training images into folds; each validates once, test images stay what they are.

    Args:
        cohort: Without validation images.
        folds: Their number, 2 or more.
        seed: Of the draw.
        digests: Images of equal pixels stay together; None: only groups do.

    Returns:
        One cohort a fold.

    Raises:
        ConfigError: Fewer than two folds.
        DatalistError: There are validation images already, or a class has fewer images or groups than folds.
    """
    fold_of = _folds(cohort, folds, seed, digests)
    return tuple(_validated_by(cohort, fold_of, fold, digests) for fold in range(folds))


def one_fold(
    cohort: ImageCohort, number: int, *, folds: int = 5, seed: int, digests: Digests | None = None
) -> ImageCohort:
    """Return one of the cohorts of `fold_cohort`, and warn of what is left out of that one alone.

    Args:
        cohort: Without validation images.
        number: Of the fold, from 1 on.
        folds: See `fold_cohort`.
        seed: See `fold_cohort`.
        digests: See `fold_cohort`.

    Raises:
        ConfigError: There is no such fold, or fewer than two.
        DatalistError: There are validation images already, or a class has fewer images or groups than folds.
    """
    require_fold(cohort, number, folds)
    return _validated_by(cohort, _folds(cohort, folds, seed, digests), number - 1, digests)


def require_fold(cohort: ImageCohort, number: int, folds: int) -> None:
    """Refuse, before any image is read, a fold that `one_fold` cannot return.

    Raises:
        ConfigError: There is no such fold, or fewer than two.
        DatalistError: There are validation images already.
    """
    _require_foldable(cohort, folds)
    if not 1 <= number <= folds:
        msg = f"There is no fold {number} of {folds}."
        raise ConfigError(msg, "Count from 1.")


def without_unlabeled_of(
    cohort: ImageCohort, held_out: Sequence[ImageItem], digests: Digests | None = None
) -> ImageCohort:
    """Leave out unlabeled images of groups that are held out, and copies of images that are; say how many.

    Args:
        cohort: Whose unlabeled images.
        held_out: Images that training must not see.
        digests: Of all of them; None: copies are not looked for.
    """
    known = digests or {}
    groups = {item.group for item in held_out} - {None}
    pixels = {known.get(item.path) for item in held_out} - {None}
    kept = tuple(
        item for item in cohort.unlabeled if item.group not in groups and known.get(item.path) not in pixels
    )
    lost = len(cohort.unlabeled) - len(kept)
    if lost:
        _LOGGER.warning(
            "%d unlabeled images left out: their groups, or copies of them, are held out now", lost
        )
    return replace(cohort, unlabeled=kept)


def _rank(seed: object, *parts: str) -> bytes:
    """Return a random-looking key that hangs on nothing but its arguments."""
    return hashlib.sha256("\0".join((str(seed), *parts)).encode("utf-8", "surrogateescape")).digest()


def _by_class(items: Iterable[ImageItem]) -> dict[str, list[ImageItem]]:
    found: dict[str, list[ImageItem]] = defaultdict(list)
    for item in items:
        if item.label is not None:
            found[item.label].append(item)
    return found


def _spread_over_groups(items: Iterable[ImageItem], seed: int, digests: Digests | None) -> list[ImageItem]:
    """Order the images of a class: the first of every group, then the second of every group, and so on."""
    ordered = sorted(items, key=lambda item: _rank(f"labels/{seed}", item.name))
    together = _together(ordered, digests)
    turn: Counter[str] = Counter()
    turns = {}
    for item in ordered:
        unit = together[item.name]
        turns[item.name] = turn[unit]
        turn[unit] += 1
    return sorted(ordered, key=lambda item: turns[item.name])


def _units(items: Sequence[ImageItem], seed: str, digests: Digests | None) -> list[Unit]:
    """Return what stays together in random order."""
    together = _together(items, digests)
    found: dict[str, list[ImageItem]] = defaultdict(list)
    for item in items:
        found[together[item.name]].append(item)
    return [tuple(found[key]) for key in sorted(found, key=lambda key: _rank(seed, key))]


def _together(items: Sequence[ImageItem], digests: Digests | None) -> dict[str, str]:
    """Return name -> key of what the image stays together with.

    Ties are followed on: where an image of one group is a copy of one of another, both groups have one key. That is
    the first of the names of its groups, or else of its images, whatever the order of the images.
    """
    known, above = digests or {}, dict[str, str]()
    own = {item.name: f"group/{item.group}" if item.group else f"image/{item.name}" for item in items}
    for item in items:
        if item.path in known:
            first, second = sorted(
                _top(above, key) for key in (own[item.name], f"pixels/{known[item.path].hex()}")
            )
            above[second] = first
    return {name: _top(above, key) for name, key in own.items()}


def _top(above: dict[str, str], key: str) -> str:
    """Follow a key up to the first that it is tied to; shorten the way for those who come later."""
    while above.setdefault(key, key) != key:
        above[key] = above[above[key]]
        key = above[key]
    return key


def _tested(cohort: ImageCohort, share: float, seed: int, digests: Digests | None) -> ImageCohort:
    """Take test images from the labeled training images, class by class."""
    kept, tested = _divided(cohort.training, share, f"test/{seed}", digests)
    if not tested:
        msg = f"No test image could be taken from {len(kept)} labeled images."
        raise DatalistError(msg, "Label more images, or give test images (test/).")
    divided = without_unlabeled_of(replace(cohort, training=kept, test=tested), tested, digests)
    _warn_of_missing(divided, "test")
    return divided


def _divided(
    items: Sequence[ImageItem], share: float, seed: str, digests: Digests | None, rare: Collection[str] = ()
) -> tuple[tuple[ImageItem, ...], tuple[ImageItem, ...]]:
    """Take a share of each class, unit by unit, none of rare classes alone; return what is left and what was taken."""
    if not 0 < share < 1:
        msg = f"The share of images to set aside is {share:g}; expected a number between 0 and 1."
        raise ConfigError(msg)
    sizes = Counter(item.label for item in items)
    wanted = {name: min(max(1, round(share * size)), size - 1) for name, size in sizes.items()}
    taken: Counter[str | None] = Counter()
    chosen = set()
    for unit in _units(items, seed, digests):
        more = Counter(item.label for item in unit)
        only_rare = more.keys() <= set(rare)
        spares_one = all(taken[name] + count < sizes[name] for name, count in more.items())
        nearer = sum(
            abs(wanted[name] - taken[name] - count) - abs(wanted[name] - taken[name])
            for name, count in more.items()
        )
        if spares_one and nearer < 0 and not only_rare:
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


def _folds(cohort: ImageCohort, folds: int, seed: int, digests: Digests | None) -> Mapping[str, int]:
    """Return name -> fold, counted from 0."""
    _require_foldable(cohort, folds)
    units = _units(cohort.training, f"folds/{seed}", digests)
    _require_units(cohort, units, folds)
    return _balanced(units, folds)


def _validated_by(
    cohort: ImageCohort, fold_of: Mapping[str, int], fold: int, digests: Digests | None
) -> ImageCohort:
    """Let one fold validate and the others train."""
    held = tuple(item for item in cohort.training if fold_of[item.name] == fold)
    rest = tuple(item for item in cohort.training if fold_of[item.name] != fold)
    return without_unlabeled_of(replace(cohort, training=rest, validation=held), held, digests)


def _require_foldable(cohort: ImageCohort, folds: int) -> None:
    if folds < 2:
        msg = f"folds is {folds}; expected 2 or more."
        raise ConfigError(msg)
    _require_none(cohort, "validation", "Move")


def _require_none(cohort: ImageCohort, section: str, cure: str) -> None:
    """Refuse images in a section that is to be drawn; the cure ends with moving them."""
    count = len(cohort.section(section))
    if count:
        msg = f"The cohort has {count} {section} images already; expected none."
        raise DatalistError(msg, f"{cure} them to the training images.")


def _require_units(cohort: ImageCohort, units: Iterable[Unit], folds: int) -> None:
    """Refuse classes that cannot be in every fold."""
    found = Counter(label for unit in units for label in {item.label for item in unit})
    short = ", ".join(f"'{name}' has {found[name]}" for name in cohort.classes if found[name] < folds)
    if short:
        msg = f"Too few labeled images or groups for {folds} folds: {short}; expected {folds} in each class."
        raise DatalistError(msg, "Make fewer folds, or label more images.")


def _warn_of_missing(cohort: ImageCohort, section: str, rare: Collection[str] = ()) -> None:
    found = {item.label for item in cohort.section(section)}.union(rare)
    missing = [name for name in cohort.classes if name not in found]
    if missing:
        _LOGGER.warning("%s has no image of %s: their scores will be undefined", section, ", ".join(missing))
