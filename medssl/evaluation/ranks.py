"""Which of several treatments is better over several data sets: ranks, and tests that rest on them.

A *treatment* is what is compared (a network, a method, a pair of both); a *block* is a data set. Within a
block treatments are ranked, 1 the best, equal ones share the mean of their ranks. Seeds are no blocks:
average them first.

Source: Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006. Own
implementation.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, isnan, nan, sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from medssl.errors import ConfigError, InputError

DROP_BLOCK = "drop_block"
WORST_RANK = "worst_rank"
ERROR = "error"
MISSING = (DROP_BLOCK, WORST_RANK, ERROR)
"""What to do where a treatment has no value in a block."""

EXACT_UP_TO = 20
"""Pairs up to which the signed-rank test counts every assignment of signs."""

LEAST_BLOCKS = 6
"""Fewer pairs cannot give an exact two-sided p below .05: the least possible one is 2 / 2^n."""

VALUE_DIGITS = 12
DIFFERENCE_DIGITS = 10

Floats = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Friedman:
    """Whether treatments differ at all.

    Args:
        chi2: Friedman's statistic, corrected for ties; NaN where all treatments tie in all blocks.
        p: Of chi2, with k - 1 degrees of freedom.
        f: Iman and Davenport's statistic; infinite where all blocks agree.
        f_p: Of f, with k - 1 and (k - 1)(N - 1) degrees of freedom.
        n: Blocks.
        k: Treatments.
    """

    chi2: float
    p: float
    f: float
    f_p: float
    n: int
    k: int


@dataclass(frozen=True)
class Wilcoxon:
    """Signed-rank test of paired differences, two-sided.

    Args:
        n: Pairs that differ.
        zeros: Pairs that do not; they were dropped.
        statistic: The smaller of the two sums of ranks.
        p: 1 without a pair that differs.
        exact: Whether every assignment of signs was counted; otherwise the normal approximation was used.
    """

    n: int
    zeros: int
    statistic: float
    p: float
    exact: bool


@dataclass(frozen=True)
class Effect:
    """How large a difference is, over the blocks.

    Args:
        mean: Mean difference in points (hundredths).
        median: Median difference in points.
        wins: Blocks where the first is better.
        ties: Blocks where both are equal.
        losses: Blocks where the second is better.
    """

    mean: float
    median: float
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Treatment:
    """What a comparison says about one treatment.

    Args:
        name: Of the treatment.
        mean: Mean value over the blocks that have one.
        rank: Mean rank; 1 is the best possible.
        z: Against the control; NaN for the control itself and for two treatments.
        p: Two-sided, of z.
        p_holm: Corrected for the number of treatments beside the control.
        wilcoxon: Against the control; None for the control itself.
        wilcoxon_holm: Its p, corrected likewise.
        effect: Against the control, positive where the treatment is better; None for the control itself.
    """

    name: str
    mean: float
    rank: float
    z: float
    p: float
    p_holm: float
    wilcoxon: Wilcoxon | None
    wilcoxon_holm: float
    effect: Effect | None


@dataclass(frozen=True)
class Pair:
    """Two treatments held against each other, among all pairs of a comparison.

    Args:
        first: Its mean rank is the better one, or they are equal.
        second: The other.
        z: Of the difference of the mean ranks, 0 or more.
        p: Two-sided, of z.
        p_holm: Corrected for the number of pairs, k (k - 1) / 2.
    """

    first: str
    second: str
    z: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """Treatments compared over blocks.

    Args:
        treatments: By rising mean rank.
        control: The one that the others are held against.
        post_hoc: The control was picked as the best on these very values.
        blocks: Data sets that count.
        dropped: Data sets left out, with the treatments that lack a value there.
        incomplete: Data sets that count although a treatment lacks a value: it shares the last rank there.
        friedman: None for fewer than three treatments.
        critical_difference: Nemenyi's: mean ranks further apart than this differ; NaN for two treatments.
        alpha: Level of the critical difference.
        missing: Policy in `MISSING`.
        ranks: Rank of each treatment (columns, in the order of `treatments`) in each block (rows).
    """

    treatments: tuple[Treatment, ...]
    control: str
    post_hoc: bool
    blocks: tuple[str, ...]
    dropped: Mapping[str, tuple[str, ...]]
    incomplete: Mapping[str, tuple[str, ...]]
    friedman: Friedman | None
    critical_difference: float
    alpha: float
    missing: str
    ranks: Floats

    @property
    def groups(self) -> tuple[tuple[int, int], ...]:
        """First and last place of every run of treatments that the critical difference does not tell apart."""
        return indistinct([one.rank for one in self.treatments], self.critical_difference)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs, the smallest p first; none for two treatments, which the signed-rank test compares."""
        if len(self.treatments) < 3:
            return ()
        return all_pairs({one.name: one.rank for one in self.treatments}, len(self.blocks))


