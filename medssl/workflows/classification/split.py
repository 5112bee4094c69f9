"""Dividing a folder of labeled images without moving one: the manifest says who is who."""

from __future__ import annotations

from pathlib import Path

from medssl.errors import ConfigError
from medssl.io.files import require_absent, require_writable_file
from medssl.io.image_cohort import ImageCohort, read_image_cohort, write_manifest
from medssl.io.image_items import SECTIONS
from medssl.io.image_splits import draw_labeled, fold_cohort, split_cohort


def split_folder(
    data: Path,
    out: Path,
    *,
    validation: float = 0.1,
    test: float = 0.25,
    labels_per_class: int | None = None,
    seed: int = 0,
    fold: tuple[int, int] | None = None,
    allow_outside: bool = False,
) -> dict[str, int]:
    """Write a manifest that divides labeled images class by class, groups whole.

    Args:
        data: Folder or manifest.
        out: CSV to write.
        validation: Share of the labeled images.
        test: Share of the labeled images.
        labels_per_class: Labels to keep for training; the other training images become unlabeled.
        seed: The same seed gives the same division.
        fold: (2, 5): the second of five parts of the labeled images validates; the share of validation is not used
            then, and test images that are there stay.
        allow_outside: Accept paths and links that leave the folder of the data.

    Returns:
        Section -> number of images.

    Raises:
        OutputError: The manifest exists, lies inside the data, or cannot be written.
        ConfigError: There is no such fold.
        DatalistError: Too few images of a class.
    """
    require_absent(out)
    cohort = read_image_cohort(data, allow_outside=allow_outside)
    require_writable_file(out, [data])
    if fold is None:
        divided = split_cohort(cohort, validation=validation, test=test, seed=seed)
    else:
        divided = _folded(cohort, *fold, test=test, seed=seed)
    if labels_per_class is not None:
        divided = draw_labeled(divided, labels_per_class=labels_per_class, seed=seed)
    write_manifest(out, divided)
    return {name: len(divided.section(name)) for name in SECTIONS}


def _folded(cohort: ImageCohort, number: int, folds: int, *, test: float, seed: int) -> ImageCohort:
    """Take test images out where there are none, and let one fold of the rest validate."""
    if not 1 <= number <= folds:
        msg = f"There is no fold {number} of {folds}."
        raise ConfigError(msg, "Count from 1.")
    tested = cohort if cohort.test or not test else split_cohort(cohort, validation=0.0, test=test, seed=seed)
    return fold_cohort(tested, folds=folds, seed=seed)[number - 1]
