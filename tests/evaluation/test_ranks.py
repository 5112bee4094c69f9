import itertools
import math

import numpy as np
import pytest
from scipy import stats

from medssl.errors import ConfigError, InputError
from medssl.evaluation.ranks import (
    compare_treatments,
    critical_difference,
    effect,
    friedman,
    holm,
    indistinct,
    mid_ranks,
    paired_t,
    wilcoxon,
    z_against,
)

NAMES = ("A", "B", "C")
BLOCKS = ("one", "two", "three", "four")
EXAMPLE = np.array([[0.9, 0.8, 0.7], [0.9, 0.9, 0.5], [0.6, 0.7, 0.5], [0.8, 0.7, 0.6]])
"""Worked by hand below; in block "two" the first treatments tie."""


def _reference_ranks(row):
    """1 + those better + half of the others that are equal."""
    return [
        1 + sum(other > value for other in row) + (sum(other == value for other in row) - 1) / 2
        for value in row
    ]


def _reference_signed_rank_p(differences):
    """List every assignment of signs to the ranks and count the sums that are no less extreme."""
    kept = [value for value in differences if value != 0]
    ranks = stats.rankdata(np.abs(kept))
    centre = ranks.sum() / 2
    found = abs(sum(rank for rank, value in zip(ranks, kept, strict=True) if value > 0) - centre)
    sums = [sum(rank for rank, up in zip(ranks, signs, strict=True) if up)
            for signs in itertools.product([False, True], repeat=len(kept))]  # fmt: skip
    return sum(abs(one - centre) >= found - 1e-9 for one in sums) / len(sums)


def test_ranks_agree_with_a_naive_loop():
    values = np.random.default_rng(0).integers(0, 4, (30, 6)) / 4
    assert mid_ranks(values).tolist() == [_reference_ranks(row) for row in values]


def test_means_of_the_same_seeds_in_another_order_tie():
    """Full precision but for the twelfth digit, which the order of a sum can change."""
    first, second = sum([0.1, 0.2, 0.3]) / 3, sum([0.3, 0.2, 0.1]) / 3
    assert first != second
    assert mid_ranks(np.array([[first, second, 0.1]])).tolist() == [[1.5, 1.5, 3]]
    assert mid_ranks(np.array([[0.2 + 1e-9, 0.2, 0.1]])).tolist() == [[1, 2, 3]]


def test_the_worked_example_by_hand():
    ranks = mid_ranks(EXAMPLE)
    assert ranks.tolist() == [[1, 2, 3], [1.5, 1.5, 3], [2, 1, 3], [1, 2, 3]]
    found = friedman(ranks)
    mean_ranks = (1.375, 1.625, 3.0)
    spread = 1.375**2 + 1.625**2 + 9 - 3 * 16 / 4  # 1.53125
    ties = 1 - 6 / (4 * 3 * 8)  # one pair: 2^3 - 2
    assert found.chi2 == pytest.approx(12 * 4 / 12 * spread / ties) == pytest.approx(6.5333, abs=1e-4)
    assert found.f == pytest.approx(3 * found.chi2 / (4 * 2 - found.chi2)) == pytest.approx(13.3636, abs=1e-4)
    assert found.p == pytest.approx(math.exp(-found.chi2 / 2))  # chi2 with 2 degrees of freedom
    z, p = z_against(np.array(mean_ranks), 0, 4)
    assert z == pytest.approx([0, 0.25 / math.sqrt(0.5), 1.625 / math.sqrt(0.5)])
    assert p == pytest.approx([1, 0.7237, 0.0216], abs=1e-4)
    assert holm({"B": p[1], "C": p[2]}) == pytest.approx({"C": 2 * p[2], "B": p[1]})


def test_the_worked_example_with_scipy():
    expected = stats.friedmanchisquare(*EXAMPLE.T)
    found = friedman(mid_ranks(EXAMPLE))
    assert (found.chi2, found.p) == pytest.approx((expected.statistic, expected.pvalue))


@pytest.mark.parametrize("seed", range(3))
def test_friedman_agrees_with_scipy_with_and_without_ties(seed):
    rng = np.random.default_rng(seed)
    for values in (rng.random((7, 5)), rng.integers(0, 3, (9, 4)).astype(float)):
        expected = stats.friedmanchisquare(*values.T)
        found = friedman(mid_ranks(values))
        assert (found.chi2, found.p) == pytest.approx((expected.statistic, expected.pvalue))
        assert (found.n, found.k) == values.shape


def test_friedman_where_all_agree_and_where_all_tie():
    agree = friedman(mid_ranks(np.tile([3.0, 2, 1], (5, 1))))
    assert (agree.chi2, agree.f, agree.f_p) == (pytest.approx(10), math.inf, 0.0)
    tie = friedman(mid_ranks(np.ones((5, 3))))
    assert math.isnan(tie.chi2)
    assert (tie.p, tie.f_p) == (1.0, 1.0)
    with pytest.raises(ValueError, match="at least three"):
        friedman(np.ones((5, 2)))


