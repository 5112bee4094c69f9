"""The layout of iSeg-2017 and iSeg-2019: Analyze pairs named subject-<n>-T1, -T2, -label."""

from __future__ import annotations

import re
from pathlib import Path

from medssl.io.subjects import Subject
from medssl.labels import BRAIN_TISSUES, ISEG_RAW, LabelTable

_CONTRAST_NAMES = {"T1w": "T1", "T2w": "T2"}
_PATTERN = re.compile(r"^subject-(\d+)-(\w+)\.hdr$")


def find_subjects(root: Path, contrasts: tuple[str, ...]) -> tuple[Subject, ...]:
    """Find the subjects of a challenge folder, or of a folder that holds the challenge's folders.

    The mask of a subject is where T1 is not 0: on the challenge's own data this equals its labels voxel
    for voxel.

    Args:
        root: Folder with the pairs, or the parent of such folders (training and testing).
        contrasts: BIDS suffixes; T1w and T2w exist.

    Returns:
        Subjects by number; those with a label file have it.
    """
    found = {}
    for path in (*root.glob("subject-*.hdr"), *root.glob("*/subject-*.hdr")):
        match = _PATTERN.match(path.name)
        if match:
            found[path.parent, int(match[1])] = match[1]
    ordered = sorted(found.items(), key=lambda item: (item[0][1], item[0][0]))
    return tuple(_subject(folder, number, contrasts) for (folder, _), number in ordered)


def iseg_values(table: LabelTable) -> dict[int, int]:
    """Return what the values in an iSeg label file are in a table, by their abbreviations."""
    value_of = {label.abbreviation: label.value for label in table}
    return {raw: value_of[name] for raw, name in ISEG_RAW.items() if name in value_of}


ISEG_VALUES = iseg_values(BRAIN_TISSUES)
"""Value in an iSeg label file -> value in `BRAIN_TISSUES`."""


def _subject(folder: Path, number: str, contrasts: tuple[str, ...]) -> Subject:
    names = [_CONTRAST_NAMES.get(contrast, contrast) for contrast in contrasts]
    label = folder / f"subject-{number}-label.hdr"
    return Subject(
        subject=number,
        images=tuple(folder / f"subject-{number}-{name}.hdr" for name in names),
        label=label if label.is_file() else None,
        encoding="iseg",
    )
