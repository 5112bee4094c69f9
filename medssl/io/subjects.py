"""A subject, a cohort, and the parts of a file name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import DatalistError
from medssl.labels import LabelTable

DEFAULT_CONTRASTS = ("T1w", "T2w")
"""BIDS suffixes looked for where nobody names others."""

SECTIONS = ("training", "validation", "test", "unlabeled")
"""The lists of a datalist and the fields of a cohort."""

TRANSDUCTIVE = {"transductive": "yes"}
"""Column of a table, and its value, where held-out scans may have been among the unlabeled ones of the training."""


def is_transductive(told: object, trained_on: str) -> bool:
    """Tell whether held-out scans may have been among the unlabeled ones that a model was trained on.

    Args:
        told: "transductive" in its metadata, "Transductive" beside a map; None in those older than these entries.
        trained_on: What the same file says in words, which told it then.
    """
    return "transductive" in trained_on if told is None else bool(told)


_EXTENSIONS = (".nii.gz", ".nii", ".hdr", ".img", ".tsv", ".json")


@dataclass(frozen=True)
class Subject:
    """The files of one subject, or of one of its sessions.

    Args:
        subject: Letters and digits, without "sub-".
        images: One file a contrast, in the order of the contrasts. A contrast that was not found stands
            here under the name it should have; the file does not exist.
        label: Label image, if there is one.
        mask: Brain mask, "none" for no mask at all, or None: the brain is where the first contrast is not 0.
        session: Letters and digits, without "ses-".
        encoding: "table" where the label image holds the values of the cohort's table, "iseg" for the
            raw values of that challenge.
    """

    subject: str
    images: tuple[Path, ...]
    label: Path | None = None
    mask: Path | str | None = None
    session: str | None = None
    encoding: str = "table"

    @property
    def key(self) -> str:
        """Start of every file name of this subject, such as "sub-01" or "sub-01_ses-6mo"."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")


@dataclass(frozen=True)
class Cohort:
    """All subjects of a folder or datalist.

    Args:
        root: Folder that holds the files.
        contrasts: BIDS suffixes in channel order.
        table: What the label values mean.
        training: Subjects whose labels training may see.
        validation: Labeled subjects that choose the checkpoint.
        test: Subjects that nothing but the final evaluation may see.
        unlabeled: Subjects without labels.
        layout: "datalist", "bids", "flat", "iseg" or "files".
    """

    root: Path
    contrasts: tuple[str, ...]
    table: LabelTable
    training: tuple[Subject, ...] = ()
    validation: tuple[Subject, ...] = ()
    test: tuple[Subject, ...] = ()
    unlabeled: tuple[Subject, ...] = ()
    layout: str = "datalist"

    def section(self, name: str) -> tuple[Subject, ...]:
        """Return the subjects of one of `SECTIONS`.

        Raises:
            DatalistError: There is no such section.
        """
        if name not in SECTIONS:
            msg = f"There is no section '{name}' in a cohort; expected one of {', '.join(SECTIONS)}."
            raise DatalistError(msg, "Correct the name.")
        return tuple(getattr(self, name))

    def all(self) -> tuple[Subject, ...]:
        """Return all subjects, section by section."""
        return tuple(subject for _, subject in self.placed())

    def placed(self) -> Iterator[tuple[str, Subject]]:
        """Yield every subject with the name of its section."""
        for name in SECTIONS:
            for subject in self.section(name):
                yield name, subject


def stem(path: Path | str) -> str:
    """Return the file name without its extension (".nii.gz" is one)."""
    name = Path(path).name
    for extension in _EXTENSIONS:
        if name.lower().endswith(extension):
            return name[: -len(extension)]
    return name


def name_parts(path: Path | str) -> tuple[dict[str, str], str]:
    """Split a BIDS file name.

    Returns:
        Its entities, such as {"sub": "01", "ses": "6mo"}, and its suffix, such as "T1w".
    """
    *parts, suffix = stem(path).split("_")
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    return entities, suffix


def plain_label(text: str) -> str:
    """Reduce a name to the letters and digits that BIDS allows in an entity, without "sub-" or "ses-"."""
    return re.sub(r"[^A-Za-z0-9+]", "", re.sub(r"^(sub|ses)-", "", text))


def is_nifti(path: Path) -> bool:
    """Tell by its name whether a visible file is a NIfTI image."""
    return path.name.endswith((".nii.gz", ".nii")) and not path.name.startswith(".")


def only_one(paths: Iterable[Path], key: str, what: str) -> Path | None:
    """Return the single path, or None where there is none.

    Raises:
        DatalistError: There are several, so that somebody has to choose.
    """
    found = sorted(paths)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        msg = f"{key} has {len(found)} files that could be its {what}: {names}; expected one."
        raise DatalistError(msg, "Name the right one in a datalist.json, or move the others away.")
    return found[0] if found else None
