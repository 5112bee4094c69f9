"""Label tables: what each stored label value means. The one place where label numbers stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from medssl.errors import LabelError

UNKNOWN = 255
"""Stored value of a voxel whose label nobody knows; every loss ignores it, no table may hold it."""

NO_MASK = "none"
"""Given in place of a mask: the whole volume counts and background is a class of its own."""

BACKGROUND_IN_MASK = 0.005
"""Share of mask voxels labeled as background from which on background needs a cluster of its own."""

_COMMAND = re.compile(r"^[$@%]|[@%](#|::)")

_PALETTE = (
    "#e6a817",
    "#f4f1e4",
    "#3b82c4",
    "#c2523c",
    "#5aa469",
    "#8e63ad",
    "#d98cb3",
    "#7f8c3a",
    "#4bb3b3",
    "#a8723f",
)


@dataclass(frozen=True)
class Label:
    """One row of a table.

    Args:
        value: Integer stored in label images, 0 to 254.
        name: Full name, such as "gray matter".
        abbreviation: Short name used in file names and columns, such as "GM".
        color: "#rrggbb".
    """

    value: int
    name: str
    abbreviation: str
    color: str


@dataclass(frozen=True)
class LabelTable:
    """Labels in channel order: the background first, then by rising value.

    Args:
        name: Goes into file names as ``_seg-<name>_`` (letters and digits).
        labels: The rows; the background has value 0.

    Raises:
        LabelError: A value or abbreviation occurs twice, 0 is missing, a value is outside 0..254, or a text is
            one that a configuration would evaluate (`is_command`).
    """

    name: str
    labels: tuple[Label, ...]
    _channels: Mapping[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.labels, key=lambda label: label.value))
        texts = (self.name, *(text for row in ordered for text in (row.name, row.abbreviation, row.color)))
        for text in filter(is_command, texts):
            msg = f"Label table '{self.name}' holds the text {text!r}, which a configuration would evaluate. "
            msg += "Begin no name with $, @ or %."
            raise LabelError(msg)
        values = [label.value for label in ordered]
        _require_unique(self.name, "value", values)
        _require_unique(self.name, "abbreviation", [label.abbreviation for label in ordered])
        if not values or values[0] != 0:
            msg = f"Label table '{self.name}' has no row with value 0. Add one for the background."
            raise LabelError(msg)
        if values[-1] >= UNKNOWN:
            msg = (
                f"Label table '{self.name}' holds the value {values[-1]}; expected 0 to {UNKNOWN - 1} "
                f"({UNKNOWN} means unknown). Renumber the labels."
            )
            raise LabelError(msg)
        object.__setattr__(self, "labels", ordered)
        object.__setattr__(self, "_channels", {value: channel for channel, value in enumerate(values)})

    def __len__(self) -> int:
        """Count the labels, background included: the number of network outputs."""
        return len(self.labels)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    @property
    def values(self) -> tuple[int, ...]:
        """Stored values in channel order."""
        return tuple(label.value for label in self.labels)

    @property
    def foreground(self) -> tuple[Label, ...]:
        """All labels but the background."""
        return self.labels[1:]

    @property
    def names_sides(self) -> bool:
        """Whether labels distinguish left and right, so that a mirrored brain would be labeled wrongly."""
        words = {word for row in self.labels for word in re.split(r"\W|_", row.name.lower())}
        return not words.isdisjoint(("left", "right", "lh", "rh"))

    def channel(self, value: int) -> int:
        """Return the network output that belongs to a stored value.

        Raises:
            LabelError: The table has no such value.
        """
        if value not in self._channels:
            msg = f"Label table '{self.name}' has no value {value}; it has {self.describe()}."
            raise LabelError(msg)
        return self._channels[value]

    def describe(self) -> str:
        """Return "0 BG, 1 GM, ..." for messages."""
        return ", ".join(f"{label.value} {label.abbreviation}" for label in self.labels)

    def rows(self) -> list[dict[str, object]]:
        """Return the table as BIDS ``dseg.tsv`` rows (index, name, abbreviation, color)."""
        return [
            {"index": row.value, "name": row.name, "abbreviation": row.abbreviation, "color": row.color}
            for row in self.labels
        ]

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, object]], name: str = "labels") -> LabelTable:
        """Build a table from rows with ``index`` and ``name``; the rest is filled in where missing.

        A background row is added where none has index 0.

        Raises:
            LabelError: A row lacks its index or name, or the index is no whole number.
        """
        labels = [_label_of_row(number, row, name) for number, row in enumerate(rows)]
        if all(label.value != 0 for label in labels):
            labels.append(_BACKGROUND)
        return cls(name, tuple(labels))


def is_command(text: str) -> bool:
    """Tell whether MONAI's configurations would evaluate or look up a text instead of reading it.

    Names that come with the data go into configurations, and "$..." is Python there: whoever made the data must not
    be able to run code where it is used.
    """
    return _COMMAND.search(text) is not None


def label_table(source: str | Iterable[Mapping[str, object]] | LabelTable) -> LabelTable:
    """Return the table that a configuration names ("braintissues") or spells out as rows.

    Raises:
        LabelError: No built-in table has that name.
    """
    if isinstance(source, LabelTable):
        return source
    if isinstance(source, str):
        if source not in BUILT_IN:
            msg = f"There is no label table named '{source}'. Known: {', '.join(BUILT_IN)}; or give its rows."
            raise LabelError(msg)
        return BUILT_IN[source]
    rows = list(source)
    name = str(rows[0].get("table", "labels")) if rows else "labels"
    for table in BUILT_IN.values():
        if LabelTable.from_rows(rows, table.name) == table:
            return table
    return LabelTable.from_rows(rows, name)


def _label_of_row(number: int, row: Mapping[str, object], table: str) -> Label:
    try:
        value = int(str(row["index"]))
        name = _text(row["name"])
    except (KeyError, ValueError) as error:
        msg = (
            f"Label table '{table}', row {number}: found {dict(row)}; expected a whole number under 'index' "
            f"and a text under 'name'. Correct the *_dseg.tsv or the datalist."
        )
        raise LabelError(msg) from error
    abbreviation = _text(row.get("abbreviation") or name)
    color = _text(row.get("color") or ("#000000" if value == 0 else _PALETTE[(value - 1) % len(_PALETTE)]))
    return Label(value, name, abbreviation, color)


def _text(value: object) -> str:
    """Return a text as it was written: MONAI's configuration parser turns every "#" into "::"."""
    return str(value).replace("::", "#")


def _require_unique(table: str, what: str, items: list[object] | list[int] | list[str]) -> None:
    twice = sorted({str(item) for item in items if items.count(item) > 1})
    if twice:
        msg = f"Label table '{table}' has the {what} {', '.join(twice)} twice. Make every {what} unique."
        raise LabelError(msg)


_BACKGROUND = Label(0, "background", "BG", "#000000")

BRAIN_TISSUES = LabelTable(
    "braintissues",
    (
        _BACKGROUND,
        Label(1, "gray matter", "GM", "#e6a817"),
        Label(2, "white matter", "WM", "#f4f1e4"),
        Label(3, "cerebrospinal fluid", "CSF", "#3b82c4"),
    ),
)
"""The default: the order of BIDS' common tissue labels."""

ISEG_RAW = {0: "BG", 10: "CSF", 150: "GM", 250: "WM"}
"""Values in the label files of iSeg-2017 and iSeg-2019 -> abbreviation in `BRAIN_TISSUES`."""

BUILT_IN = {BRAIN_TISSUES.name: BRAIN_TISSUES}
