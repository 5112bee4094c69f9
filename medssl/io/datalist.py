"""The datalist: a JSON file that names every subject's files and says which of them may do what."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medssl.errors import DatalistError
from medssl.io.files import read_json, write_json
from medssl.io.flat import contrasts_of_files, is_contrast
from medssl.io.subjects import DEFAULT_CONTRASTS, SECTIONS, Cohort, Subject, name_parts, plain_label
from medssl.labels import NO_MASK, LabelTable, is_command, label_table

FILE_NAME = "datalist.json"
"""A folder with this file in it is read by it."""

_TOP_KEYS = (*SECTIONS, "contrasts", "labels", "label_table", "mask")
_ENTRY_KEYS = ("subject", "session", "image", "label", "mask", "encoding")
_LABELED = ("training", "validation")


@dataclass(frozen=True)
class Datalist:
    """What a datalist says.

    Args:
        contrasts: BIDS suffixes in channel order.
        table: The label table, or None where the datalist holds none.
        subjects: Section -> subjects.
    """

    contrasts: tuple[str, ...]
    table: LabelTable | None
    subjects: Mapping[str, tuple[Subject, ...]]


def read_datalist(path: Path, contrasts: tuple[str, ...] | None = None) -> Datalist:
    """Read a datalist.

    Args:
        path: The JSON file; paths in it are relative to its folder.
        contrasts: Contrasts to pick, in channel order. None takes all: those the datalist names, else those
            in the file names of most subjects, else T1w and T2w.

    Raises:
        InputError: The file is missing or no JSON.
        DatalistError: A key is misspelled, an entry lacks what its list needs, or a contrast is unknown.
    """
    try:
        return _parse(read_json(path), path, contrasts)
    except (TypeError, AttributeError) as error:
        msg = f"{path.name} has a value of the wrong kind ({error})."
        raise DatalistError(msg, "Paths are texts; 'image' is a text or a list of texts.") from error


def _parse(content: Any, path: Path, contrasts: tuple[str, ...] | None) -> Datalist:
    if not isinstance(content, dict):
        msg = f"{path.name} holds a {type(content).__name__}; expected an object with {', '.join(SECTIONS)}."
        raise DatalistError(msg, "Write the lists under these keys.")
    _check_keys(content, _TOP_KEYS, path.name)
    entries = {section: _entries(content, section, path) for section in SECTIONS}
    every = [_files(entry, path) for entries_here in entries.values() for entry in entries_here]
    listed = _listed_contrasts(content, every, path)
    wanted = contrasts or listed
    subjects = {
        section: tuple(
            _subject(entry, listed, wanted, f"{path.name}, {section}[{number}]", path.parent)
            for number, entry in enumerate(entries_here)
        )
        for section, entries_here in entries.items()
    }
    default_mask = content.get("mask")
    if default_mask is not None:
        subjects = {name: _with_mask(found, default_mask, path) for name, found in subjects.items()}
    return Datalist(wanted, _table(content), subjects)


def write_datalist(path: Path, cohort: Cohort) -> None:
    """Write a cohort as a datalist that `read_datalist` reads back; paths are relative to its folder.

    Raises:
        OutputError: The folder cannot be written to.
    """
    lists = {
        section: [_entry(subject, path.parent) for subject in cohort.section(section)] for section in SECTIONS
    }
    head = {"contrasts": cohort.contrasts, "label_table": cohort.table.name, "labels": cohort.table.rows()}
    write_json(path, head | lists)


def _entry(subject: Subject, folder: Path) -> dict[str, Any]:
    """Return one subject as it stands in a datalist."""
    found: dict[str, Any] = {"subject": subject.subject}
    if subject.session:
        found["session"] = subject.session
    found["image"] = [_relative(path, folder) for path in subject.images]
    if subject.label is not None:
        found["label"] = _relative(subject.label, folder)
    if subject.mask is not None:
        found["mask"] = NO_MASK if subject.mask == NO_MASK else _relative(Path(subject.mask), folder)
    if subject.encoding != "table":
        found["encoding"] = subject.encoding
    return found


def _relative(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder; a linked file keeps its own name."""
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()


