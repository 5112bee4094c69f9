import numpy as np
import pytest

from medssl.evaluation.bootstrap import mean_interval, percentile_interval, stratified_weights


def test_every_class_keeps_its_number_of_cases_in_every_draw():
    labels = np.array([2, 0, 2, 2, 0, 5])
    weights = np.concatenate(list(stratified_weights(labels, 300, seed=3)))
    assert weights.shape == (300, 6)
    for one, n in ((0, 2), (2, 3), (5, 1)):
        assert (weights[:, labels == one].sum(1) == n).all()
    assert weights[:, labels == 2].std() > 0


def test_draws_have_a_seed_and_come_in_pieces(monkeypatch):
    labels = np.arange(10) % 3
    once = np.concatenate(list(stratified_weights(labels, 25, seed=1)))
    again = np.concatenate(list(stratified_weights(labels, 25, seed=1)))
    other = np.concatenate(list(stratified_weights(labels, 25, seed=2)))
    assert (once == again).all()
    assert (once != other).any()
    monkeypatch.setattr("medssl.evaluation.bootstrap._CELLS", 40)
    assert [len(piece) for piece in stratified_weights(labels, 10, seed=1)] == [4, 4, 2]


def test_the_draws_are_those_of_a_uniform_choice_within_the_class():
    """Mean 1 and variance 1 - 1/n of each count, as of a multinomial with equal shares."""
    weights = np.concatenate(list(stratified_weights(np.zeros(4, int), 20_000, seed=0)))
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.03)
    np.testing.assert_allclose(weights.var(0), 0.75, atol=0.04)


def test_the_interval_of_a_mean_holds_it_and_narrows_with_the_cases():
    few, many = np.tile([1.0, 2.0, 6.0], 4), np.tile([1.0, 2.0, 6.0], 400)
    low, high = mean_interval(few)
    assert low < 3 < high
    assert (low, high) == mean_interval(few)
    assert mean_interval(few, draws=50) != mean_interval(few, draws=50, seed=1)
    narrow = mean_interval(many, draws=500)
    assert narrow[1] - narrow[0] < 0.2 * (high - low)
    # the standard error of the mean is sd / sqrt(n); 95 % of a normal lie within 1.96 of them
    assert high - low == pytest.approx(2 * 1.96 * few.std() / np.sqrt(12), rel=0.05)


def test_percentiles_are_the_middle_95_percent():
    assert percentile_interval(np.arange(1001.0)) == (25.0, 975.0)
