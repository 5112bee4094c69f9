"""Labels drawn in a viewer: kept in a folder beside the scans, read back as labels of these scans.

``cohort-labels/final/sub-01_seg-braintissues_dseg.nii.gz`` is the corrected label of sub-01 of the folder
``cohort``, which itself is never written to.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import DatalistError, GridError, LabelError
from medssl.geometry import Grid
from medssl.io import bids, flat
from medssl.io.files import write_json
from medssl.io.nifti import read_grid, read_whole_numbers, write_labels
from medssl.io.subjects import SECTIONS, Cohort, Subject, only_one
from medssl.labels import UNKNOWN, LabelTable

logger = logging.getLogger(__name__)

SUFFIX = "-labels"
"""What the name of the folder adds to that of the scans'."""

FINAL = "final"
"""Subfolder of the labels that training may use."""

UPLOADED = "images"
"""Subfolder of scans that came from a viewer: a flat folder with ``<id>_T1w.nii.gz``."""

VIEWER_TOLERANCE = 0.1
"""Share of a voxel by which a viewer's rounded header may differ from the scan's, whose header is kept."""

UNKNOWN_NAME = "unknown"
"""A segment of this name marks voxels whose label nobody knows; losses ignore them."""


def corrections_folder(place: Path) -> Path:
    """Return where the corrected labels of a folder or datalist are: beside the folder, never in it."""
    whole = place.resolve()
    folder = whole.parent if whole.suffix == ".json" else whole
    return folder.with_name(folder.name + SUFFIX)


def with_corrections(cohort: Cohort, folder: Path) -> Cohort:
    """Take over the labels, and the scans, that a viewer has put into a folder.

    An unlabeled scan with a label becomes one for training. A scan of another section stays there with the new
    label, so that what validates or tests never starts to train.

    Args:
        cohort: As it was found.
        folder: See `corrections_folder`; it need not exist.

    Raises:
        DatalistError: A subject has two labels there.
    """
    labels = bids.find_labels(folder / FINAL)
    uploaded = _uploaded(folder / UPLOADED, cohort)
    if not labels and not uploaded:
        return cohort
    sections: dict[str, list[Subject]] = {name: [] for name in SECTIONS}
    for section, subject in [*cohort.placed(), *(("unlabeled", one) for one in uploaded)]:
        label = only_one(labels.get(subject.key, []), subject.key, "corrected label")
        if label is None:
            sections[section].append(subject)
        else:
            place = "training" if section == "unlabeled" else section
            sections[place].append(replace(subject, label=label, encoding="table"))
    logger.debug("%d labels from %s", len(labels), folder.name)
    return replace(cohort, **{name: tuple(found) for name, found in sections.items()})


def correction_file(folder: Path, key: str, table: LabelTable, tag: str = FINAL) -> Path:
    """Return where a subject's label of some kind is kept."""
    return folder / tag / f"{key}_seg-{table.name}_dseg.nii.gz"


def save_correction(
    path: Path, drawn: Path, subject: Subject, table: LabelTable, segments: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Check a label image that a viewer exported and keep it on the scan's own grid, with the table's values.

    Args:
        path: See `correction_file`.
        drawn: NIfTI file of the viewer.
        subject: Whose label it is.
        table: What stored values mean.
        segments: ``name`` and ``idx`` (value in the file) of each segment. Viewers number segments in the order
            of their scene. Without any, the values must be the table's.

    Raises:
        InputError: The file is no volume.
        GridError: It lies on another grid than the scan.
        LabelError: A segment is none of the table's, or there is no labeled voxel.
        OutputError: The folder cannot be written to.
    """
    found = read_whole_numbers(drawn, subject.key)
    _require_same_voxels(read_grid(subject.images[0], subject.key), found.grid, subject)
    segments = list(segments)
    values = remapped(found.data, segments, table, subject.key)
    write_labels(path, values, subject.images[0])
    write_json(
        path.with_name(path.name.removesuffix(".nii.gz") + ".json"), {"Manual": True, "Segments": segments}
    )


def remapped(
    values: NDArray[np.uint8], segments: Iterable[Mapping[str, Any]], table: LabelTable, subject: str
) -> NDArray[np.uint8]:
    """Turn a viewer's numbers into a table's values, by the names of the segments.

    Args:
        values: Label image as exported.
        segments: ``name`` and ``idx`` of each; empty: the numbers are the table's.
        table: Names are compared with its names and abbreviations, without regard to case and punctuation.
        subject: Named in messages.

    Raises:
        LabelError: A number without a name, a name that the table lacks, or no labeled voxel.

    Shapes:
        values, return: any, equal
    """
    meaning = _meaning(segments, table, subject) or {value: value for value in (*table.values, UNKNOWN)}
    strange = [int(value) for value in np.unique(values) if value and int(value) not in meaning]
    if strange:
        msg = f"{subject}: the label image holds {', '.join(map(str, strange))}, for which there is no segment; "
        msg += f"expected {', '.join(map(str, sorted(meaning)))}."
        raise LabelError(msg, f"Use the segments of this table: {table.describe()}.")
    lookup = np.zeros(256, np.uint8)
    lookup[list(meaning)] = list(meaning.values())
    lookup[0] = 0
    result = lookup[values]
    if not np.any((result != 0) & (result != UNKNOWN)):
        msg = f"{subject}: no voxel is labeled."
        raise LabelError(msg, "Draw or run a segmentation first, then submit it.")
    return result


def _require_same_voxels(scan: Grid, label: Grid, subject: Subject) -> None:
    """Refuse a label whose voxels are not those of the scan."""
    difference = scan.difference(label)
    if difference is None:
        return
    moved = np.inf
    if scan.shape == label.shape:
        moved = float(np.linalg.norm(scan.corners_mm() - label.corners_mm(), axis=1).max())
    if moved > VIEWER_TOLERANCE * min(scan.spacing):
        msg = f"{subject.key}: the label is not on the grid of {subject.images[0].name}: {difference}."
        raise GridError(msg, "Export the segmentation with that scan as its reference volume.")
    logger.info("%s: header of the label differs by %.2g mm; that of the scan is kept", subject.key, moved)


def _meaning(segments: Iterable[Mapping[str, Any]], table: LabelTable, subject: str) -> dict[int, int]:
    """Return exported number -> stored value."""
    known = {_plain(text): label.value for label in table for text in (label.name, label.abbreviation)}
    known[UNKNOWN_NAME] = UNKNOWN
    meaning = {}
    for segment in segments:
        try:
            name, number = str(segment["name"]), int(segment["idx"])
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{subject}: a segment is described as {segment!r}; expected its name and idx."
            raise LabelError(msg, "Export the segmentation again.") from error
        if not 0 <= number <= UNKNOWN:
            msg = f"{subject}: the segment '{name}' has the number {number}; expected 0 to {UNKNOWN}."
            raise LabelError(msg, "Export the segmentation again.")
        if _plain(name) not in known:
            msg = f"{subject}: there is no label '{name}' here; expected one of {table.describe()}."
            raise LabelError(msg, f"Rename the segment, or call it '{UNKNOWN_NAME}' to leave its voxels out.")
        meaning[number] = known[_plain(name)]
    return meaning


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


def _uploaded(folder: Path, cohort: Cohort) -> list[Subject]:
    """Return uploaded subjects that are complete and not those of the cohort."""
    if not folder.is_dir():
        return []
    own = {subject.key for subject in cohort.all()}
    try:
        found = flat.find_subjects(folder, cohort.contrasts)
    except DatalistError as error:
        logger.warning("%s", error)
        return []
    return [one for one in found if one.key not in own and all(image.is_file() for image in one.images)]
