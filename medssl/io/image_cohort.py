"""The one entry for every layout of images: a tree of folders or a manifest becomes a cohort."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medssl.errors import ConfigError, InputError
from medssl.io.image_items import (
    HELD_OUT,
    Fault,
    ImageCohort,
    ImageItem,
    class_name,
    natural_order,
    passed_over_remark,
    require_faultless,
)
from medssl.io.image_manifest import FILE_NAME, listed_folders, read_manifest, write_manifest
from medssl.io.image_tree import Tree, read_plain_folder, read_tree
from medssl.labels import UNKNOWN, is_command

__all__ = [
    "ImageCohort",
    "ImageItem",
    "class_names",
    "find_images",
    "folders_of_images",
    "image_entries",
    "read_image_cohort",
    "write_manifest",
]

_LOGGER = logging.getLogger(__name__)

_EXPECTED = (
    "Expected train/CLASS/*.png (and val/, test/, unlabelled/), CLASS/*.png, or a CSV manifest with the columns "
    "path,label,split."
)


def read_image_cohort(
    data: Path | str,
    *,
    unlabeled: Path | str | None = None,
    classes: Sequence[str] | None = None,
    allow_outside: bool = False,
) -> ImageCohort:
    """Find all images of a folder or manifest and their classes. No image is decoded, nothing is written.

    Understood are ``train/CLASS/**``, ``val``, ``test`` and ``unlabelled/**`` with their usual spellings;
    ``CLASS/**`` alone, all for training; a CSV manifest, or a folder with one named ``images.csv``. Hidden files
    and files that are no image are passed over and counted; those that may be images are named in the cohort.

    Args:
        data: Folder or manifest.
        unlabeled: Folder of unlabeled images that lies elsewhere.
        classes: Names in the order of the network's outputs. None: those of the training images (of the held-out
            ones where nothing is for training) in natural order.
        allow_outside: Accept paths and links that leave the folder.

    Raises:
        InputError: There is nothing there, or nothing that is understood.
        DatalistError: Everything that is wrong with it: class names that differ between the splits, a class
            without images, paths that leave the folder, and more.
        ConfigError: The given classes are not two to 255 different names.
    """
    place = Path(data)
    root, tree = _read_place(place, allow_outside=allow_outside)
    if unlabeled is not None:
        _add_unlabeled(tree, Path(unlabeled), allow_outside=allow_outside)
    known = _class_order(tree, classes)
    _check_classes(tree, known)
    require_faultless(tree.faults, place)
    sections = {name: tuple(items) for name, items in tree.sections.items()}
    cohort = ImageCohort(root, known, **sections, ignored=tree.ignored, passed_over=tuple(tree.passed_over))
    if tree.ignored:
        _LOGGER.debug("%s: %d hidden or other files and folders passed over", place, tree.ignored)
    return cohort


def class_names(data: Path | str, *, allow_outside: bool = False) -> list[str]:
    """Return the classes of a cohort in the order of the network's outputs; see `read_image_cohort`."""
    return list(read_image_cohort(data, allow_outside=allow_outside).classes)


def image_entries(
    dataset_dir: Path | str,
    section: str,
    classes: Sequence[str] | None = None,
    *,
    unlabeled: Path | str | None = None,
    allow_outside: bool = False,
) -> list[dict[str, Any]]:
    """List one section of a cohort as MONAI items.

    Args:
        dataset_dir: As ``data`` in `read_image_cohort`.
        section: "training", "validation", "test" or "unlabeled".
        classes: As in `read_image_cohort`.
        unlabeled: As in `read_image_cohort`.
        allow_outside: As in `read_image_cohort`.

    Returns:
        Dictionaries with "image" (a path), "name", "label" (place of the class, 255 for unlabeled) and "weight".
    """
    cohort = read_image_cohort(dataset_dir, unlabeled=unlabeled, classes=classes, allow_outside=allow_outside)
    numbers: dict[str | None, int] = {name: number for number, name in enumerate(cohort.classes)}
    numbers[None] = UNKNOWN
    return [
        {"image": str(item.path), "name": item.name, "label": numbers[item.label], "weight": item.weight}
        for item in cohort.section(section)
    ]


def folders_of_images(data: Path | str) -> list[Path]:
    """Return the folders that hold the images of a folder or manifest: nothing is ever written into them.

    A folder counts with all that is below it. Of a manifest, which may lie anywhere, the folders count that directly
    hold an image it lists; there are none where it is not there.

    Raises:
        InputError: The manifest is no such table.
        DatalistError: It lacks a column.
    """
    place = Path(data)
    manifest = _manifest_at(place)
    listed = listed_folders(manifest) if manifest is not None and manifest.is_file() else []
    return listed if manifest == place else [place, *listed]


def find_images(folder: Path | str, *, allow_outside: bool = False) -> tuple[ImageItem, ...]:
    """Find all images below a folder, whatever its folders are called; none of them has a class.

    A warning names files that may be images and are passed over.

    Raises:
        InputError: There is no such folder, or no image in it.
        DatalistError: A link leads nowhere or leaves the folder.
    """
    root = Path(folder)
    _require_folder(root)
    tree = read_plain_folder(root, allow_outside=allow_outside)
    require_faultless(tree.faults, root)
    if not tree.sections["unlabeled"]:
        msg = f"{root} holds no image; {tree.ignored} other files and folders lie there."
        raise InputError(msg, "Give a folder with PNG, JPEG, BMP, TIFF, NPY or DICOM files.")
    if tree.passed_over:
        _LOGGER.warning("%s: %s", root, passed_over_remark(tree.passed_over))
    return tuple(tree.sections["unlabeled"])


def _read_place(place: Path, *, allow_outside: bool) -> tuple[Path, Tree]:
    """Read a folder or a manifest; return its folder too."""
    manifest = _manifest_at(place)
    if manifest is not None:
        return manifest.parent, read_manifest(manifest, allow_outside=allow_outside)
    _require_folder(place)
    tree = read_tree(place, allow_outside=allow_outside)
    if not any(tree.sections.values()) and not tree.faults:
        msg = f"{place} holds no folder of images ({tree.ignored} other files)."
        raise InputError(msg, _EXPECTED)
    return place, tree


def _manifest_at(place: Path) -> Path | None:
    """Return the manifest that is given, or that a folder is read by; None where folders say what belongs where."""
    if (place / FILE_NAME).is_file():
        return place / FILE_NAME
    return place if place.suffix.lower() == ".csv" and not place.is_dir() else None


def _require_folder(place: Path) -> None:
    if not place.is_dir():
        found = "a file" if place.exists() else "not there"
        msg = f"{place} is {found}; expected a folder or a CSV manifest."
        raise InputError(msg, "Check the path.")


def _add_unlabeled(tree: Tree, folder: Path, *, allow_outside: bool) -> None:
    """Add the images of a folder that lies elsewhere."""
    _require_folder(folder)
    if tree.sections["unlabeled"]:
        count = len(tree.sections["unlabeled"])
        msg = f"{count} unlabeled images lie in the data, and '{folder}' was given too; expected one place"
        tree.faults.append(Fault(msg, "Leave out one of them."))
    found = read_plain_folder(
        folder, allow_outside=allow_outside, prefix=f"unlabeled:{folder.resolve().name}/"
    )
    if not found.sections["unlabeled"]:
        tree.faults.append(
            Fault(f"the folder of unlabeled images '{folder}' holds no image", "Check its path.")
        )
    tree.sections["unlabeled"] += found.sections["unlabeled"]
    tree.faults += found.faults
    tree.ignored += found.ignored
    tree.passed_over += found.passed_over


def _class_order(tree: Tree, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes in the order of the outputs."""
    if given is None:
        held_out = [name for section in HELD_OUT for name in tree.classes[section]]
        known = natural_order(set(tree.classes["training"] or held_out))
        if len(known) < 2:
            found = f"only '{known[0]}'" if known else "no labeled image"
            cure = "Label images of two classes or more, each in the folder of its class under train/."
            tree.faults.append(Fault(f"{found}; expected two classes or more", cure))
        return tuple(known)
    known = [class_name(str(name)) for name in given]
    if isinstance(given, str) or not 2 <= len(set(known)) == len(known) <= UNKNOWN or not all(known):
        msg = f"The classes are {given!r}; expected 2 to {UNKNOWN} different names."
        raise ConfigError(msg, "Write them as a list, in the order of the outputs.")
    return tuple(known)


def _check_classes(tree: Tree, known: Sequence[str]) -> None:
    """Compare the names of the classes, never their number, across the splits; add faults to the tree.

    Every class has a folder in every split that there is; a manifest may leave rare ones out of the held-out
    splits, which is only logged.
    """
    if len(known) > UNKNOWN:
        tree.faults.append(Fault(f"{len(known)} classes; expected {UNKNOWN} at most", "Merge some."))
    tree.faults += _of_names(known)
    for section in ("training", *HELD_OUT):
        found = set(tree.classes[section])
        missing = [name for name in known if name not in found]
        for name in natural_order(found - set(known)):
            close = difflib.get_close_matches(name, missing or known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            msg = f"the class '{name}' of {section} is not among the classes ({_listed(known)}){hint}"
            tree.faults.append(Fault(msg, "Give every split the same class names, also in writing."))
        if missing and section == "training" and not found:
            _LOGGER.info("There is no labeled training image: this can be evaluated, not trained on")
        elif missing and section == "training":
            msg = f"no labeled training image of {_listed(missing)}"
            tree.faults.append(Fault(msg, "Label some, or leave the class out."))
        elif missing and found and tree.by_folder:
            msg = f"{section} has no folder for {_listed(missing)}"
            tree.faults.append(Fault(msg, "Give every split the same class names, also in writing."))
        elif missing and found:
            _LOGGER.warning(
                "%s has no image of %s: their scores will be undefined", section, _listed(missing)
            )


def _of_names(known: Sequence[str]) -> list[Fault]:
    """Name the classes that could not stand in a configuration as they are."""
    cure = "Begin it with none of $ @ %, and use no # or :: in it."
    return [
        Fault(f"the class '{name}' has a name that a configuration would evaluate or change", cure)
        for name in known
        if is_command(name) or "#" in name or "::" in name
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:20]) + (
        f" and {len(names) - 20} more" if len(names) > 20 else ""
    )
