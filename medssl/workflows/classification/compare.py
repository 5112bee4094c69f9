"""Networks and methods compared over data sets: rank tests, tables, a sentence and a picture from one long table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ConfigError, InputError, OutputError
from medssl.evaluation.ranks import Comparison, compare_treatments
from medssl.io.files import atomic_path, require_writable_folder, write_csv, write_text
from medssl.reporting.classification_figures import plot_critical_difference
from medssl.reporting.figures import figure_to_png
from medssl.workflows.classification.compare_options import (
    BASE,
    BETWEEN,
    METHODS,
    NETWORKS,
    PAIRS,
    TWO,
    CompareOptions,
)
from medssl.workflows.classification.comparison_page import (
    COLUMNS,
    PAIR_COLUMNS,
    comparison_page,
    comparison_row,
    pair_rows,
    sentence_on_many,
    sentence_on_two,
)
from medssl.workflows.classification.results_table import Cell, Finding, ResultRow, read_results

TABLE, PAGE, FINDINGS, FIGURE = "comparison.csv", "comparison.md", "findings.csv", "critical_difference.png"
EACH = "pairs.csv"

MAX_DOUBTS = 5
"""Doubtful names that an error mentions."""

Values = NDArray[np.float64]
Members = Mapping[str, Sequence[tuple[str, str]]]


@dataclass(frozen=True)
class Compared:
    """What the comparison found.

    Args:
        sentence: For people.
        comparison: All numbers.
        findings: What is odd about the table and about the cells used.
        differences: Of two treatments, the first minus the control in each data set that has both.
        files: What was written.
    """

    sentence: str
    comparison: Comparison
    findings: tuple[Finding, ...]
    differences: Values
    files: tuple[Path, ...] = field(default=())


def compare(
    table: Path, out: Path, options: CompareOptions | None = None, *, overwrite: bool = False
) -> Compared:
    """Compare treatments over the data sets of a table of results, and write what was found.

    Writes ``comparison.csv`` (a row a treatment), ``comparison.md`` (sentence, tables, findings),
    ``findings.csv`` and, for three treatments or more, ``pairs.csv`` (a row a pair of treatments) and
    ``critical_difference.png``.

    Args:
        table: See `read_results`.
        out: Folder for the files.
        options: What to compare; networks under "base" by default.
        overwrite: Replace files that are there.

    Raises:
        InputError: The table cannot be used, or too few data sets have all values.
        ConfigError: What is to be compared is not in the table.
        OutputError: The folder holds a comparison already, or cannot be written to.
    """
    chosen = options or CompareOptions()
    require_writable_folder(out)
    if (out / TABLE).exists() and not overwrite:
        msg = f"{out} holds a comparison already."
        raise OutputError(msg, "Choose another folder, or replace it with --overwrite.")
    found = compare_table(table, chosen)
    return Compared(**{**vars(found), "files": _write(out, found, chosen)})


def compare_table(table: Path, options: CompareOptions) -> Compared:
    """Compare treatments over the data sets of a table of results; write nothing.

    Raises:
        InputError: The table cannot be used, or too few data sets have all values.
        ConfigError: What is to be compared is not in the table.
    """
    read = read_results(table)
    rows = _chosen_rows(read.rows, options)
    cells, remarks = _cells(rows, options)
    members = _members(rows, options)
    blocks = list(dict.fromkeys(row.dataset for row in rows))
    values, control = _matrix(cells, blocks, members), _control(members, options)
    try:
        comparison = compare_treatments(
            values, list(members), blocks, control=control, missing=options.missing, alpha=options.alpha
        )
    except InputError as error:
        doubts = [one.text for one in read.findings if one.kind in ("unknown network", "unknown method")]
        raise InputError(" ".join([error.finding, *doubts[:MAX_DOUBTS]]), error.cure) from error
    findings = (*read.findings, *remarks)
    if len(members) > 2:
        return Compared(sentence_on_many(comparison, options), comparison, findings, np.zeros(0))
    differences = _differences(values, list(members), blocks, comparison)
    return Compared(sentence_on_two(comparison, differences, options), comparison, findings, differences)


def _chosen_rows(rows: Sequence[ResultRow], options: CompareOptions) -> list[ResultRow]:
    """Filter by network and family.

    Raises:
        ConfigError: A name is not in the table.
        InputError: No row has a usable value of the metric.
    """
    filters = {"network": options.networks, "family": options.families, "method": options.methods}
    for column, names in filters.items():
        for name in names:
            _require_there(name, {getattr(row, column) for row in rows}, column)
    if all(isnan(row.values.get(options.metric, nan)) for row in rows):
        msg = f"The table has no value of {options.metric} between 0 and 1."
        raise InputError(msg, "Choose another --metric, or divide percentages by 100.")
    return [
        row
        for row in rows
        if (not options.networks or row.network in options.networks)
        and (not options.families or row.family in options.families)
    ]


def _cells(rows: Sequence[ResultRow], options: CompareOptions) -> tuple[dict[Cell, float], list[Finding]]:
    """Average the seeds of every data set, network and method; say where some of them are missing."""
    by_cell: dict[Cell, list[ResultRow]] = defaultdict(list)
    for row in rows:
        by_cell[row.cell].append(row)
    cells, remarks = {}, []
    for cell, some in by_cell.items():
        known = [value for row in some if not isnan(value := _value(row, options))]
        cells[cell] = float(np.mean(known)) if known else nan
        if 0 < len(known) < len(some):
            text = f"{', '.join(cell)}: {options.metric} is the mean of {len(known)} of {len(some)} runs, since the "
            text += "others have no value; such a mean leans high."
            remarks.append(Finding("incomplete mean", tuple(row.line for row in some), text))
    counts = sorted({len(some) for some in by_cell.values()})
    if len(counts) > 1:
        text = f"Cells are means of {counts[0]} to {counts[-1]} runs: not all were repeated equally often."
        remarks.append(Finding("unequal runs", (), text))
    return cells, remarks


def _value(row: ResultRow, options: CompareOptions) -> float:
    lost = row.all_zero and options.failed == "missing"
    return nan if lost else row.values.get(options.metric, nan)


def _members(rows: Sequence[ResultRow], options: CompareOptions) -> Members:
    """Return treatment -> the (network, method) pairs whose mean it is.

    Raises:
        ConfigError: A pair or the method is not in the table.
    """
    pairs = sorted({(row.network, row.method) for row in rows})
    some = [pair for pair in pairs if not options.methods or pair[1] in options.methods]
    if options.analysis == NETWORKS:
        _require_there(options.method, {method for _, method in pairs}, "method")
        return {network: [(network, method)] for network, method in pairs if method == options.method}
    if options.analysis == METHODS:
        networks, methods = (sorted({pair[place] for pair in some}) for place in (0, 1))
        return {method: [(network, method) for network in networks] for method in methods}
    named = {BETWEEN.join(pair): [pair] for pair in some}
    if options.analysis == PAIRS:
        return named
    two = [_plain(name) for name in options.pair]
    for name in two:
        _require_there(name, set(named), "pair")
    return {name: named[name] for name in two}


def _plain(pair: str) -> str:
    """Write a pair as the table's are written, whatever spaces stand around its plus."""
    return BETWEEN.join(part.strip() for part in pair.rsplit(BETWEEN.strip(), 1))


