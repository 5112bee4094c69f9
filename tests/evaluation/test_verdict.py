import math

import pytest

from medssl.evaluation.verdict import CANNOT_TELL, DID_NOT_HELP, HELPED, is_gain, nothing_unlabeled, verdict


def test_a_better_mean_helped():
    found = verdict("ssldec", {"a": 0.8, "b": 0.7}, {"b": 0.74, "a": 0.79})
    assert found.answer == HELPED
    assert found.method_wins
    assert found.difference == pytest.approx(0.015)
    assert found.dice == {"a": (0.8, 0.79), "b": (0.7, 0.74)}
    assert "helped: ssldec against labeled-only +1.5 Dice points" in found.sentence
    assert "2 held-out labeled scans, better on 1" in found.sentence


def test_a_worse_mean_did_not_help():
    found = verdict("mean-teacher", {"a": 0.8}, {"a": 0.75})
    assert found.answer == DID_NOT_HELP
    assert not found.method_wins
    assert found.difference == pytest.approx(-0.05)
    assert "did not help: mean-teacher against labeled-only -5.0 Dice points" in found.sentence
    assert "1 held-out labeled scan, better on 0" in found.sentence


@pytest.mark.parametrize(
    ("labeled_only", "gains"),
    [((0.5,), (0.0,)), ((0.49, 0.97, 0.53), (-0.18, -0.04, 0.22)), ((0.6, 0.71, 0.12), (0.02, 0.07, -0.09))],
)
def test_a_tie_goes_to_labeled_only(labeled_only, gains):
    """Also where the differences cancel but for the last digit of a float."""
    before = {str(number): dice for number, dice in enumerate(labeled_only)}
    after = {scan: round(dice + gain, 2) for (scan, dice), gain in zip(before.items(), gains, strict=True)}
    found = verdict("ssldec", before, after)
    assert found.answer == DID_NOT_HELP
    assert found.difference == 0
    assert not found.method_wins


@pytest.mark.parametrize("scans", [{}, {"a": math.nan}])
def test_without_a_score_it_cannot_tell(scans):
    found = verdict("ssldec", scans, scans)
    assert found.answer == CANNOT_TELL
    assert found.difference is None
    assert found.method_wins
    assert found.sentence.startswith("Cannot tell")
    assert ("one labeled scan" in found.sentence) == (not scans)


def test_scans_without_a_score_do_not_count():
    before = {"a": 0.8, "b": math.nan, "c": 0.6, "d": math.nan}
    after = {"a": 0.9, "b": 0.1, "c": math.nan, "d": math.nan}
    found = verdict("ssldec", before, after)
    assert found.answer == HELPED
    assert found.difference == pytest.approx(0.1)
    assert "1 held-out labeled scan, better on 1" in found.sentence
    assert sorted(found.dice) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("after", [{}, {"a": 0.8}, {"a": 0.8, "c": 0.7}, {"a": 0.8, "b": 0.7, "c": 0.6}])
def test_scores_of_different_scans_are_refused(after):
    with pytest.raises(ValueError, match="different scans"):
        verdict("ssldec", {"a": 0.8, "b": 0.7}, after)


def test_a_gain_that_would_be_printed_as_nothing_is_none():
    before = {"sub-01": 0.8, "sub-02": 0.7}
    after = {scan: dice + 0.0004 for scan, dice in before.items()}
    assert verdict("ssldec", before, after).answer == DID_NOT_HELP
    assert verdict("ssldec", before, {scan: dice + 0.0006 for scan, dice in before.items()}).answer == HELPED


def test_unchecked_rounds_from_new_weights_do_not_win():
    found = verdict("ssldec", {}, {}, safe=False)
    assert found.answer == CANNOT_TELL
    assert not found.method_wins
    assert "the labeled-only network is returned" in found.sentence
    assert verdict("ssldec", {"a": 0.5}, {"a": 0.6}, safe=False).method_wins


def test_without_unlabeled_scans_labeled_only_wins():
    assert not nothing_unlabeled().method_wins
    assert "supervised only" in nothing_unlabeled().sentence


@pytest.mark.parametrize(
    ("difference", "gain"), [(0.0005, True), (0.000499, False), (0.0, False), (-0.01, False)]
)
def test_a_gain_is_one_that_can_be_seen_when_it_is_printed(difference, gain):
    assert is_gain(difference) is gain