def mid_ranks(values: Floats) -> Floats:
    """Rank the treatments of each block, 1 for the highest value; equal ones share their mean rank.

    Args:
        values: Higher is better. NaN ranks last, all NaN of a block alike.

    Shapes:
        values: ``(N, k)``
        return: ``(N, k)``

    Notes:
        Values are rounded to twelve digits first, so that means of the same seeds in another order tie.
    """
    worst_last = np.where(np.isnan(values), -inf, np.round(values, VALUE_DIGITS))
    return np.asarray(stats.rankdata(-worst_last, axis=1), dtype=np.float64)


def friedman(ranks: Floats) -> Friedman:
    r"""Test whether treatments share one mean rank.

    .. math::
        \chi^2 = \frac{12 N}{k (k + 1)} \Big[ \sum_j \bar R_j^2 - \frac{k (k + 1)^2}{4} \Big] \Big/
        \Big( 1 - \frac{\sum (t^3 - t)}{N k (k^2 - 1)} \Big), \qquad
        F = \frac{(N - 1) \chi^2}{N (k - 1) - \chi^2}

    with t the sizes of the groups of equal ranks within the blocks.

    Shapes:
        ranks: ``(N, k)``

    Raises:
        ValueError: Fewer than three treatments.
    """
    n, k = ranks.shape
    if k < 3:
        msg = f"Friedman's test needs at least three treatments; found {k}. Use the signed-rank test."
        raise ValueError(msg)
    tied = 1 - sum(_ties(row) for row in ranks) / (n * k * (k * k - 1))
    if tied <= 0:
        return Friedman(nan, 1.0, nan, 1.0, n, k)
    spread = (ranks.mean(0) ** 2).sum() - k * (k + 1) ** 2 / 4
    chi2 = 12 * n / (k * (k + 1)) * spread / tied
    left = n * (k - 1) - chi2
    f = (n - 1) * chi2 / left if left > 1e-9 else inf
    f_p = float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))) if n > 1 else nan
    return Friedman(float(chi2), float(stats.chi2.sf(chi2, k - 1)), float(f), f_p, n, k)


def z_against(mean_ranks: Floats, control: int, n: int) -> tuple[Floats, Floats]:
    r"""Hold mean ranks against that of a control, :math:`z = (\bar R_j - \bar R_0) / \sqrt{k (k + 1) / (6 N)}`.

    Args:
        mean_ranks: One a treatment.
        control: Place of the control.
        n: Blocks.

    Returns:
        z (positive: worse than the control) and two-sided normal p; ties do not change the denominator.

    Shapes:
        mean_ranks: ``(k,)``
        return: ``(k,)`` twice
    """
    k = len(mean_ranks)
    z = (mean_ranks - mean_ranks[control]) / sqrt(k * (k + 1) / (6 * n))
    return z, 2 * stats.norm.sf(np.abs(z))


def all_pairs(ranks: Mapping[str, float], n: int) -> tuple[Pair, ...]:
    r"""Hold all mean ranks against each other, with z as in `z_against` and Holm's correction for all pairs.

    Args:
        ranks: Treatment -> mean rank.
        n: Blocks.

    Returns:
        k (k - 1) / 2 pairs, the smallest p first.
    """
    names = sorted(ranks, key=lambda name: ranks[name])
    against = [z_against(np.array([ranks[name] for name in names]), place, n) for place in range(len(names))]
    found = {
        (i, j): (float(against[i][0][j]), float(against[i][1][j]))
        for i, j in combinations(range(len(names)), 2)
    }
    corrected = holm({pair: p for pair, (_, p) in found.items()})
    return tuple(Pair(names[i], names[j], *found[i, j], p) for (i, j), p in corrected.items())


def holm(p: Mapping[Key, float]) -> dict[Key, float]:
    """Correct p-values for their number, step by step down from the smallest.

    The i-th smallest of m is multiplied by m - i + 1; none becomes smaller than the one before or larger
    than 1.

    Args:
        p: Name -> p.

    Returns:
        Name -> corrected p, the smallest first.
    """
    corrected, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        largest = max(largest, min(1.0, p[name] * (len(p) - rank)))
        corrected[name] = largest
    return corrected


