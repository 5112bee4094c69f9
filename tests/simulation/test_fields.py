"""Random fields have the promised spread and smoothness."""

import numpy as np
import pytest

from medssl.simulation.fields import random_field, upsampled


@pytest.mark.parametrize(("sigma_mm", "spacing"), [(1.5, 1.0), (4.0, 1.0), (8.0, 4.0)])
def test_field_has_mean_0_and_deviation_1(sigma_mm: float, spacing: float) -> None:
    field = random_field(np.random.default_rng(0), (64, 72, 56), sigma_mm, spacing)
    assert field.shape == (64, 72, 56)
    assert abs(float(field.mean())) < 0.15
    assert 0.75 < float(field.std()) < 1.15


def test_wider_field_changes_more_slowly() -> None:
    steps = [
        float(np.abs(np.diff(random_field(np.random.default_rng(0), (48, 48, 48), sigma), axis=0)).mean())
        for sigma in (2.0, 6.0)
    ]
    assert steps[1] < 0.5 * steps[0]


def test_upsampled_agrees_with_interpolation_by_hand() -> None:
    coarse = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    fine = upsampled(coarse, (4, 4, 4), 2)
    assert fine[1, 0, 0] == 4.5
    assert fine[3, 2, 1] == 9 * 1.5 + 3 * 1 + 0.5
