import math

import pytest
import torch

from medssl.functional.calibration import calibration_error


def _reference_error(confidence, correct, bins):
    total = 0.0
    for b in range(bins):
        members = [
            (c, r) for c, r in zip(confidence, correct, strict=True) if min(int(c * bins), bins - 1) == b
        ]
        if members:
            accuracy = sum(r for _, r in members) / len(members)
            mean = sum(c for c, _ in members) / len(members)
            total += len(members) / len(confidence) * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_error_equals_the_naive_loop(bins):
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(500, generator=generator, dtype=torch.float64)
    correct = torch.rand(500, generator=generator) < 0.6
    expected = _reference_error(confidence.tolist(), correct.tolist(), bins)
    assert calibration_error(confidence, correct, bins) == pytest.approx(expected, abs=1e-12)


def test_as_sure_as_right_has_no_error():
    correct = torch.tensor([True] * 3 + [False])
    assert calibration_error(torch.full((4,), 0.75), correct) == 0


def test_sure_and_wrong_is_the_largest_error():
    assert calibration_error(torch.ones(5), torch.zeros(5, dtype=torch.bool)) == 1
    assert calibration_error(torch.zeros(5), torch.ones(5, dtype=torch.bool)) == 1


def test_opposite_errors_in_different_bins_do_not_cancel():
    confidence = torch.tensor([0.9, 0.1])
    assert calibration_error(confidence, torch.tensor([False, True])) == pytest.approx(0.9)
    assert calibration_error(confidence, torch.tensor([False, True]), bins=1) == pytest.approx(0, abs=1e-7)


def test_without_elements_there_is_no_error_to_tell():
    assert math.isnan(calibration_error(torch.empty(0), torch.empty(0, dtype=torch.bool)))


def test_half_precision_is_counted_in_float64():
    confidence = torch.full((100_000,), 0.75, dtype=torch.float16)
    assert calibration_error(confidence, torch.ones(100_000, dtype=torch.bool)) == pytest.approx(0.25)
