"""The long table of results: one row per data set, network, method and seed, looked through before it is used.

What is odd about a value becomes a finding with its line; no value is changed. A value outside [0, 1] counts as
missing, for its own measure only.
"""

from __future__ import annotations

import csv
import difflib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

from medssl.errors import InputError

KEYS = ("dataset", "network", "method")
SCORES = ("accuracy", "precision", "recall", "f1")
STATES = ("", "ok", "failed")

METHODS = (
    "base",
    "plain_distillation",
    "data_distillation",
    "model_distillation",
    "model_data_distillation",
    "fixmatch",
    "mixmatch",
)
"""Methods of the study; others are allowed."""

STUDY_NETWORKS = (
    "ResNet50",
    "ResNet101",
    "EfficientNet",
    "FBNet",
    "MixNet",
    "MNasNet",
    "MobileNet",
    "ResNet18",
    "SqueezeNet",
    "ShuffleNet",
    "ResNet18 quantized",
    "ResNet50 quantized",
)
"""Networks of the study; others are allowed."""

MAX_SHOWN = 20
"""Problems named in one error."""

F1_TOLERANCE = 0.002
"""How far a printed F1 may be from that of its printed precision and recall."""

BINARY_SHARE = 0.8
"""Share of a data set's rows with F1 = 2PR/(P + R) from which it is taken as one of two classes."""

LEAST_BINARY_ROWS = 5
ALIKE = 0.8

ALIKE_LETTERS = 0.85
"""Similarity of the letters of two names from which one may be a slip in writing the other."""

RELATIVES = (
    *("resnext", "resnest", "mobilenext", "squeezenext", "nasnet", "pnasnet"),
    *("edgenextsmall", "edgenextxxsmall"),
)
"""What the letters of other networks begin with that only look like a slip in writing one of ours."""

Cell = tuple[str, str, str]


@dataclass(frozen=True)
class ResultRow:
    """One row of the table.

    Args:
        line: Where it stands in the file.
        dataset: Of the images.
        family: Of the network; may be empty.
        network: Its name.
        method: Its training.
        seed: May be empty.
        values: Measure -> value in [0, 1], NaN where missing.
        failed: The row says that its run failed: all its values are missing, whatever stands there.
    """

    line: int
    dataset: str
    family: str
    network: str
    method: str
    seed: str
    values: Mapping[str, float]
    failed: bool

    @property
    def cell(self) -> Cell:
        """What its seeds are averaged by."""
        return self.dataset, self.network, self.method

    @property
    def all_zero(self) -> bool:
        """Whether precision, recall and F1 are all 0: a failed run, or a network that found one class only."""
        known = [self.values[name] for name in SCORES[1:] if name in self.values]
        return len(known) == 3 and not any(known)

    def __str__(self) -> str:
        seed = f", seed {self.seed}" if self.seed else ""
        return f"{self.dataset}, {self.network}, {self.method}{seed}"


@dataclass(frozen=True)
class Finding:
    """Something odd about the table.

    Args:
        kind: A word or two.
        lines: Where it stands.
        text: What is odd, and what becomes of it.
    """

    kind: str
    lines: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class ResultTable:
    """The rows and what is odd about them.

    Args:
        rows: In the order of the file.
        findings: By line.
    """

    rows: tuple[ResultRow, ...]
    findings: tuple[Finding, ...]


def read_results(path: Path, known_networks: Collection[str] = STUDY_NETWORKS) -> ResultTable:
    """Read a table of results and look for what is odd about it.

    Args:
        path: CSV file (UTF-8, commas, lines end in CRLF or LF) with the columns dataset, network, method and one
            or more of accuracy, precision, recall, f1; family, seed, status ("ok" or "failed") and note may be
            there too.
        known_networks: Names that are surely right, beside those that can be built.

    Raises:
        InputError: The file is missing or no such table; all its faults are named at once.
    """
    lines, header = _read(path)
    _require_columns(path, header)
    faults: list[str] = []
    rows = [_row(line, dict(zip(header, cells, strict=True)), faults) for line, cells in lines]
    _require_faultless(path, faults)
    findings = [
        finding
        for look in (
            _out_of_range,
            _failed,
            _all_zero,
            _contradictions,
            _duplicates,
            _binary,
            lambda some: _networks(some, known_networks),
            lambda some: _names(some, "method", METHODS),
        )
        for finding in look(rows)
    ]
    kept = tuple(_without_bad_values(row) for row in rows)
    return ResultTable(kept, tuple(sorted(findings, key=lambda finding: finding.lines)))


# ---------------------------------------------------------------------------------------------- reading


