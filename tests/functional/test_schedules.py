import math

import pytest

from medssl.functional.schedules import linear_ramp, sigmoid_ramp, warmed_decay

PROGRESS = [step / 100 for step in range(101)]


def _reference_linear(progress, start, end):
    if progress >= end:
        return 1.0
    if progress < start:
        return 0.0
    return (progress - start) / (end - start)


def test_linear_ramp_equals_its_definition():
    for progress in PROGRESS:
        assert linear_ramp(progress, 0.1, 0.6) == pytest.approx(_reference_linear(progress, 0.1, 0.6))


def test_linear_ramp_follows_lee_2013():
    """0 before T1 = 100 of 600 epochs, a line up to T2 = 600."""
    epochs = {50: 0.0, 100: 0.0, 350: 0.5, 600: 1.0, 700: 1.0}
    assert {epoch: linear_ramp(epoch / 1000, 0.1, 0.6) for epoch in epochs} == pytest.approx(epochs)


def test_sigmoid_ramp_equals_its_definition():
    for progress in PROGRESS:
        t = _reference_linear(progress, 0.1, 0.6)
        expected = math.exp(-5 * (1 - t) ** 2) if progress > 0.1 else 0.0
        assert sigmoid_ramp(progress, 0.1, 0.6) == pytest.approx(expected)


def test_sigmoid_ramp_is_exactly_zero_up_to_the_start_and_one_from_the_end():
    assert [sigmoid_ramp(progress, 0.2, 0.6) for progress in (0.0, 0.1, 0.2)] == [0.0] * 3
    assert [sigmoid_ramp(progress, 0.2, 0.6) for progress in (0.6, 0.8, 1.0)] == [1.0] * 3
    assert sigmoid_ramp(0.2 + 1e-9, 0.2, 0.6) == pytest.approx(math.exp(-5), abs=1e-6)


@pytest.mark.parametrize("ramp", [linear_ramp, sigmoid_ramp])
def test_ramps_rise_from_zero_to_one(ramp):
    values = [ramp(progress, 0.1, 0.6) for progress in PROGRESS]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0.0, 1.0)


@pytest.mark.parametrize("ramp", [linear_ramp, sigmoid_ramp])
def test_ramp_that_starts_where_it_ends_is_a_step(ramp):
    assert [ramp(progress, 0.5, 0.5) for progress in (0.0, 0.49, 0.5, 1.0)] == [0.0, 0.0, 1.0, 1.0]
    assert ramp(0.0, 0.0, 0.0) == 1.0


def test_warmed_decay_forgets_the_start():
    assert [warmed_decay(0.99, step) for step in (0, 8)] == pytest.approx([0.1, 0.5])
    assert warmed_decay(0.99, 889) == pytest.approx(890 / 899)
    assert warmed_decay(0.99, 891) == 0.99
    assert warmed_decay(0.0, 5) == 0.0