@pytest.mark.parametrize("n", [1, 2, 5, 9, 12])
@pytest.mark.parametrize("digits", [1, 6])
def test_exact_signed_ranks_agree_with_all_assignments_of_signs(n, digits):
    """With one digit many differences tie or vanish."""
    for seed in range(4):
        differences = np.round(np.random.default_rng(seed).normal(0.2, 0.5, n), digits)
        found = wilcoxon(differences)
        kept = differences[differences != 0]
        assert found.p == pytest.approx(_reference_signed_rank_p(kept) if len(kept) else 1.0)
        assert (found.n, found.zeros, found.exact) == (len(kept), n - len(kept), True)


def test_signed_ranks_agree_with_scipy():
    rng = np.random.default_rng(0)
    for n in (8, 20):
        differences = rng.normal(0.3, 1, n)
        expected = stats.wilcoxon(differences, method="exact")
        found = wilcoxon(differences)
        assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    for differences in (rng.normal(0.3, 1, 21), np.round(rng.normal(0.2, 1, 60), 1)):
        expected = stats.wilcoxon(differences, method="asymptotic", correction=False, zero_method="wilcox")
        found = wilcoxon(differences)
        assert not found.exact
        assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    expected = stats.wilcoxon(differences := rng.normal(0.3, 1, 45), method="exact")
    assert wilcoxon(differences, exact_up_to=50).p == pytest.approx(expected.pvalue)


def test_five_pairs_cannot_reach_5_percent_and_six_can():
    assert wilcoxon(np.arange(1.0, 6)).p == 2 / 2**5 > 0.05
    assert wilcoxon(np.arange(1.0, 7)).p == 2 / 2**6 < 0.05


def test_without_a_difference_p_is_one():
    found = wilcoxon(np.array([0.0, 1e-11, -1e-12]))
    assert (found.n, found.zeros, found.p) == (0, 3, 1.0)


def test_holm_by_hand_and_in_any_order():
    """(m - i + 1) p, never falling, at most 1."""
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5}
    assert holm(p) == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.5})
    assert holm(dict(reversed(p.items()))) == holm(p)
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_all_pairs_by_hand():
    """Mean ranks 1.375, 1.625 and 3 of the worked example: z is their difference over the root of 3 * 4 / (6 * 4)."""
    found = compare_treatments(EXAMPLE, NAMES, BLOCKS).pairs
    assert [(one.first, one.second) for one in found] == [("A", "C"), ("B", "C"), ("A", "B")]
    root = math.sqrt(0.5)
    assert [one.z for one in found] == pytest.approx([1.625 / root, 1.375 / root, 0.25 / root])
    assert [one.p for one in found] == pytest.approx([0.0216, 0.0518, 0.7237], abs=1e-4)
    assert [one.p_holm for one in found] == pytest.approx([0.0647, 0.1037, 0.7237], abs=1e-4)  # times 3, 2, 1
    assert compare_treatments(EXAMPLE[:, [0, 2]], ("A", "C"), BLOCKS).pairs == ()


@pytest.mark.parametrize("k", [3, 4, 7])
def test_all_pairs_agree_with_a_naive_loop(k):
    rng = np.random.default_rng(k)
    values, names = rng.integers(0, 5, (8, k)) / 4, [f"t{place}" for place in range(k)]
    found = compare_treatments(values, names, list("abcdefgh"), control="t1").pairs
    assert len(found) == k * (k - 1) / 2
    ranks = dict(zip(names, np.mean([_reference_ranks(row) for row in values], axis=0), strict=True))
    for number, one in enumerate(found):
        z = (ranks[one.second] - ranks[one.first]) / math.sqrt(k * (k + 1) / (6 * 8))
        assert one.z >= 0
        assert one.z == pytest.approx(z)
        assert one.p == pytest.approx(math.erfc(z / math.sqrt(2)))
        steps = [(len(found) - place) * other.p for place, other in enumerate(found[: number + 1])]
        assert one.p_holm == pytest.approx(min(1, max(steps)))
    assert {frozenset((one.first, one.second)) for one in found} == set(
        map(frozenset, itertools.combinations(names, 2))
    )


def test_effect_in_points():
    found = effect(np.array([0.9, 0.5, 0.6, 0.7]), np.array([0.8, 0.5, 0.7, 0.3]))
    assert (found.mean, found.median) == pytest.approx((10.0, 5.0))
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert math.isnan(effect(np.array([]), np.array([])).mean)


def test_the_t_test_is_information_only():
    differences = np.array([0.1, 0.2, 0.15, -0.05])
    shapiro, t = paired_t(differences)
    assert shapiro == pytest.approx(stats.shapiro(differences).pvalue)
    assert t == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
    assert all(math.isnan(one) for one in (*paired_t(np.ones(4)), *paired_t(np.ones(2))))


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_the_printed_table(k, q):
    """Table 5 of Demšar 2006, alpha 0.05."""
    assert critical_difference(k, 15) == pytest.approx(q * math.sqrt(k * (k + 1) / 90), rel=5e-4)


