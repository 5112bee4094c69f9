"""Subjects of a BIDS folder, with labels and masks from the raw folder or its derivatives."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from medssl.io.subjects import Subject, is_nifti, name_parts, only_one, plain_label

_LOGGER = logging.getLogger(__name__)

_OWN_SPACES = ("T1w", "orig")

Key = tuple[str, str | None]


def find_subjects(root: Path, contrasts: tuple[str, ...]) -> tuple[Subject, ...]:
    """Find ``sub-*/[ses-*/]anat/sub-*_<contrast>.nii[.gz]``.

    Labels (``*_dseg``) and masks (``*_desc-brain_mask``) of the same subject and session are looked for
    beside the scans and in ``derivatives/``; those in another space (``space-`` other than the scan's) are
    passed over.

    Args:
        root: The BIDS folder.
        contrasts: BIDS suffixes in channel order.

    Returns:
        Subjects in the order of their names; every session is one.

    Raises:
        DatalistError: A subject has two files for one purpose.
    """
    scans = _by_subject(_anatomical(root))
    related = _by_subject([*_anatomical(root), *_derived(root)])
    subjects = []
    for key, paths in sorted(scans.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        if any(name_parts(path)[1] in contrasts for path in paths):
            subjects.append(_subject(key, paths, related[key], contrasts))
        else:
            _LOGGER.warning("%s has none of %s; passed over", _name(key), ", ".join(contrasts))
    return tuple(subjects)


def find_labels(root: Path) -> dict[str, list[Path]]:
    """Find every label image (``*_dseg``) below a folder, by the key of its subject, such as "sub-01"."""
    found = defaultdict(list)
    for key, paths in _by_subject(sorted(root.rglob("*_dseg.nii*"))).items():
        found[_name(key)].extend(paths)
    return dict(found)


def _subject(key: Key, scans: list[Path], related: list[Path], contrasts: tuple[str, ...]) -> Subject:
    name = _name(key)
    spaces = (*_OWN_SPACES, contrasts[0])
    own = [path for path in related if name_parts(path)[0].get("space", "orig") in spaces]
    images = []
    for contrast in contrasts:
        fitting = [path for path in scans if name_parts(path)[1] == contrast]
        missing = scans[0].parent / f"{name}_{contrast}.nii.gz"
        images.append(only_one(fitting, name, f"{contrast} scan") or missing)
    labels = (path for path in own if name_parts(path)[1] == "dseg")
    return Subject(
        subject=key[0],
        session=key[1],
        images=tuple(images),
        label=only_one(labels, name, "label image"),
        mask=only_one(filter(is_brain_mask, own), name, "brain mask"),
    )


def is_brain_mask(path: Path) -> bool:
    """Tell by its name whether a file is a brain mask."""
    entities, suffix = name_parts(path)
    return suffix == "mask" and entities.get("desc") == "brain"


def _name(key: Key) -> str:
    subject, session = key
    return f"sub-{subject}" + (f"_ses-{session}" if session else "")


def _anatomical(root: Path) -> list[Path]:
    return sorted([*root.glob("sub-*/anat/*"), *root.glob("sub-*/ses-*/anat/*")])


def _derived(root: Path) -> list[Path]:
    return sorted((root / "derivatives").rglob("sub-*.nii*"))


def _by_subject(paths: Iterable[Path]) -> dict[Key, list[Path]]:
    """Sort images by subject and session."""
    found: dict[Key, list[Path]] = defaultdict(list)
    for path in paths:
        entities, _ = name_parts(path)
        if is_nifti(path) and "sub" in entities:
            session = entities.get("ses")
            found[plain_label(entities["sub"]), plain_label(session) if session else None].append(path)
    return found
