import math
import re

import numpy as np
import pytest

from medssl.evaluation.pareto import Candidate, best_within, non_dominated

SMALL = Candidate("small", 0.80, 2.0, 3.0)
FAST = Candidate("fast", 0.78, 1.0, 8.0)
GOOD = Candidate("good", 0.90, 20.0, 45.0)
POOR = Candidate("poor", 0.79, 2.5, 3.0)
"""Worse and slower than SMALL, no smaller."""

ALL = (GOOD, POOR, SMALL, FAST)


def _reference_front(candidates):
    """Compare every pair, measure by measure."""
    front = []
    for one in candidates:
        beaten = False
        for other in candidates:
            no_worse = (
                other.macro_f1 >= one.macro_f1 and other.p50_ms <= one.p50_ms and other.size_mb <= one.size_mb
            )
            better = other.macro_f1 > one.macro_f1 or other.p50_ms < one.p50_ms or other.size_mb < one.size_mb
            beaten |= no_worse and better
        if not beaten:
            front.append(one.name)
    return sorted(front)


def test_the_front_by_hand():
    assert [one.name for one in non_dominated(ALL)] == ["fast", "small", "good"]


def test_the_front_agrees_with_a_naive_loop():
    rng = np.random.default_rng(0)
    many = [Candidate(f"n{place}", *map(float, rng.integers(0, 5, 3))) for place in range(60)]
    assert sorted(one.name for one in non_dominated(many)) == _reference_front(many)


def test_equal_candidates_stay_together_and_unmeasured_ones_go():
    twin = Candidate("twin", *(SMALL.macro_f1, SMALL.p50_ms, SMALL.size_mb))
    unmeasured = Candidate("unmeasured", 0.99, math.nan, 1.0)
    assert [one.name for one in non_dominated([SMALL, twin, unmeasured])] == ["small", "twin"]


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"max_mb": 5, "max_ms": 10}, "small"),
        ({"max_mb": 3, "max_ms": 2}, "small"),
        ({"max_ms": 1.5}, "fast"),
        ({"max_mb": 100}, "good"),
        ({}, "good"),
    ],
)
def test_the_best_that_fits(limits, name):
    found = best_within(ALL, **limits)
    assert found.best.name == name
    among = "the [1-4] of 4 networks that keep to" if limits else "4 networks: macro F1"
    assert re.match(f"{name} is the best of {among}", found.sentence)
    assert found.admissible[0] is found.best


def test_a_query_that_nothing_fits_says_so():
    found = best_within(ALL, max_mb=1, max_ms=10)
    assert found.best is None
    assert found.admissible == ()
    assert found.sentence == "None of 4 networks keeps to 1 MB and 10 ms."


def test_of_equal_scores_the_faster_wins_and_the_unmeasured_never():
    slow = Candidate("a slow one", SMALL.macro_f1, 9.0, 1.0)
    unmeasured = Candidate("unmeasured", 0.99, 1.0, math.nan)
    found = best_within([slow, unmeasured, SMALL], max_ms=10)
    assert found.best is SMALL
    assert found.sentence.endswith("1 of them lack a measurement.")
