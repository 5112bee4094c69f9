"""An image and its class, the lists of them, and what is wrong with such lists."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from medssl.errors import DatalistError
from medssl.io.image_facts import PixelFacts
from medssl.io.subjects import SECTIONS
from medssl.labels import UNKNOWN

HELD_OUT = ("validation", "test")
"""Sections that training must not see."""

_LISTED = 10  # faults named in a message
_NAMED = 3  # files named in a remark


@dataclass(frozen=True)
class ImageItem:
    """One image.

    Args:
        path: The file.
        name: Where it lies as seen from the cohort's folder, with forward slashes; every draw hangs on it, so
            that it does not change when the folder moves.
        label: Name of its class; None where nobody has said it.
        group: Patient, lesion or eye: what must not stand on both sides of a split.
        weight: Of its loss.
    """

    path: Path
    name: str
    label: str | None
    group: str | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class ImageCohort:
    """All images of a folder or manifest.

    Args:
        root: Folder of the data.
        classes: Names in the order of the network's outputs.
        training: Images whose labels training may see.
        validation: Labeled images that choose the checkpoint, thresholds and temperature.
        test: Images that nothing but the final evaluation may see.
        unlabeled: Images without labels.
        ignored: Hidden and other files that were passed over.
        passed_over: Names of those of them that may be images.
        facts: What is known of images that were looked at; cohorts that differ in it alone are equal.
    """

    root: Path
    classes: tuple[str, ...]
    training: tuple[ImageItem, ...] = ()
    validation: tuple[ImageItem, ...] = ()
    test: tuple[ImageItem, ...] = ()
    unlabeled: tuple[ImageItem, ...] = ()
    ignored: int = 0
    passed_over: tuple[str, ...] = ()
    facts: Mapping[Path, PixelFacts] = field(default_factory=dict, compare=False, repr=False)

    def section(self, name: str) -> tuple[ImageItem, ...]:
        """Return the images of one of `SECTIONS`.

        Raises:
            DatalistError: There is no such section.
        """
        if name not in SECTIONS:
            msg = f"There is no section '{name}' in a cohort; expected one of {', '.join(SECTIONS)}."
            raise DatalistError(msg, "Correct the name.")
        return tuple(getattr(self, name))

    def placed(self) -> Iterator[tuple[str, ImageItem]]:
        """Yield every image with the name of its section."""
        for name in SECTIONS:
            for item in self.section(name):
                yield name, item

    def number(self, item: ImageItem) -> int:
        """Return the class of an image as the network counts it, `UNKNOWN` where it has none."""
        return UNKNOWN if item.label is None else self.classes.index(item.label)


class Fault(NamedTuple):
    """One thing that is wrong with a folder or manifest of images.

    Args:
        message: What, where, found against expected.
        cure: What to do.
    """

    message: str
    cure: str


def require_faultless(faults: Sequence[Fault], where: Path) -> None:
    """Refuse a cohort with faults, all in one message.

    Raises:
        DatalistError: There is a fault; the first ten are named and the others counted.
    """
    if faults:
        shown = "; ".join(fault.message for fault in faults[:_LISTED])
        more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        found = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        msg = f"{where} has {found}: {shown}{more}."
        raise DatalistError(msg, " ".join(dict.fromkeys(fault.cure for fault in faults)))


def first_names(names: Sequence[str]) -> str:
    """Return the first few names and how many more there are; "" where there is none."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def passed_over_remark(names: Sequence[str]) -> str:
    """Say which files were passed over that may be images, and what to do; "" where there is none."""
    if not names:
        return ""
    found = "1 file was" if len(names) == 1 else f"{len(names)} files were"
    return (
        f"{found} passed over that may be images: {first_names(names)}. Only what has the suffix of a PNG, "
        "JPEG, BMP, TIFF, NPY or DICOM file and lies in a folder of images is read: rename, convert or move it."
    )


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names as people do: "2" before "10", "b" before "C"."""
    return sorted(names, key=_natural)


def class_name(text: str) -> str:
    """Return the name of a class as every file system and table spells it: composed letters, no outer blanks."""
    return unicodedata.normalize("NFC", text).strip()


def _natural(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    parts = re.split(r"(\d+)", name.casefold())
    return [
        (False, 0, part) if place % 2 == 0 else (True, int(part), "") for place, part in enumerate(parts)
    ], name