def wilcoxon(differences: Floats, exact_up_to: int = EXACT_UP_TO) -> Wilcoxon:
    """Test whether paired differences lie around 0: Wilcoxon's signed-rank test, two-sided.

    Args:
        differences: One a block. Rounded to ten digits; zeros are dropped and counted.
        exact_up_to: Pairs up to which p is exact, with ties too; beyond, the normal approximation with
            correction for ties and without one for continuity. At most 50.

    Shapes:
        differences: ``(N,)``

    Notes:
        The exact p is that of all 2^n assignments of signs to the ranks. They are not listed but counted:
        sums of twice the ranks are whole numbers, and each rank either joins a sum or does not.
    """
    rounded = np.round(np.asarray(differences, dtype=np.float64), DIFFERENCE_DIGITS)
    kept = rounded[rounded != 0]
    n, zeros = len(kept), len(rounded) - len(kept)
    if not n:
        return Wilcoxon(0, zeros, 0.0, 1.0, exact=True)
    ranks = stats.rankdata(np.abs(kept))
    statistic = float(min(ranks[kept > 0].sum(), ranks[kept < 0].sum()))
    exact = n <= exact_up_to
    p = _exact_p(ranks, statistic) if exact else _normal_p(ranks, statistic)
    return Wilcoxon(n, zeros, statistic, p, exact)


def effect(first: Floats, second: Floats) -> Effect:
    """Say how much better the first is.

    Args:
        first: Values between 0 and 1, one a block.
        second: The same of the other.

    Shapes:
        first, second: ``(N,)``
    """
    difference = np.round(first - second, DIFFERENCE_DIGITS)
    counts = [int(hits.sum()) for hits in (difference > 0, difference == 0, difference < 0)]
    if not len(difference):
        return Effect(nan, nan, *counts)
    return Effect(100 * float(difference.mean()), 100 * float(np.median(difference)), *counts)


def paired_t(differences: Floats) -> tuple[float, float]:
    """Return p of Shapiro and Wilk's test of the differences and p of the paired t-test: information only.

    Returns:
        NaN twice for fewer than three differences or differences that are all equal.

    Shapes:
        differences: ``(N,)``
    """
    rounded = np.round(np.asarray(differences, dtype=np.float64), DIFFERENCE_DIGITS)
    if len(rounded) < 3 or not np.ptp(rounded):
        return nan, nan
    return float(stats.shapiro(rounded).pvalue), float(stats.ttest_1samp(rounded, 0.0).pvalue)


def critical_difference(k: int, n: int, alpha: float = 0.05) -> float:
    r"""Return Nemenyi's critical difference, :math:`q_\alpha \sqrt{k (k + 1) / (6 N)}`.

    :math:`q_\alpha` is the studentized range with infinitely many degrees of freedom, divided by
    :math:`\sqrt 2`.

    Args:
        k: Treatments.
        n: Blocks.
        alpha: Chance of any false difference.
    """
    q = stats.studentized_range.ppf(1 - alpha, k, inf) / sqrt(2)
    return float(q * sqrt(k * (k + 1) / (6 * n)))


def indistinct(ranks: Sequence[float], difference: float) -> tuple[tuple[int, int], ...]:
    """Return first and last place of every longest run of ranks that lie within a difference.

    Args:
        ranks: Mean ranks, rising.
        difference: The critical one.
    """
    runs: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(place for place, other in enumerate(ranks) if other - rank <= difference or place == first)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return tuple(runs)


def compare_treatments(
    values: Floats,
    treatments: Sequence[str],
    blocks: Sequence[str],
    *,
    control: str | None = None,
    missing: str = DROP_BLOCK,
    alpha: float = 0.05,
) -> Comparison:
    """Rank treatments over blocks and test all of them against one.

    Args:
        values: Higher is better; NaN where there is none.
        treatments: Names of the columns, two or more.
        blocks: Names of the rows.
        control: The treatment to hold the others against; None for the one with the best mean rank.
        missing: "drop_block" leaves a block without all values out, "worst_rank" ranks a missing value last,
            "error" refuses.
        alpha: Level of the critical difference.

    Shapes:
        values: ``(N, k)``

    Raises:
        ConfigError: The control or the policy is unknown, or there are fewer than two treatments.
        InputError: A value is missing where none may be, or fewer than two blocks are left.

    Notes:
        Under "worst_rank" the signed-rank test and the effect use the blocks where both have a value. A block
        without any value is always left out.
    """
    _require_names(treatments, control, missing)
    lacking = _lacking(values, treatments, blocks)
    if missing == ERROR and lacking:
        raise InputError(_say_lacking(lacking), "Run what is missing, or choose another policy.")
    empty = np.isnan(values).all(1)
    kept = ~empty if missing == WORST_RANK else ~np.isnan(values).any(1)
    if kept.sum() < 2:
        msg = f"Only {int(kept.sum())} of {len(blocks)} data sets can be compared; at least 2 are needed."
        raise InputError(
            f"{msg} {_say_lacking(lacking)}".strip(),
            "Compare fewer treatments, add results, or correct names.",
        )
    names = [block for block, keep in zip(blocks, kept, strict=True) if keep]
    ranks = mid_ranks(values[kept])
    place = int(ranks.mean(0).argmin()) if control is None else list(treatments).index(control)
    rows = _rows(values[kept], ranks, treatments, place)
    order = sorted(range(len(rows)), key=lambda one: (round(rows[one].rank, 9), one))
    k = len(treatments)
    return Comparison(
        treatments=tuple(rows[one] for one in order),
        control=treatments[place],
        post_hoc=control is None,
        blocks=tuple(names),
        dropped={block: lacks for block, lacks in lacking.items() if block not in names},
        incomplete={block: lacks for block, lacks in lacking.items() if block in names},
        friedman=friedman(ranks) if k > 2 else None,
        critical_difference=critical_difference(k, len(names), alpha) if k > 2 else nan,
        alpha=alpha,
        missing=missing,
        ranks=ranks[:, order],
    )