def test_groups_are_the_longest_runs_within_the_difference():
    assert indistinct([1.0, 1.5, 2.4, 4.0, 4.1], 1.0) == ((0, 1), (1, 2), (3, 4))
    assert indistinct([1.0, 1.5, 1.9], 1.0) == ((0, 2),)
    assert indistinct([1.0, 3.0], 1.0) == ()


def test_a_comparison_against_the_best_mean_rank():
    found = compare_treatments(EXAMPLE, NAMES, BLOCKS)
    assert [one.name for one in found.treatments] == ["A", "B", "C"]
    assert (found.control, found.post_hoc, found.blocks) == ("A", True, BLOCKS)
    first, second, third = found.treatments
    assert (first.wilcoxon, first.effect) == (None, None)
    assert all(math.isnan(one) for one in (first.z, first.p_holm, first.wilcoxon_holm))
    assert second.rank == 1.625
    assert third.mean == pytest.approx(0.575)
    assert third.p_holm == pytest.approx(2 * third.p)
    assert third.wilcoxon.p == 0.125
    assert third.wilcoxon_holm == 0.25
    assert (third.effect.wins, third.effect.losses) == (0, 4)
    assert third.effect.mean == pytest.approx(-22.5)
    assert found.critical_difference == pytest.approx(2.343 * math.sqrt(0.5), abs=1e-3)
    assert found.groups == ((0, 2),)


def test_a_named_control_is_not_post_hoc_and_the_order_of_columns_changes_nothing():
    found = compare_treatments(EXAMPLE, NAMES, BLOCKS, control="C")
    turned = compare_treatments(EXAMPLE[:, ::-1], NAMES[::-1], BLOCKS, control="C")
    assert not found.post_hoc
    assert str(found.treatments) == str(turned.treatments)  # NaN equals nothing, its text does
    assert (found.ranks == turned.ranks).all()


def test_two_treatments_get_the_signed_rank_test_alone():
    found = compare_treatments(EXAMPLE[:, [0, 2]], ("A", "C"), BLOCKS)
    assert found.friedman is None
    assert math.isnan(found.critical_difference)
    assert math.isnan(found.treatments[1].p)
    assert found.treatments[1].wilcoxon_holm == found.treatments[1].wilcoxon.p
    assert found.groups == ()


@pytest.fixture
def gap():
    values = EXAMPLE.copy()
    values[1, 0] = math.nan
    return values


def test_missing_values_drop_the_block_and_say_so(gap):
    found = compare_treatments(gap, NAMES, BLOCKS)
    assert found.blocks == ("one", "three", "four")
    assert found.dropped == {"two": ("A",)}
    assert found.friedman.n == 3


def test_missing_values_can_rank_last(gap):
    """Missing is tied last; the pairs of the signed-rank test need both values."""
    gap[2, :2] = math.nan
    found = compare_treatments(gap, NAMES, BLOCKS, missing="worst_rank", control="B")
    by_name = {one.name: one for one in found.treatments}
    assert by_name["A"].rank == pytest.approx((1 + 3 + 2.5 + 1) / 4)
    assert by_name["B"].rank == pytest.approx((2 + 1 + 2.5 + 2) / 4)
    assert by_name["A"].wilcoxon.n == 2
    assert by_name["C"].effect.losses == 3
    assert found.incomplete == {"two": ("A",), "three": ("A", "B")}
    assert found.dropped == {}


def test_a_block_without_any_value_never_counts(gap):
    gap[1] = math.nan
    found = compare_treatments(gap, NAMES, BLOCKS, missing="worst_rank")
    assert found.blocks == ("one", "three", "four")
    assert found.dropped == {"two": NAMES}


def test_missing_values_can_be_an_error(gap):
    with pytest.raises(InputError, match="two: A"):
        compare_treatments(gap, NAMES, BLOCKS, missing="error")
    assert compare_treatments(EXAMPLE, NAMES, BLOCKS, missing="error").blocks == BLOCKS


def test_too_few_blocks_name_what_is_missing(gap):
    gap[:, 2] = math.nan
    with pytest.raises(InputError, match=r"Only 0 of 4 data sets .* one: C; two: A, C"):
        compare_treatments(gap, NAMES, BLOCKS)


@pytest.mark.parametrize(
    ("names", "options", "text"),
    [
        (("A",), {}, "at least two"),
        (NAMES, {"control": "D"}, "none of the treatments: A, B, C"),
        (NAMES, {"missing": "ignore"}, "drop_block, worst_rank, error"),
    ],
)
def test_wrong_names_are_refused(names, options, text):
    with pytest.raises(ConfigError, match=text):
        compare_treatments(EXAMPLE[:, : len(names)], names, BLOCKS, **options)
