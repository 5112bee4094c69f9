"""Dividing a folder of labeled images without moving one: the manifest says who is who."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medssl.io.files import require_absent, require_writable_file
from medssl.io.image_cohort import ImageCohort, read_image_cohort, write_manifest
from medssl.io.image_items import SECTIONS
from medssl.io.image_leaks import (
    Progress,
    check_images,
    inspect_images,
    require_no_image_leaks,
    without_images,
)
from medssl.io.image_splits import (
    Digests,
    draw_labeled,
    one_fold,
    require_divisible,
    require_fold,
    split_cohort,
    without_unlabeled_of,
)


def split_folder(  # noqa: PLR0913 (one argument an option)
    data: Path,
    out: Path,
    *,
    validation: float = 0.1,
    test: float = 0.25,
    labels_per_class: int | None = None,
    seed: int = 0,
    fold: tuple[int, int] | None = None,
    skip_unreadable: bool = False,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write a manifest that divides labeled images class by class, groups and copies of one image whole.

    Unlabeled copies of images that are held out are left out, with a warning.

    Args:
        data: Folder or manifest.
        out: CSV to write.
        validation: Share of the labeled images; 0 draws none, and those that are there stay.
        test: Share of the labeled images; 0 draws none, and those that are there stay.
        labels_per_class: Labels to keep for training; the other training images become unlabeled.
        seed: The same seed gives the same division.
        fold: (2, 5): the second of five parts of the labeled images validates; the share of validation is not used
            then, and test images that are there stay.
        skip_unreadable: Leave unreadable images out instead of refusing.
        allow_outside: Accept paths and links that leave the folder of the data.
        progress: Told about each image that is looked at.

    Returns:
        Section -> number of images.

    Raises:
        OutputError: The manifest exists, lies inside the data, or cannot be written.
        ConfigError: There is no such fold, or both shares are 0.
        ImageError: Images cannot be used; all of them are counted, the first ten named.
        DatalistError: Too few images of a class, images that are divided already, copies with two labels.
    """
    require_absent(out)
    cohort = read_image_cohort(data, allow_outside=allow_outside)
    require_writable_file(out, [data])
    if fold is None:
        require_divisible(cohort, validation=validation, test=test)
    else:
        require_fold(cohort, *fold)
    cohort, digests = _usable(cohort, progress, skip_unreadable=skip_unreadable)
    if fold is None:
        divided = split_cohort(cohort, validation=validation, test=test, seed=seed, digests=digests)
    else:
        divided = _folded(cohort, *fold, test=test, seed=seed, digests=digests)
    if labels_per_class is not None:
        divided = draw_labeled(divided, labels_per_class=labels_per_class, seed=seed, digests=digests)
    write_manifest(out, divided)
    return {name: len(divided.section(name)) for name in SECTIONS}


def _usable(
    cohort: ImageCohort, progress: Progress | None, *, skip_unreadable: bool
) -> tuple[ImageCohort, Digests]:
    """Read every image once; return the cohort as training would take it, and the digests of the pixels."""
    look = inspect_images(cohort, progress=progress)
    cohort = without_images(cohort, check_images(cohort, "skip" if skip_unreadable else "fail", check=look))
    apart = without_unlabeled_of(cohort, (*cohort.validation, *cohort.test), look.digests)
    require_no_image_leaks(apart, check=replace(look, findings=()))
    return apart, look.digests


def _folded(
    cohort: ImageCohort, number: int, folds: int, *, test: float, seed: int, digests: Digests
) -> ImageCohort:
    """Take test images out where there are none, and let one fold of the rest validate."""
    drawn = test and not cohort.test
    tested = split_cohort(cohort, validation=0.0, test=test, seed=seed, digests=digests) if drawn else cohort
    return one_fold(tested, number, folds=folds, seed=seed, digests=digests)