def _require_there(name: str, there: set[str], what: str) -> None:
    if name not in there:
        msg = f"The table has no {what} '{name}'; it has {', '.join(sorted(there))}."
        raise ConfigError(msg, "Name one of these.")


def _matrix(cells: Mapping[Cell, float], blocks: Sequence[str], members: Members) -> Values:
    """Lay the cells out as data sets (rows) by treatments (columns).

    A treatment whose mean lacks a network has no value there: means over other networks cannot be compared.
    """
    values = [
        [np.mean([cells.get((block, *pair), nan) for pair in pairs]) for pairs in members.values()]
        for block in blocks
    ]
    return np.array(values, dtype=np.float64).reshape(len(blocks), len(members))


def _control(members: Members, options: CompareOptions) -> str | None:
    if options.analysis == TWO:
        return list(members)[-1]
    if options.control is None and options.analysis == METHODS and BASE in members:
        return BASE
    return options.control


def _differences(
    values: Values, treatments: Sequence[str], blocks: Sequence[str], found: Comparison
) -> Values:
    """Return the other treatment minus the control over the data sets that count and have both."""
    control = treatments.index(found.control)
    used = values[[place for place, block in enumerate(blocks) if block in found.blocks]]
    difference = used[:, 1 - control] - used[:, control]
    return np.asarray(difference[~np.isnan(difference)])


def _write(out: Path, found: Compared, options: CompareOptions) -> tuple[Path, ...]:
    """Write the files; the table, by which a comparison is known, comes last."""
    comparison = found.comparison
    rows = [
        {"kind": one.kind, "lines": " ".join(map(str, one.lines)), "finding": one.text}
        for one in found.findings
    ]
    write_csv(out / FINDINGS, rows, ("kind", "lines", "finding"))
    for name in (FIGURE, EACH):
        (out / name).unlink(missing_ok=True)
    drawn = len(comparison.treatments) > 2
    if drawn:
        with atomic_path(out / FIGURE) as temporary:
            temporary.write_bytes(_figure(comparison))
        write_csv(out / EACH, pair_rows(comparison, options), PAIR_COLUMNS)
    page = comparison_page(
        comparison, found.sentence, found.differences, found.findings, options, FIGURE if drawn else None
    )
    write_text(out / PAGE, page)
    write_csv(
        out / TABLE, [comparison_row(one, comparison, options) for one in comparison.treatments], COLUMNS
    )
    return tuple(out / name for name in (TABLE, PAGE, FINDINGS, *([EACH, FIGURE] if drawn else [])))


def _figure(found: Comparison) -> bytes:
    names, ranks = zip(*((one.name, one.rank) for one in found.treatments), strict=True)
    figure = plot_critical_difference(names, ranks, found.critical_difference, found.groups, found.control)
    return figure_to_png(figure)
