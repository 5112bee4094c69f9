"""The tables of labels that teachers gave to unlabeled images, as a student reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.errors import DatalistError
from medssl.io.files import read_csv
from medssl.io.image_cohort import class_names, image_entries
from medssl.io.image_items import natural_order

COLUMNS = ("path", "label", "kept")
"""What such a table must have; "kept" is "yes" where the student learns the label."""

_LISTED = 5


@dataclass(frozen=True)
class KeptLabel:
    """A label that a student learns.

    Args:
        label: Name of the class.
        weight: Of the image in the loss.
    """

    label: str
    weight: float = 1.0


def kept_labels(*places: Path | str) -> dict[str, KeptLabel]:
    """Return the labels that are kept. What a later table says of an image replaces what an earlier one said.

    Args:
        places: Tables, or folders with one a round.

    Returns:
        Name of the image -> label; its weight is 1 where the table has none.

    Raises:
        InputError: A file is missing or no table.
        DatalistError: A column is missing.
    """
    kept: dict[str, KeptLabel] = {}
    for table in [table for place in places for table in _tables(Path(place))]:
        rows = read_csv(table)
        missing = [name for name in COLUMNS if rows and name not in rows[0]]
        if missing:
            msg = f"{table.name} lacks the columns {', '.join(missing)}; found {', '.join(rows[0])}."
            raise DatalistError(msg, "Give a table that 'medssl classify distill' wrote.")
        said = {row["path"] for row in rows}
        kept = {name: label for name, label in kept.items() if name not in said}
        kept |= {
            row["path"]: KeptLabel(row["label"], float(row.get("weight", 1)))
            for row in rows
            if row["kept"] == "yes"
        }
    return kept


def _tables(place: Path) -> list[Path]:
    """Return the tables of a folder, round 2 before round 10; a table is one."""
    if not place.is_dir():
        return [place]
    return [place / name for name in natural_order(table.name for table in place.glob("*.csv"))]


def taught_entries(
    dataset_dir: Path | str,
    pseudo_labels: Path | str,
    classes: Sequence[str] | None = None,
    *,
    allow_outside: bool = False,
) -> list[dict[str, Any]]:
    """List the training images of a cohort, and the unlabeled ones whose label was kept, as MONAI items.

    Args:
        dataset_dir: As ``data`` in `read_image_cohort`.
        pseudo_labels: Table or folder, see `kept_labels`. Those of a run of `medssl classify distill` name the images
            as the ``images.csv`` of the run does: give the run as ``dataset_dir``.
        classes: As in `read_image_cohort`.
        allow_outside: As in `read_image_cohort`.

    Returns:
        As `image_entries`.

    Raises:
        DatalistError: A kept label is none of the classes, or its image is not among the unlabeled ones.
    """
    given = {"classes": classes, "allow_outside": allow_outside}
    names = list(classes) if classes is not None else class_names(dataset_dir, allow_outside=allow_outside)
    unlabeled = {entry["name"]: entry for entry in image_entries(dataset_dir, "unlabeled", **given)}
    kept = kept_labels(pseudo_labels)
    wrong = [
        f"{name} ({own.label})"
        for name, own in kept.items()
        if own.label not in names or name not in unlabeled
    ]
    if wrong:
        more = f" and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        msg = (
            f"{Path(pseudo_labels).name} holds labels that do not fit: {', '.join(wrong[:_LISTED])}{more}; expected "
            f"unlabeled images of {Path(dataset_dir).name} and the classes {', '.join(names)}."
        )
        cure = "The tables of a run go with its own images.csv: --dataset_dir RUN --allow_outside True."
        raise DatalistError(msg, cure)
    taught = [
        {**unlabeled[name], "label": names.index(own.label), "weight": own.weight}
        for name, own in kept.items()
    ]
    return [*image_entries(dataset_dir, "training", **given), *taught]
