"""The one entry for every layout of files: a folder, a datalist or a few images become a cohort."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medssl.errors import DatalistError, InputError, LabelError
from medssl.io import bids, flat, iseg
from medssl.io.corrections import corrections_folder, with_corrections
from medssl.io.datalist import FILE_NAME, read_datalist
from medssl.io.files import read_tsv
from medssl.io.subjects import (
    DEFAULT_CONTRASTS,
    SECTIONS,
    Cohort,
    Subject,
    name_parts,
    plain_label,
    stem,
)
from medssl.labels import BRAIN_TISSUES, NO_MASK, LabelTable, label_table

_LAYOUTS = (("bids", bids.find_subjects), ("flat", flat.find_subjects), ("iseg", iseg.find_subjects))

Data = Path | str | Sequence[Path | str]


def read_cohort(
    data: Data,
    contrasts: Sequence[str] | None = None,
    table: LabelTable | None = None,
    mask: str | None = None,
    corrections: Path | None = None,
) -> Cohort:
    """Find all subjects of a folder, a datalist, or of files given one by one.

    Understood are a folder with ``datalist.json``, BIDS, a flat folder with ``<id>_T1w.nii.gz``, and iSeg's
    ``subject-1-T1.hdr``. Without a datalist, subjects with a label are for training, the others unlabeled.
    Labels that were made in 3D Slicer lie in ``<folder>-labels`` beside the folder and count as its labels.
    No voxel is read here.

    Args:
        data: Folder, datalist (``*.json``), image, or one image a contrast.
        contrasts: BIDS suffixes in channel order. None: those of the datalist or of the given files, else
            T1w and T2w.
        table: What the label values mean. None: the datalist's table, else a ``*_dseg.tsv`` beside the
            labels, else the four brain tissues.
        mask: "none" where no subject without a mask file has one: background is a class of its own then.
        corrections: Folder with labels from 3D Slicer that takes the place of ``<folder>-labels``.

    Raises:
        InputError: There is nothing there, or nothing that is understood.
        DatalistError: The datalist contradicts itself, or a subject has two files for one purpose.
        LabelError: The label table is wrong, or two label images have different ones.
    """
    paths = [Path(data)] if isinstance(data, (str, Path)) else [Path(path) for path in data]
    wanted = _contrasts(contrasts)
    if len(paths) == 1 and (paths[0].is_dir() or paths[0].suffix == ".json"):
        cohort = _cohort_of_place(paths[0], wanted, table)
        cohort = with_corrections(cohort, corrections or corrections_folder(paths[0]))
    else:
        cohort = _cohort_of_files(paths, wanted, table)
    return _without_mask(cohort, mask) if mask is not None else cohort


def entries(
    data: Data, section: str, contrasts: Sequence[str] | None = None, table: LabelTable | None = None
) -> list[dict[str, Any]]:
    """List one section of a cohort as MONAI items.

    Args:
        data: As in `read_cohort`.
        section: "training", "validation", "test", "unlabeled", or "all".
        contrasts: As in `read_cohort`.
        table: As in `read_cohort`.

    Returns:
        Dictionaries with "subject" (such as "sub-01"), "image" (one path a contrast), and, where there is
        one, "label", "mask" (a path or "none") and "encoding" ("iseg"). Relative paths open from the
        current folder if ``data`` does.
    """
    cohort = read_cohort(data, contrasts, table)
    subjects = cohort.all() if section == "all" else cohort.section(section)
    return [item(subject) for subject in subjects]


def find_label_table(labels: Iterable[Path], root: Path) -> LabelTable | None:
    """Read the ``*_dseg.tsv`` that describes label images, or return None where there is none.

    For each image the nearest folder counts, from its own up to the root; in it the file of the same name
    comes first, then the one that shares most parts of the name.

    Raises:
        LabelError: Two images have different tables.
    """
    tables: dict[Path, LabelTable] = {}
    for label in labels:
        sidecar = _sidecar(label, root)
        if sidecar is not None and sidecar not in tables:
            tables[sidecar] = _read_table(sidecar)
    (first, table), *others = tables.items() if tables else [(None, None)]
    for path, other in others:
        if table is not None and other.labels != table.labels:
            msg = f"The label tables {first} and {path} differ; expected one table for all subjects."
            raise LabelError(msg, "Make them equal, or write 'labels' into the datalist.")
    return table


def _cohort_of_place(place: Path, contrasts: tuple[str, ...] | None, table: LabelTable | None) -> Cohort:
    """Read a folder or a datalist."""
    path = place / FILE_NAME if place.is_dir() else place
    if path.suffix == ".json" and (path.is_file() or not place.is_dir()):
        listed = read_datalist(path, contrasts)
        found = [subject for subjects in listed.subjects.values() for subject in subjects]
        table = table or listed.table or _table_of(found, path.parent)
        return Cohort(path.parent, listed.contrasts, table, **listed.subjects, layout="datalist")
    wanted = contrasts or DEFAULT_CONTRASTS
    for layout, find_subjects in _LAYOUTS:
        subjects = find_subjects(place, wanted)
        if subjects:
            return Cohort(
                root=place,
                contrasts=wanted,
                table=table or _table_of(subjects, place),
                training=tuple(subject for subject in subjects if subject.label is not None),
                unlabeled=tuple(subject for subject in subjects if subject.label is None),
                layout=layout,
            )
    raise _nothing_found(place, wanted)


def _cohort_of_files(
    paths: list[Path], contrasts: tuple[str, ...] | None, table: LabelTable | None
) -> Cohort:
    """Read one subject given as files."""
    absent = [str(path) for path in paths if not path.is_file()]
    if absent or not paths:
        msg = f"There is no file or folder {', '.join(absent)}." if absent else "No file or folder was given."
        raise InputError(msg, "Check the spelling and the current folder.")
    wanted = contrasts or flat.contrasts_of_files(paths) or DEFAULT_CONTRASTS[: len(paths)]
    subject = flat.subject_of_files(paths, wanted)
    root = paths[0].parent
    return Cohort(root, wanted, table or BRAIN_TISSUES, unlabeled=(subject,), layout="files")


def _contrasts(contrasts: Sequence[str] | None) -> tuple[str, ...] | None:
    """Check the contrasts that a caller named."""
    if contrasts is None:
        return None
    names = tuple(contrasts.split(",")) if isinstance(contrasts, str) else tuple(contrasts)
    if not names or not all(names) or len(set(names)) < len(names):
        msg = f"The contrasts are {names}; expected one or more different BIDS suffixes."
        raise DatalistError(msg, "Write for example T1w,T2w.")
    return names


def _without_mask(cohort: Cohort, mask: str) -> Cohort:
    """Set "none" for all subjects that have no mask file."""
    if mask != NO_MASK:
        msg = f"The mask for all subjects is '{mask}'; expected 'none'."
        raise InputError(msg, "Put mask files beside the scans or into the datalist.")
    sections = {}
    for name in SECTIONS:
        found = cohort.section(name)
        sections[name] = tuple(one if one.mask else replace(one, mask=NO_MASK) for one in found)
    return replace(cohort, **sections)


def item(subject: Subject) -> dict[str, Any]:
    """Return one subject as a MONAI item (see `entries`)."""
    found: dict[str, Any] = {"subject": subject.key, "image": [str(path) for path in subject.images]}
    if subject.label is not None:
        found["label"] = str(subject.label)
    if subject.mask is not None:
        found["mask"] = str(subject.mask)
    if subject.encoding != "table":
        found["encoding"] = subject.encoding
    return found


def _table_of(subjects: Iterable[Subject], root: Path) -> LabelTable:
    labels = [subject.label for subject in subjects if subject.label and subject.encoding == "table"]
    return find_label_table(labels, root) or BRAIN_TISSUES


def _sidecar(label: Path, root: Path) -> Path | None:
    """Return the nearest ``*_dseg.tsv`` that fits a label image."""
    parts = set(stem(label).split("_"))
    folders = [label.parent, *label.parent.parents]
    depth = folders.index(root) + 1 if root in folders else 1
    for folder in folders[:depth]:
        tables = [path for path in sorted(folder.glob("*dseg.tsv")) if not path.name.startswith(".")]
        fitting = [path for path in tables if set(stem(path).split("_")) <= parts]
        if fitting:
            return max(fitting, key=lambda path: len(stem(path).split("_")))
        shared = [path for path in tables if "sub" not in name_parts(path)[0]]
        if len(shared) == 1:
            return shared[0]
    return None


def _read_table(path: Path) -> LabelTable:
    """Read a BIDS label table; its name is the file's ``seg-`` or ``desc-`` entity."""
    rows = [{key: value for key, value in row.items() if value != "n/a"} for row in read_tsv(path)]
    entities, _ = name_parts(path)
    name = plain_label(entities.get("seg") or entities.get("desc") or "labels")
    try:
        return label_table([{**row, "table": name} for row in rows])
    except LabelError as error:
        msg = f"{path}: {error.finding}"
        raise LabelError(msg, error.cure) from error


def _nothing_found(place: Path, contrasts: tuple[str, ...]) -> InputError:
    names = sorted(path.name + "/" * path.is_dir() for path in place.iterdir() if path.name[0] != ".")
    if not names:
        return InputError(f"The folder {place} is empty; expected scans.", "Check the path.")
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    first = contrasts[0]
    msg = f"No subject with {' or '.join(contrasts)} was found in {place}, which holds {shown}."
    cure = (
        f"Expected one of: sub-01/anat/sub-01_{first}.nii.gz (BIDS); <id>_{first}.nii.gz in one folder; "
        f"subject-1-T1.hdr (iSeg); a datalist.json. Name other contrasts with --contrasts."
    )
    return InputError(msg, cure)
