import math

import numpy as np
import pytest

from medssl.evaluation.operating_points import (
    answered,
    choose_abstain_threshold,
    choose_operating_point,
    score_abstaining,
    score_operating_point,
)
from medssl.labels import UNKNOWN


def two(p):
    return np.stack([1 - np.array(p), p], 1)


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    return labels, two(np.clip(np.round(0.3 + 0.4 * labels + rng.normal(0, 0.2, 200), 2), 0, 1))


def _reference_abstain(labels, probabilities, least):
    """Try every confidence that occurs: the lowest that is right often enough, and a little below it."""
    fitting, occurring = [], sorted({row.max() for row in probabilities})
    for lower, threshold in zip([0.0, *occurring], occurring, strict=False):
        answers = [(row.argmax(), label) for row, label in zip(probabilities, labels, strict=True)
                   if row.max() >= threshold]  # fmt: skip
        if np.mean([a == b for a, b in answers]) >= least:
            fitting.append((threshold - min((threshold - lower) / 2, 0.001), len(answers) / len(labels)))
    return fitting[0] if fitting else None


@pytest.mark.parametrize("least", [0.5, 0.9, 0.95, 0.99])
def test_the_abstain_threshold_answers_as_much_as_a_naive_search(sample, least):
    found = choose_abstain_threshold(*sample, least)
    assert (found.threshold, found.coverage) == pytest.approx(_reference_abstain(*sample, least))
    assert found.accuracy >= least
    assert found == score_abstaining(*sample, found.threshold)


def test_equal_confidences_are_answered_together():
    """Of three images with confidence .8 one is wrong: they cannot be answered without that one."""
    labels, probabilities = np.array([1, 1, 1, 0, 1]), two([0.9, 0.8, 0.8, 0.8, 0.6])
    assert choose_abstain_threshold(labels, probabilities, 0.8).coverage == 1.0
    found = choose_abstain_threshold(labels, probabilities, 0.9)
    assert (found.threshold, found.coverage, found.accuracy, found.n) == (pytest.approx(0.899), 0.2, 1.0, 5)
    assert answered(probabilities, found.threshold).tolist() == [True, False, False, False, False]


def test_an_accuracy_out_of_reach_gives_none():
    assert choose_abstain_threshold(np.array([0, 0]), two([0.9, 0.8]), 0.5) is None
    assert choose_abstain_threshold(np.array([UNKNOWN]), two([0.9]), 0.5) is None


def test_a_threshold_is_measured_on_other_images():
    found = score_abstaining(np.array([1, 0, UNKNOWN]), two([0.9, 0.7, 0.9]), 0.8)
    assert (found.coverage, found.accuracy, found.n) == (0.5, 1.0, 2)
    assert math.isnan(score_abstaining(np.array([1]), two([0.6]), 0.8).accuracy)


@pytest.mark.parametrize("least", [0.6, 0.9, 1.0])
@pytest.mark.parametrize("promise", ["sensitivity", "specificity"])
def test_the_operating_point_keeps_its_promise_and_gives_away_the_least(sample, promise, least):
    labels, probabilities = sample
    found = choose_operating_point(labels, probabilities, 1, **{promise: least})
    other = {"sensitivity": "specificity", "specificity": "sensitivity"}[promise]
    assert getattr(found, promise) >= least
    for threshold in np.append(np.unique(probabilities[:, 1]), 1.1):
        rival = score_operating_point(labels, probabilities, 1, threshold)
        assert getattr(rival, promise) < least or getattr(rival, other) <= getattr(found, other)


def test_an_operating_point_by_hand():
    labels, probabilities = np.array([1, 1, 0, 0, UNKNOWN]), two([0.9, 0.4, 0.5, 0.1, 0.9])
    caught = choose_operating_point(labels, probabilities, 1, sensitivity=1.0)
    assert (caught.threshold, caught.sensitivity, caught.specificity, caught.n) == (
        pytest.approx(0.399),
        1.0,
        0.5,
        4,
    )
    spared = choose_operating_point(labels, probabilities, 1, specificity=1.0)
    assert (spared.threshold, spared.sensitivity, spared.specificity) == (pytest.approx(0.899), 0.5, 1.0)
    silent = choose_operating_point(np.array([0, 1]), two([1.0, 0.2]), 1, specificity=1.0)
    assert silent.threshold > 1
    assert (silent.sensitivity, silent.specificity) == (0.0, 1.0)


@pytest.mark.parametrize("promise", ["sensitivity", "specificity"])
@pytest.mark.parametrize("least", [0.5, 0.8, 1.0])
def test_rounding_turns_no_decision_over(promise, least):
    rng = np.random.default_rng(1)
    labels, q = rng.integers(0, 2, 60), two(rng.random(60))
    point = choose_operating_point(labels, q, 1, **{promise: least})
    silent = choose_abstain_threshold(labels, q, 0.5)
    for seed in range(5):
        shaken = q + np.random.default_rng(seed).normal(0, 1e-6, q.shape)
        again = score_operating_point(labels, shaken, 1, point.threshold)
        assert (again.sensitivity, again.specificity) == (point.sensitivity, point.specificity)
        assert score_abstaining(labels, shaken, silent.threshold).coverage == silent.coverage


@pytest.mark.parametrize("promises", [{}, {"sensitivity": 0.9, "specificity": 0.9}])
def test_exactly_one_promise_can_be_kept(sample, promises):
    with pytest.raises(ValueError, match="exactly one"):
        choose_operating_point(*sample, 1, **promises)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_both_groups_are_needed(labels):
    with pytest.raises(ValueError, match="some of that class and some others"):
        choose_operating_point(np.array(labels), two([0.2, 0.8]), 1, sensitivity=0.9)
