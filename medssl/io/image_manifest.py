"""The manifest: a CSV file that names every image, its class and its split."""

from __future__ import annotations

import csv
import difflib
import math
import os
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

from medssl.errors import InputError
from medssl.io.files import write_csv
from medssl.io.image_items import Fault, ImageCohort, ImageItem, class_name, require_faultless
from medssl.io.image_tree import SPLITS, Tree

FILE_NAME = "images.csv"
"""A folder with this file in it is read by it."""

COLUMNS = ("path", "label", "split", "group", "weight")
"""Of a manifest; the last two may be missing, others are passed over."""

_NEEDED = COLUMNS[:3]
_SPLIT_OF = {"training": "train", "validation": "val", "test": "test", "unlabeled": "unlabeled"}


def read_manifest(path: Path, *, allow_outside: bool = False) -> Tree:
    """Read a manifest.

    Args:
        path: The CSV file (UTF-8, commas, a header line); paths in it are relative to its folder.
        allow_outside: Accept absolute paths, ``..`` and links that leave the manifest's folder.

    Raises:
        InputError: The file is missing or no such table.
        DatalistError: A column is missing or misspelled.
    """
    rows = _read_rows(path)
    tree = Tree(by_folder=False)
    taken: dict[str, int] = {}
    inside = _Inside(path.parent)
    for number, row in rows:
        where = f"line {number} ({row['path']})"
        section = _section(row, where, tree.faults)
        item = _item(row, inside, where, tree.faults, allow_outside=allow_outside)
        if item.name in taken:
            msg = f"{where} names the same file as line {taken[item.name]}"
            tree.faults.append(Fault(msg, "Leave one line an image."))
        taken.setdefault(item.name, number)
        tree.sections[section].append(item)
    for section in ("training", "validation", "test"):
        tree.classes[section] = sorted({item.label for item in tree.sections[section] if item.label})
    return tree


def listed_folders(path: Path) -> list[Path]:
    """Return the folders that directly hold the images of a manifest, each once; nothing in them is looked at.

    Raises:
        InputError: The file is missing or no such table.
        DatalistError: A column is missing or misspelled.
    """
    names = [_name(row) for _, row in _read_rows(path)]
    return sorted({(path.parent / name).parent for name in names if name})


def write_manifest(path: Path | str, cohort: ImageCohort) -> None:
    """Write a cohort as a manifest that `read_manifest` reads back; paths are relative to its folder.

    The order of the classes is not in it: it belongs to the caller, and to the card of the weights.

    Raises:
        OutputError: The folder cannot be written to.
    """
    folder = Path(path).parent.resolve()
    parents = {item.path.parent for _, item in cohort.placed()}
    seen_from_here = {parent: Path(os.path.relpath(parent.resolve(), folder)) for parent in parents}
    rows = (
        {
            "path": (seen_from_here[item.path.parent] / item.path.name).as_posix(),
            "label": item.label,
            "split": _SPLIT_OF[section],
            "group": item.group,
            "weight": repr(item.weight),
        }
        for section, item in cohort.placed()
    )
    write_csv(path, rows, COLUMNS)


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a manifest with their numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = [(name or "").strip() for name in reader.fieldnames or ()]
            _check_header(header, path)
            reader.fieldnames = header
            return [(reader.line_num, _cells(row)) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} cannot be read as a manifest: {getattr(error, 'strerror', None) or error}."
        raise InputError(msg, "Save it as CSV with commas, in UTF-8.") from error


def _cells(row: Mapping[str | None, object]) -> dict[str, str]:
    """Return the cells of our columns without outer blanks, "" where the line has none."""
    return {name: str(row.get(name) or "").strip() for name in COLUMNS}


def _check_header(header: list[str], path: Path) -> None:
    """Refuse a table that lacks a column, or has one by nearly our name."""
    faults = []
    for name in header:
        close = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.8)
        if name not in COLUMNS and close:
            faults.append(Fault(f"the column '{name}' is unknown; did you mean '{close[0]}'?", "Correct it."))
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        cure = f"The first line must read {','.join(_NEEDED)} (and may go on with {','.join(COLUMNS[3:])})."
        faults.append(Fault(f"no column {', '.join(missing)} among {', '.join(header) or 'none'}", cure))
    require_faultless(faults, path)


def _section(row: Mapping[str, str], where: str, faults: list[Fault]) -> str:
    """Return the section of a line; an image without label is unlabeled."""
    section = SPLITS.get(row["split"].casefold())
    if section is None and (row["split"] or row["label"]):
        msg = f"{where} has the split '{row['split']}'; expected train, val, test or unlabeled"
        faults.append(Fault(msg, "Correct the column 'split'."))
    elif not row["label"] and section in {"validation", "test"}:
        faults.append(Fault(f"{where} has no label, but is for {section}", "Add the label."))
    elif row["label"] and section == "unlabeled":
        msg = f"{where} is unlabeled, but has the label '{row['label']}'"
        faults.append(Fault(msg, "Leave the label empty, or change the split."))
    return section if section and row["label"] else "unlabeled"


def _item(
    row: Mapping[str, str], inside: _Inside, where: str, faults: list[Fault], *, allow_outside: bool
) -> ImageItem:
    """Make an image of a line."""
    name = _name(row)
    path = inside.folder / name
    if not name:
        faults.append(Fault(f"{where} has no path", "Fill the column 'path'."))
    elif not allow_outside and not inside.holds(name):
        cure = "Write paths relative to the manifest, or allow what lies outside (--allow-outside)."
        faults.append(Fault(f"{where} lies outside the manifest's folder", cure))
    elif not path.is_file():
        faults.append(Fault(f"{where} is no file that is there", "Correct the path, or remove the line."))
    weight = _weight(row["weight"])
    if weight is None:
        msg = f"{where} has the weight '{row['weight']}'; expected a number above 0"
        faults.append(Fault(msg, "Correct the column 'weight', or leave it empty."))
    label = class_name(row["label"]) or None
    return ImageItem(path, name, label, row["group"] or None, weight or 1.0)


def _name(row: Mapping[str, str]) -> str:
    """Return the path of a line with forward slashes, "" where it has none."""
    text = row["path"].replace("\\", "/")
    return os.path.normpath(text).replace(os.sep, "/") if text else ""


class _Inside:
    """Tells which paths stay in the manifest's folder, looking at each folder once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.real = folder, os.path.realpath(folder)
        self.known: dict[Path, bool] = {}

    def holds(self, name: str) -> bool:
        """Tell whether a path is relative, goes nowhere up, and is no link to somewhere else."""
        if name.startswith("/") or PureWindowsPath(name).drive or f"{name}/".startswith("../"):
            return False
        path = self.folder / name
        if path.parent not in self.known:
            self.known[path.parent] = self._reaches(path.parent)
        return self.known[path.parent] and (not path.is_symlink() or self._reaches(path))

    def _reaches(self, path: Path) -> bool:
        return f"{os.path.realpath(path)}{os.sep}".startswith(f"{self.real.rstrip(os.sep)}{os.sep}")


def _weight(text: str) -> float | None:
    """Return a weight, or None where the text is none."""
    try:
        weight = float(text) if text else 1.0
    except ValueError:
        return None
    return weight if math.isfinite(weight) and weight > 0 else None