def _rows(values: Floats, ranks: Floats, treatments: Sequence[str], control: int) -> list[Treatment]:
    """Say of each treatment how it stands against the control."""
    others = [place for place in range(len(treatments)) if place != control]
    mean_ranks = ranks.mean(0)
    z, p = z_against(mean_ranks, control, len(ranks))
    if len(treatments) < 3:
        z, p = np.full_like(z, nan), np.full_like(p, nan)
    pairs = {place: _both(values[:, place], values[:, control]) for place in others}
    tests = {place: wilcoxon(first - second) for place, (first, second) in pairs.items()}
    p_holm = holm({treatments[place]: float(p[place]) for place in others})
    tests_holm = holm({treatments[place]: tests[place].p for place in others})
    return [
        Treatment(
            name=name,
            mean=float(np.nanmean(values[:, place])) if not np.isnan(values[:, place]).all() else nan,
            rank=float(mean_ranks[place]),
            z=nan if place == control else float(z[place]),
            p=nan if place == control else float(p[place]),
            p_holm=p_holm.get(name, nan) if len(treatments) > 2 else nan,
            wilcoxon=tests.get(place),
            wilcoxon_holm=tests_holm.get(name, nan),
            effect=None if place == control else effect(*pairs[place]),
        )
        for place, name in enumerate(treatments)
    ]


def _both(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    known = ~np.isnan(first) & ~np.isnan(second)
    return first[known], second[known]


def _ties(ranks: Floats) -> float:
    """Return the sum of t³ − t over the groups of equal ranks."""
    sizes = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    return float((sizes**3 - sizes).sum())


def _exact_p(ranks: Floats, statistic: float) -> float:
    """Share of all sign assignments whose smaller sum of ranks is no larger, ``ranks (n,)``."""
    doubled = np.round(2 * ranks).astype(np.int64)
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
    tail = ways[: round(2 * statistic) + 1].sum()
    return min(1.0, float(2 * tail / 2.0 ** len(ranks)))


def _normal_p(ranks: Floats, statistic: float) -> float:
    n = len(ranks)
    variance = n * (n + 1) * (2 * n + 1) / 24 - _ties(ranks) / 48
    return float(2 * stats.norm.sf(abs(statistic - n * (n + 1) / 4) / sqrt(variance)))


def _require_names(treatments: Sequence[str], control: str | None, missing: str) -> None:
    if len(treatments) < 2:
        msg = (
            f"Found {len(treatments)} treatments to compare: {', '.join(treatments)}; expected at least two."
        )
        raise ConfigError(msg, "Choose more networks or methods.")
    if control is not None and control not in treatments:
        msg = f"The control '{control}' is none of the treatments: {', '.join(treatments)}."
        raise ConfigError(msg, "Name one of them.")
    if missing not in MISSING:
        msg = f"The policy for missing values is '{missing}'; expected one of {', '.join(MISSING)}."
        raise ConfigError(msg)


def _lacking(values: Floats, treatments: Sequence[str], blocks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return block -> treatments without a value there, for the blocks that lack any."""
    found = {
        block: tuple(name for name, value in zip(treatments, row, strict=True) if isnan(value))
        for block, row in zip(blocks, values, strict=True)
    }
    return {block: lacks for block, lacks in found.items() if lacks}


def _say_lacking(lacking: Mapping[str, tuple[str, ...]]) -> str:
    if not lacking:
        return ""
    parts = [
        f"{block}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
        for block, names in lacking.items()
    ]
    return f"Without a value are {'; '.join(parts)}."
