"""The layout of folders: train/CLASS/**, val/CLASS/**, test/CLASS/**, unlabelled/**, or CLASS/** alone."""

from __future__ import annotations

import difflib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medssl.io.image_items import Fault, ImageItem, class_name, first_names, natural_order
from medssl.io.images import is_image, is_unnamed_dicom

SPLITS: Mapping[str, str] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "unlabelled": "unlabeled",
    "unlabeled": "unlabeled",
    "unlabelled_images": "unlabeled",
    "unlabeled_images": "unlabeled",
}
"""Name of a folder, or text in a manifest, in lower case -> section of a cohort."""

_SYSTEM = frozenset({"__macosx", "@eadir"})  # made by archives and disk stations
_NOTES = frozenset(
    {
        *(".txt", ".md", ".rst", ".pdf", ".html", ".htm", ".doc", ".docx", ".odt", ".log"),
        *(".csv", ".tsv", ".xlsx", ".xls", ".ods", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml"),
        *(".ini", ".db", ".lnk", ".py", ".ipynb", ".sh", ".zip", ".gz", ".tgz", ".tar", ".7z", ".rar"),
    }
)
"""Suffixes in lower case of files beside images that nobody takes for one."""

_NOTE_NAMES = frozenset(
    {"readme", "license", "licence", "copying", "notice", "changelog", "dicomdir", "makefile"}
)
_OUTSIDE = "Copy what the link points to into the folder, or allow what lies outside (--allow-outside)."


@dataclass
class Tree:
    """What was found below a folder.

    Args:
        sections: Section -> its images.
        classes: Section -> the names of its class folders.
        faults: What is wrong.
        ignored: Files and folders that were passed over: hidden ones, those that are no image, second looks.
        passed_over: Those of them that may be images, as names seen from the folder.
        by_folder: Whether folders, not lines of a table, say what belongs where.
    """

    sections: dict[str, list[ImageItem]] = field(default_factory=lambda: defaultdict(list))
    classes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    faults: list[Fault] = field(default_factory=list)
    ignored: int = 0
    passed_over: list[str] = field(default_factory=list)
    by_folder: bool = True


def read_tree(root: Path, *, allow_outside: bool = False) -> Tree:
    """Find the images of a folder by the folders they lie in; nothing is decoded, nothing written.

    Images are known by their suffixes; a file without one is opened to see whether it is DICOM.

    Links are followed to files and folders below the root. A folder is looked at once, so that links which
    lead back to it end there.

    Args:
        root: With folders named as in `SPLITS`, each with a folder a class; or with the folders of the
            classes, which are for training then, and perhaps one of unlabeled images.
        allow_outside: Follow links that leave the root.
    """
    walk = _Walk(root, allow_outside)
    folders = walk.folders(root, loose="")
    known = {name: SPLITS.get(name.casefold()) for name in folders}
    if {"training", "validation", "test"} & set(known.values()):
        _read_splits(walk, known)
    else:
        for name, section in known.items():
            if section is None:
                walk.read_class(root / name, "training")
            else:
                walk.read_plain(root / name, section)
    return walk.tree


def read_plain_folder(root: Path, *, allow_outside: bool = False, prefix: str = "") -> Tree:
    """Find all images below a folder, none of them with a class.

    Args:
        root: The folder.
        allow_outside: Follow links that leave it.
        prefix: Set before the name of each image.
    """
    walk = _Walk(root, allow_outside, prefix)
    walk.read_plain(root, "unlabeled")
    return walk.tree


def _read_splits(walk: _Walk, known: Mapping[str, str | None]) -> None:
    """Read the folders of a root that has split folders."""
    first: dict[str, str] = {}
    for name, section in known.items():
        folder = walk.root / name
        if section is None:
            _note_stray(walk, folder)
        elif section in first:
            msg = f"'{first[section]}' and '{name}' both hold {section} images; expected one folder"
            walk.tree.faults.append(Fault(msg, "Merge them, or remove one."))
        elif section == "unlabeled":
            walk.read_plain(folder, section)
        else:
            for child in walk.folders(folder, loose=f"directly in {name}, in no folder of a class"):
                walk.read_class(folder / child, section)
        if section is not None:
            first.setdefault(section, name)


def _note_stray(walk: _Walk, folder: Path) -> None:
    """Refuse a folder beside the splits that holds images: a split or a class by another name."""
    count = sum(1 for _ in walk.images(folder))
    if not count:
        walk.tree.ignored += 1
        return
    close = difflib.get_close_matches(folder.name.casefold(), SPLITS, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    msg = f"the folder '{folder.name}' with {count} images is no split{hint or ' (train, val, test, unlabelled)'}"
    walk.tree.faults.append(Fault(msg, "Rename stray folders, or move them away."))


class _Walk:
    """Goes through folders, each of them once."""

    def __init__(self, root: Path, allow_outside: bool, prefix: str = "") -> None:
        self.root, self.real_root = root, root.resolve()
        self.allow_outside, self.prefix = allow_outside, prefix
        self.seen: set[tuple[int, int]] = set()
        self.tree = Tree()

    def read_class(self, folder: Path, section: str) -> None:
        """Take all images below a folder as one class."""
        label = class_name(folder.name)
        before = len(self.tree.passed_over)
        found = [self._item(path, label) for path in self.images(folder)]
        if not found:
            others = first_names(self.tree.passed_over[before:])
            msg = f"the class folder '{self._shown(folder)}' holds no image{others and f' that is read, but {others}'}"
            self.tree.faults.append(Fault(msg, "Fill empty class folders, or remove them."))
        self._note_splits_inside(folder, found)
        self.tree.sections[section] += found
        self.tree.classes[section].append(label)

    def _note_splits_inside(self, folder: Path, found: list[ImageItem]) -> None:
        """Refuse CLASS/test/: nobody would see that its images are for testing."""
        depth = len(folder.relative_to(self.root).parts)
        inside = {
            part for item in found for part in item.name.split("/")[depth:-1] if part.casefold() in SPLITS
        }
        for name in natural_order(inside):
            msg = f"the class folder '{self._shown(folder)}' holds a folder '{name}'; expected {name}/{folder.name}"
            self.tree.faults.append(Fault(msg, "Put the folders of the classes into those of the splits."))

    def read_plain(self, folder: Path, section: str) -> None:
        """Take all images below a folder without a class."""
        self.tree.sections[section] += [self._item(path, None) for path in self.images(folder)]

    def folders(self, folder: Path, loose: str) -> list[str]:
        """Return the names of the folders in a folder.

        Args:
            folder: Where to look.
            loose: What is said of images that lie beside them; "" passes them over.
        """
        names, images = [], 0
        for entry in self._entries(folder):
            if _is_folder(entry):
                names.append(entry.name)
            elif loose and _is_image(entry):
                images += 1
            else:
                self._pass_over(folder / entry.name)
        if images:
            cure = "Move each image into the folder of its class."
            self.tree.faults.append(Fault(f"{images} images lie {loose}", cure))
        return names

    def images(self, folder: Path) -> Iterator[Path]:
        """Yield all images below a folder that may be used."""
        for entry in self._entries(folder):
            path = folder / entry.name
            if _is_folder(entry):
                yield from self.images(path)
            elif not _is_image(entry):
                self._pass_over(path)
            elif not entry.is_symlink() or self._may_follow(path):
                yield path

    def _pass_over(self, path: Path) -> None:
        """Count a file that is not used, and keep its name if somebody may take it for an image."""
        self.tree.ignored += 1
        if path.suffix.lower() not in _NOTES and path.name.casefold() not in _NOTE_NAMES:
            self.tree.passed_over.append(self.prefix + self._shown(path))

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """Return what is to be seen in a folder that was not looked at before, in natural order."""
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self.seen:
                self.tree.ignored += 1
                return []
            if folder.is_symlink() and folder != self.root and not self._may_follow(folder):
                return []
            self.seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                found = {entry.name: entry for entry in entries}
        except OSError as error:
            msg = f"'{self._shown(folder)}' cannot be looked into ({error.strerror or error})"
            self.tree.faults.append(Fault(msg, "Change its permissions."))
            return []
        visible = [name for name in found if name[0] != "." and name.casefold() not in _SYSTEM]
        self.tree.ignored += len(found) - len(visible)
        return [found[name] for name in natural_order(self._readable(visible, folder))]

    def _readable(self, names: list[str], folder: Path) -> list[str]:
        """Leave out names that no table could hold, and say so."""
        wrong = [name for name in names if any("\ud800" <= letter <= "\udfff" for letter in name)]
        if wrong:
            msg = (
                f"{len(wrong)} names in '{ascii(self._shown(folder))[1:-1]}' are no UTF-8, first {wrong[0]!a}"
            )
            self.tree.faults.append(Fault(msg, "Rename them, for example with convmv -f latin1 -t utf8."))
        return [name for name in names if name not in wrong]

    def _may_follow(self, path: Path) -> bool:
        """Tell whether a link leads to something that is there and that may be used."""
        target = Path(
            os.path.realpath(path)
        )  # unlike Path.resolve, it does not raise where links go in a circle
        if not target.exists():
            self.tree.faults.append(
                Fault(f"the link '{self._shown(path)}' leads nowhere", "Remove or mend it.")
            )
            return False
        if self.allow_outside or self.real_root in target.parents:
            return True
        msg = f"the link '{self._shown(path)}' leaves the folder (it leads to {target})"
        self.tree.faults.append(Fault(msg, _OUTSIDE))
        return False

    def _item(self, path: Path, label: str | None) -> ImageItem:
        return ImageItem(path, self.prefix + self._shown(path), label)

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _is_image(entry: os.DirEntry[str]) -> bool:
    if is_image(entry.name):
        return entry.is_symlink() or entry.is_file()
    return is_unnamed_dicom(Path(entry.path))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