def _read(path: Path) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Return the rows with their line numbers, and the header in small letters."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    except OSError as error:
        msg = f"Cannot read {path}: {error.strerror or error}."
        raise InputError(msg, "Check the path and its permissions.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} is no comma-separated table in UTF-8: {error}."
        raise InputError(msg, "Save it as CSV (UTF-8).") from error
    if len(lines) < 2:
        msg = f"{path} holds {len(lines)} lines; expected a header line and results."
        raise InputError(msg, "Write one row per data set, network and method.")
    header = [name.lower() for name in lines[0][1]]
    ragged = [f"line {line}: {len(cells)} cells" for line, cells in lines[1:] if len(cells) != len(header)]
    if ragged:
        msg = f"{path} is ragged; the header has {len(header)} cells, but {_listed(ragged)}."
        raise InputError(msg, "Quote cells that hold a comma.")
    return lines[1:], header


def _require_columns(path: Path, header: Sequence[str]) -> None:
    missing = [name for name in KEYS if name not in header]
    twice = [name for name, n in Counter(header).items() if n > 1]
    if missing or twice or not set(SCORES) & set(header):
        msg = f"{path} has the columns {', '.join(header)}; expected {', '.join(KEYS)} and at least one of "
        msg += f"{', '.join(SCORES)}, each once, separated by commas."
        raise InputError(msg, "Name the columns so.")


def _require_faultless(path: Path, faults: Sequence[str]) -> None:
    if faults:
        msg = f"{path} cannot be used: {_listed(faults)}."
        raise InputError(msg, "Correct these cells; leave a cell empty where there is no value.")


def _row(line: int, cells: Mapping[str, str], faults: list[str]) -> ResultRow:
    """Read one row; what cannot be read goes to the faults."""
    faults += [f"line {line}: no {name}" for name in KEYS if not cells[name]]
    state = cells.get("status", "").lower()
    if state not in STATES:
        faults.append(f"line {line}: status is '{cells['status']}', not ok or failed")
    values = {name: _number(line, name, cells[name], faults) for name in SCORES if name in cells}
    return ResultRow(
        line=line,
        dataset=cells["dataset"],
        family=cells.get("family", ""),
        network=cells["network"],
        method=cells["method"],
        seed=cells.get("seed", ""),
        values=values,
        failed=state == "failed",
    )


def _number(line: int, name: str, text: str, faults: list[str]) -> float:
    if text.lower() in ("", "n/a", "nan"):
        return nan
    try:
        return float(text)
    except ValueError:
        faults.append(f"line {line}: {name} is '{text}', not a number")
        return nan


def _without_bad_values(row: ResultRow) -> ResultRow:
    """Make values that cannot be used missing; the findings name them."""
    usable = {name: nan if row.failed or not 0 <= value <= 1 else value for name, value in row.values.items()}
    return ResultRow(**{**vars(row), "values": usable})


# --------------------------------------------------------------------------------------- looking through


def _out_of_range(rows: Iterable[ResultRow]) -> list[Finding]:
    found = []
    for row in rows:
        bad = [
            f"{name} {value:g}" for name, value in row.values.items() if not (isnan(value) or 0 <= value <= 1)
        ]
        if bad:
            text = f"{row}: {', '.join(bad)} is outside [0, 1] and counts as missing."
            if any(1 < value <= 100 for value in row.values.values()):
                text += " Was it given in percent?"
            found.append(Finding("out of range", (row.line,), text))
    return found


def _failed(rows: Iterable[ResultRow]) -> list[Finding]:
    text = "the run failed; all its values count as missing, not as 0."
    return [Finding("failed run", (row.line,), f"{row}: {text}") for row in rows if row.failed]


def _all_zero(rows: Iterable[ResultRow]) -> list[Finding]:
    text = "precision, recall and F1 are 0: a failed run, or a network that found one class only."
    return [
        Finding("all zero", (row.line,), f"{row}: {text}") for row in rows if row.all_zero and not row.failed
    ]


def _contradictions(rows: Iterable[ResultRow]) -> list[Finding]:
    """Find values that cannot belong to one confusion matrix."""
    found = []
    for row in rows:
        precision, recall, f1 = (row.values.get(name, nan) for name in SCORES[1:])
        if precision == 0 and f1 > 0:
            text = f"{row}: precision is 0, but F1 is {f1:g}."
            found.append(Finding("contradiction", (row.line,), text))
        if f1 == 0 and recall > 0:
            text = f"{row}: F1 is 0, but recall is {recall:g}."
            found.append(Finding("contradiction", (row.line,), text))
    return found


def _duplicates(rows: Iterable[ResultRow]) -> list[Finding]:
    groups = defaultdict(list)
    for row in rows:
        groups[*row.cell, row.seed].append(row)
    return [
        Finding(
            "duplicate",
            tuple(row.line for row in some),
            f"{some[0]} stands {len(some)} times; the mean counts.",
        )
        for some in groups.values()
        if len(some) > 1
    ]


def _binary(rows: Iterable[ResultRow]) -> list[Finding]:
    """Find rows whose F1 is not that of their precision and recall in data sets where it mostly is.

    That it mostly is tells a data set of two classes, scored by one of them; macro means do not obey it.
    """
    by_dataset = defaultdict(list)
    for row in rows:
        gap = _f1_gap(row)
        if not isnan(gap):
            by_dataset[row.dataset].append((row, gap))
    found = []
    for dataset, pairs in by_dataset.items():
        fitting = sum(gap <= F1_TOLERANCE for _, gap in pairs)
        if len(pairs) < LEAST_BINARY_ROWS or fitting < BINARY_SHARE * len(pairs):
            continue
        text = f"is not that of its precision and recall, as in the other rows of {dataset}"
        found += [
            Finding("F1 does not fit", (row.line,), f"{row}: F1 {text} (off by {gap:.3f}).")
            for row, gap in pairs
            if gap > F1_TOLERANCE
        ]
    return found


def _f1_gap(row: ResultRow) -> float:
    """Distance of F1 from 2PR/(P + R); NaN where they are missing, 0 or out of range."""
    precision, recall, f1 = (row.values.get(name, nan) for name in SCORES[1:])
    if not (0 < precision <= 1 and 0 < recall <= 1 and 0 < f1 <= 1):
        return nan
    return abs(f1 - 2 * precision * recall / (precision + recall))


def _networks(rows: Sequence[ResultRow], known: Collection[str]) -> list[Finding]:
    """Find names that only some data sets lack, see `_names`, and those that look like one that can be built.

    A table may well compare networks of others: names that look like none of ours are not told.
    """
    from medssl.networks.compact import ALIASES, NETWORKS  # noqa: PLC0415 (brings torch)

    found = _names(rows, "network", known)
    told = {line for one in found for line in one.lines}
    lines = defaultdict(list)
    for row in rows:
        lines[row.network].append(row.line)
    for name, places in lines.items():
        meant = None if told & {*places} else _meant(name, (*known, *NETWORKS, *ALIASES))
        if meant:
            text = f"The network '{name}' is none that medssl knows, but looks like '{meant}'; "
            found.append(Finding("unknown network", tuple(places), text + "it counts as one of its own."))
    return found


def _meant(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a name is a slip of; None where it is known itself or looks like none."""
    spelled: dict[str, str] = {}
    for other in known:
        spelled.setdefault(_plain(other), other)
    plain = _plain(name)
    slips = [other for other in spelled if plain not in spelled and _is_slip(plain, other)]
    close = difflib.get_close_matches(plain, slips, n=1, cutoff=0)
    return spelled[close[0]] if close else None


def _is_slip(name: str, other: str) -> bool:
    """Tell whether a plain name looks like a slip in writing another: a digit or letters too few, too many, wrong.

    Another number is another size (ResNet34); what stands before or after all letters of the other, or another last
    letter, makes a variant (SE-ResNet50, MixNet-S). These are networks of their own.
    """
    letters, number = _parted(name)
    other_letters, other_number = _parted(other)
    if letters == other_letters:
        return _lacks_one(number, other_number) or _lacks_one(other_number, number)
    variant = letters.startswith(other_letters) or letters.endswith(other_letters)
    if (
        number != other_number
        or variant
        or letters[:-1] == other_letters[:-1]
        or letters.startswith(RELATIVES)
    ):
        return False
    return difflib.SequenceMatcher(None, letters, other_letters).ratio() >= ALIKE_LETTERS


def _parted(name: str) -> tuple[str, str]:
    """Return the letters and the digits of a plain name."""
    letters = "".join(letter for letter in name if not letter.isdigit())
    return letters, "".join(letter for letter in name if letter.isdigit())


def _lacks_one(short: str, long: str) -> bool:
    return any(short == long[:place] + long[place + 1 :] for place in range(len(long)))


def _names(rows: Sequence[ResultRow], column: str, known: Collection[str]) -> list[Finding]:
    """Find names that some data sets lack and that look like another one, absent where they stand.

    A name that every data set has is somebody's own way to write it, and no slip.
    """
    lines, places = defaultdict(list), defaultdict(set)
    for row in rows:
        name = getattr(row, column)
        lines[name].append(row.line)
        places[name].add((row.dataset, row.method if column == "network" else row.network))
    datasets = {row.dataset for row in rows}
    suspects = [
        name for name in lines if name not in known and {dataset for dataset, _ in places[name]} != datasets
    ]
    found = []
    for name in suspects:
        others = {*known, *(other for other in lines if len(places[other]) > len(places[name]))}
        meant = _closest(name, [other for other in others if not places[other] & places[name]])
        if meant:
            text = f"The {column} '{name}' looks like '{meant}', which has no row there; it counts as one of its own."
            found.append(Finding(f"unknown {column}", tuple(lines[name]), text))
    return found


def _closest(name: str, others: Sequence[str]) -> str | None:
    spelled = {_plain(other): other for other in sorted(others)}
    close = difflib.get_close_matches(_plain(name), spelled, n=1, cutoff=ALIKE)
    return spelled[close[0]] if close else None


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _listed(faults: Sequence[str]) -> str:
    more = f"; and {len(faults) - MAX_SHOWN} more" if len(faults) > MAX_SHOWN else ""
    return "; ".join(faults[:MAX_SHOWN]) + more