def _entries(content: Mapping[str, Any], section: str, path: Path) -> list[dict[str, Any]]:
    """Return the entries of a list after a look at their keys."""
    entries = content.get(section, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        msg = f"{path.name}: '{section}' is no list of objects."
        raise DatalistError(msg, 'Write [{"subject": "01", "image": ["...", "..."]}, ...].')
    for number, entry in enumerate(entries):
        where = f"{path.name}, {section}[{number}]"
        _check_entry(entry, section, where)
    return entries


def _check_entry(entry: Mapping[str, Any], section: str, where: str) -> None:
    """Refuse an entry that lacks what its list needs."""
    _check_keys(entry, _ENTRY_KEYS, where)
    needed = ("subject", "image", "label") if section in _LABELED else ("subject", "image")
    for key in needed:
        if entry.get(key) in (None, "", []):
            msg = f"{where}: '{key}' is missing; entries of '{section}' need {', '.join(needed)}."
            raise DatalistError(msg, "Add it, or move a scan without label to 'unlabeled'.")
    if section == "unlabeled" and entry.get("label"):
        msg = f"{where}: an entry of 'unlabeled' has a label ({entry['label']}); expected none."
        raise DatalistError(msg, "Remove 'label', or move the entry to 'training' or 'test'.")


def _files(entry: Mapping[str, Any], path: Path) -> list[Path]:
    image = entry["image"]
    names = [image] if isinstance(image, str) else image
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        msg = f"'image' of subject {entry['subject']} is {image}"
        raise TypeError(msg)
    return [path.parent / str(name) for name in names]


def _listed_contrasts(content: Mapping[str, Any], every: list[list[Path]], path: Path) -> tuple[str, ...]:
    """Return which contrast each place of an entry's "image" holds."""
    named = content.get("contrasts")
    if named is not None:
        if (
            not isinstance(named, list)
            or not named
            or len(set(map(str, named))) < len(named)
            or any(is_command(str(name)) for name in named)
        ):
            msg = f"{path.name}: 'contrasts' is {named!r}; expected a list of different BIDS suffixes."
            raise DatalistError(msg, 'Write for example ["T1w", "T2w"].')
        return tuple(str(name) for name in named)
    inferred = Counter(found for files in every if (found := contrasts_of_files(files)))
    if inferred:
        return inferred.most_common(1)[0][0]
    return DEFAULT_CONTRASTS[: len(every[0])] if every else DEFAULT_CONTRASTS


def _subject(
    entry: Mapping[str, Any], listed: tuple[str, ...], wanted: tuple[str, ...], where: str, root: Path
) -> Subject:
    """Make a subject of an entry."""
    encoding = entry.get("encoding", "table")
    if encoding not in ("table", "iseg"):
        msg = f'{where}: \'encoding\' is {encoding!r}; expected "table" or "iseg".'
        raise DatalistError(msg, "Correct or remove it.")
    label, mask, session = entry.get("label"), entry.get("mask"), entry.get("session")
    return Subject(
        subject=plain_label(str(entry["subject"])),
        session=plain_label(str(session)) if session else None,
        images=_images(_files(entry, root / FILE_NAME), listed, wanted, where),
        label=root / label if label else None,
        mask=root / mask if mask and mask != NO_MASK else mask,
        encoding=encoding,
    )


def _images(
    files: list[Path], listed: tuple[str, ...], wanted: tuple[str, ...], where: str
) -> tuple[Path, ...]:
    """Pick the wanted contrasts: by the suffixes of the names where all have one, else by their place."""
    by_suffix = {name_parts(file)[1]: file for file in files}
    if len(by_suffix) == len(files) and all(is_contrast(suffix) for suffix in by_suffix):
        return tuple(by_suffix.get(name) or _missing(files[0], name) for name in wanted)
    unknown = [name for name in wanted if name not in listed]
    if unknown or len(files) != len(listed):
        msg = f"{where}: 'image' has {len(files)} files for the contrasts {', '.join(listed)}; "
        msg += f"expected one each for {', '.join(wanted)}."
        raise DatalistError(msg, "List one file a contrast, and name their order under 'contrasts'.")
    return tuple(files[listed.index(name)] for name in wanted)


def _missing(file: Path, contrast: str) -> Path:
    """Return the name that a missing contrast should have."""
    extension = ".nii" if file.name.endswith(".nii") else ".nii.gz"
    return file.with_name(f"{file.name.split('.')[0].rpartition('_')[0]}_{contrast}{extension}")


def _with_mask(subjects: Iterable[Subject], mask: object, path: Path) -> tuple[Subject, ...]:
    """Give every subject without a mask of its own the default of the datalist."""
    if mask != NO_MASK:
        msg = f"{path.name}: 'mask' for all subjects is {mask!r}; expected \"none\"."
        raise DatalistError(msg, "Write mask files into the entries of their subjects.")
    return tuple(subject if subject.mask else replace(subject, mask=NO_MASK) for subject in subjects)


def _table(content: Mapping[str, Any]) -> LabelTable | None:
    """Return the label table that the datalist spells out or names."""
    rows, name = content.get("labels"), content.get("label_table")
    if rows is None:
        return label_table(str(name)) if name else None
    if isinstance(rows, dict):  # the Decathlon's way: {"0": "background", ...}
        rows = [{"index": index, "name": text} for index, text in rows.items()]
    return label_table([{**row, "table": str(name or "labels")} for row in rows])


def _check_keys(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse a key that is nearly one of ours; others may stand there for other programs."""
    for key in entry:
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
        if key not in known and close:
            msg = f"{where}: the key '{key}' is unknown; did you mean '{close[0]}'?"
            raise DatalistError(msg, "Correct it.")
