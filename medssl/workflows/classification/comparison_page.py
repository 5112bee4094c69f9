"""What a comparison found: in a sentence, in a table for programs, and on a page for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.evaluation.bootstrap import mean_interval
from medssl.evaluation.ranks import LEAST_BLOCKS, Comparison, Treatment, paired_t
from medssl.reporting.classification_figures import MAX_RANKED
from medssl.workflows.classification.compare_options import METHODS, NETWORKS, PAIRS, TWO, CompareOptions
from medssl.workflows.classification.results_table import Finding

COLUMNS = (
    "treatment",
    "mean_rank",
    "mean",
    "difference_points",
    "median_difference_points",
    "wins",
    "ties",
    "losses",
    "z",
    "p",
    "p_holm",
    "wilcoxon_n",
    "wilcoxon_zeros",
    "wilcoxon_exact",
    "wilcoxon_p",
    "wilcoxon_p_holm",
    "control",
    "control_post_hoc",
    "n_blocks",
    "k",
    "correction",
    "missing",
    "failed",
    "metric",
    "friedman_chi2",
    "friedman_p",
    "iman_davenport_f",
    "iman_davenport_p",
    "critical_difference",
)
"""Of ``comparison.csv``. What does not apply, such as p of the control, is empty."""

PAIR_COLUMNS = (
    *("first", "second", "mean_rank_first", "mean_rank_second", "z", "p", "p_holm", "comparisons"),
    *("n_blocks", "k", "correction", "missing", "failed", "metric"),
)
"""Of ``pairs.csv``."""

LEAST_P = 1e-16
"""A smaller p is printed as "<1e-16"."""

MAX_NAMED = 12
"""Treatments a sentence names."""

MAX_PAIRS = 15
"""Pairs that a page shows; ``pairs.csv`` holds all."""

Values = NDArray[np.float64]


def sentence_on_many(found: Comparison, options: CompareOptions) -> str:
    """Say the result for three treatments or more; "not significantly different" is not "equivalent"."""
    best, friedman = found.treatments[0], found.friedman
    p = 1.0 if friedman is None or isnan(friedman.f_p) else friedman.f_p
    first = (
        f"Over {len(found.blocks)} data sets, {best.name} has the best mean rank in {options.metric} "
        f"({best.rank:.2f}, with {len(found.treatments)} treatments)."
    )
    parts = [first]
    if p > options.alpha:
        parts.append(
            f"The treatments do not differ significantly (Iman-Davenport p {_is(p)}), which does not show that they "
            f"are equivalent."
        )
        return " ".join(parts + _post_hoc(found))
    parts.append(f"The treatments differ (Iman-Davenport p {_is(p)}).")
    others = [one for one in found.treatments if one.name != found.control]
    told = [one for one in others if one.p_holm <= options.alpha]
    for word, some in (
        ("better", [one for one in told if one.z < 0]),
        ("worse", [one for one in told if one.z > 0]),
    ):
        if some:
            parts.append(f"Significantly {word} than {found.control} (Holm): {_named(some)}.")
    rest = [one for one in others if one not in told]
    if rest:
        parts.append(
            f"Not significantly different from {found.control}, which does not show that they are equivalent to it: "
            f"{_named(rest)}."
        )
    return " ".join(parts + _post_hoc(found))


def sentence_on_two(found: Comparison, differences: Values, options: CompareOptions) -> str:
    """Say the result for two treatments.

    Args:
        found: The comparison.
        differences: The one that is not the control minus the control, a data set each.
        options: What was compared.

    Raises:
        InputError: Fewer than two data sets have both values.
    """
    one = next(row for row in found.treatments if row.name != found.control)
    if len(differences) < 2 or one.wilcoxon is None or one.effect is None:
        msg = f"{one.name} and {found.control} share {len(differences)} data sets with a value of {options.metric}."
        raise InputError(msg, "At least 2 are needed: add results.")
    low, high = mean_interval(100 * differences)
    effect, test = one.effect, one.wilcoxon
    first = (
        f"Over {len(differences)} data sets, {one.name} against {found.control}: {effect.mean:+.1f} points of "
        f"{options.metric} in the mean (95 % interval {low:+.1f} to {high:+.1f}, median {effect.median:+.1f}), better "
        f"on {effect.wins}, equal on {effect.ties}, worse on {effect.losses}; {'exact ' if test.exact else ''}"
        f"signed-rank p {_is(test.p)}."
    )
    second = "They do not differ significantly, which does not show that they are equivalent."
    if test.p <= options.alpha:
        second = "They differ significantly."
    return " ".join([first, second, *_post_hoc(found)])


def comparison_row(one: Treatment, found: Comparison, options: CompareOptions) -> dict[str, object]:
    """Return a treatment as a row of `COLUMNS`, with what its p-values rest on."""
    test, effect, friedman = one.wilcoxon, one.effect, found.friedman
    row: dict[str, object] = {
        "treatment": one.name,
        "mean_rank": one.rank,
        "mean": one.mean,
        "z": one.z,
        "p": one.p,
        "p_holm": one.p_holm,
        "wilcoxon_p_holm": one.wilcoxon_holm,
        "control": found.control,
        "control_post_hoc": found.post_hoc,
        "n_blocks": len(found.blocks),
        "k": len(found.treatments),
        "correction": "holm",
        "missing": found.missing,
        "failed": options.failed,
        "metric": options.metric,
        "critical_difference": found.critical_difference,
    }
    if effect is not None:
        row |= {"difference_points": effect.mean, "median_difference_points": effect.median}
        row |= {"wins": effect.wins, "ties": effect.ties, "losses": effect.losses}
    if test is not None:
        row |= {"wilcoxon_n": test.n, "wilcoxon_zeros": test.zeros}
        row |= {"wilcoxon_exact": test.exact, "wilcoxon_p": test.p}
    if friedman is not None:
        row |= {"friedman_chi2": friedman.chi2, "friedman_p": friedman.p}
        row |= {"iman_davenport_f": friedman.f, "iman_davenport_p": friedman.f_p}
    return {name: value for name, value in row.items() if not (isinstance(value, float) and isnan(value))}


def pair_rows(found: Comparison, options: CompareOptions) -> list[dict[str, object]]:
    """Return the rows of ``pairs.csv``, the smallest p first."""
    ranks = {one.name: one.rank for one in found.treatments}
    pairs = found.pairs
    beside = {
        "comparisons": len(pairs),
        "n_blocks": len(found.blocks),
        "k": len(ranks),
        "correction": "holm",
        "missing": found.missing,
        "failed": options.failed,
        "metric": options.metric,
    }
    return [
        {**vars(one), "mean_rank_first": ranks[one.first], "mean_rank_second": ranks[one.second], **beside}
        for one in pairs
    ]


def comparison_page(
    found: Comparison,
    sentence: str,
    differences: Values,
    findings: Sequence[Finding],
    options: CompareOptions,
    figure: str | None,
) -> str:
    """Write everything as Markdown.

    Args:
        found: The comparison.
        sentence: Its result.
        differences: Of two treatments, a data set each.
        findings: What is odd about the table.
        options: What was compared.
        figure: Name of the critical-difference diagram beside the page; None for two treatments.
    """
    many = figure is not None
    parts = [f"# {_title(found, options)}", sentence, _protocol(found, options), *_warnings(found)]
    parts.append(_friedman_line(found) if many else _information(differences))
    heads = [
        "treatment",
        "mean rank",
        f"mean {options.metric}",
        "difference, points",
        "median",
        "wins/ties/losses",
    ]
    heads += ["z", "p", "p, Holm"] if many else []
    heads += ["signed-rank p", "signed-rank p, Holm"]
    parts.append(_markdown(heads, [_cells(one, many) for one in found.treatments]))
    if many:
        shown = f" The {MAX_RANKED} best are shown." if len(found.treatments) > MAX_RANKED else ""
        parts.append(f"![Mean ranks and the critical difference]({figure})")
        parts.append(
            f"Mean ranks further apart than {found.critical_difference:.2f} differ by Nemenyi's test of all pairs at "
            f"{found.alpha:g}; a bar joins those it does not tell apart.{shown}"
        )
        parts += _pairs(found)
    parts += ["## Findings in the table", _findings(findings)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(found: Comparison, options: CompareOptions) -> str:
    first = next(one.name for one in found.treatments if one.name != found.control)
    return {
        NETWORKS: f"Networks under {options.method}",
        PAIRS: "All pairs of network and method",
        METHODS: "Methods, each the mean over its networks",
        TWO: f"{first} against {found.control}",
    }[options.analysis]


def _protocol(found: Comparison, options: CompareOptions) -> str:
    """Return what has to stand beside every p-value."""
    picked = " (picked post hoc)" if found.post_hoc else ""
    m = len(found.treatments) - 1
    return (
        f"N = {len(found.blocks)} data sets, k = {len(found.treatments)}, metric {options.metric}, control "
        f"{found.control}{picked}, Holm over {m} comparison{'s' if m > 1 else ''}, missing values: {found.missing}, "
        f"all-zero rows: {options.failed}; seeds were averaged first."
    )


def _warnings(found: Comparison) -> list[str]:
    """Say what weakens the tests."""
    n, texts = len(found.blocks), []
    if n < LEAST_BLOCKS:
        texts.append(
            f"**Note.** With {n} data sets the exact two-sided signed-rank p cannot fall below {2 / 2**n:g}, so never "
            f"below .05, however large the difference."
        )
    if found.dropped:
        texts.append(f"**Note.** Data sets left out, since a value is missing: {_lacking(found.dropped)}.")
    if found.incomplete:
        texts.append(f"**Note.** Ranked last, since the value is missing: {_lacking(found.incomplete)}.")
    return texts


def _lacking(blocks: Mapping[str, Sequence[str]]) -> str:
    parts = [
        f"{block} ({', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''})"
        for block, names in blocks.items()
    ]
    return "; ".join(parts)


def _friedman_line(found: Comparison) -> str:
    friedman = found.friedman
    if friedman is None or isnan(friedman.chi2):
        return "All treatments tie in every data set."
    k, n = friedman.k, friedman.n
    return (
        f"Friedman, corrected for ties: chi2 = {friedman.chi2:.3f} with {k - 1} degrees of freedom, p "
        f"{_is(friedman.p)}. Iman-Davenport: F = {friedman.f:.3f} with {k - 1} and {(k - 1) * (n - 1)}, p "
        f"{_is(friedman.f_p)}."
    )


def _information(differences: Values) -> str:
    """Return the t-test of two treatments, for readers who ask for it."""
    shapiro, t = paired_t(differences)
    if isnan(t):
        return ""
    return f"For information only: paired t-test p {_is(t)}; Shapiro-Wilk test of the differences p {_is(shapiro)}."


def _pairs(found: Comparison) -> list[str]:
    """Return the table of all pairs, whose p no choice of a control made smaller."""
    pairs = found.pairs
    ranks = {one.name: one.rank for one in found.treatments}
    some = f"The {MAX_PAIRS} pairs with the smallest p are shown." if len(pairs) > MAX_PAIRS else ""
    told = (
        f"N = {len(found.blocks)} data sets, k = {len(found.treatments)}, Holm over {len(pairs)} comparisons, missing "
        f"values: {found.missing}. {some}"
    )
    rows = [
        (
            one.first,
            one.second,
            f"{ranks[one.second] - ranks[one.first]:.2f}",
            f"{one.z:.2f}",
            _p(one.p),
            _p(one.p_holm),
        )
        for one in pairs[:MAX_PAIRS]
    ]
    heads = ("better mean rank", "other", "difference of mean ranks", "z", "p", "p, Holm")
    return ["## All pairs", told.strip(), _markdown(heads, rows)]


def _cells(one: Treatment, many: bool) -> list[str]:
    effect, test = one.effect, one.wilcoxon
    cells = [one.name, f"{one.rank:.2f}", "n/a" if isnan(one.mean) else f"{one.mean:.4f}"]
    if effect is None or test is None:
        return [*cells, "control", *[""] * (7 if many else 4)]
    cells += [_points(effect.mean), _points(effect.median), f"{effect.wins}/{effect.ties}/{effect.losses}"]
    cells += [f"{one.z:+.2f}", _p(one.p), _p(one.p_holm)] if many else []
    zeros = f" ({test.zeros} equal)" if test.zeros else ""
    return [*cells, f"{_p(test.p)}{'' if test.exact else ' (normal)'}{zeros}", _p(one.wilcoxon_holm)]


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return "Nothing odd was found."
    rows = [(one.kind, ", ".join(map(str, one.lines)), one.text) for one in findings]
    return f"No value was changed.\n\n{_markdown(('kind', 'lines', 'finding'), rows)}"


def _post_hoc(found: Comparison) -> list[str]:
    if not found.post_hoc:
        return []
    return [
        f"{found.control} was picked as the best on these very results: post hoc, to be confirmed on others."
    ]


def _named(some: Sequence[Treatment]) -> str:
    shown = ", ".join(one.name for one in some[:MAX_NAMED])
    return f"{shown} and {len(some) - MAX_NAMED} more" if len(some) > MAX_NAMED else shown


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _points(value: float) -> str:
    return "n/a" if isnan(value) else f"{value:+.2f}"


def _p(value: float) -> str:
    if isnan(value):
        return "n/a"
    if value < LEAST_P:
        return f"<{LEAST_P:g}"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _is(p: float) -> str:
    return f"< {LEAST_P:g}" if p < LEAST_P else f"= {_p(p)}"
