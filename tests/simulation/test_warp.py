"""Warps are smooth maps without folds."""

import numpy as np
import pytest

from medssl.errors import ConfigError
from medssl.simulation.warp import exponential, random_warp, smallest_jacobian


def test_exponential_of_constant_velocity_is_that_shift() -> None:
    velocity = np.zeros((3, 12, 12, 12))
    velocity[1] = 1.5
    np.testing.assert_allclose(exponential(velocity)[1], 1.5)


def test_exponential_of_linear_velocity_is_exponential_growth() -> None:
    x = np.arange(21.0) - 10
    velocity = np.zeros((3, 21, 5, 5))
    velocity[0] = 0.05 * x[:, None, None]
    expected = (np.exp(0.05) - 1) * x[4:17]
    np.testing.assert_allclose(exponential(velocity)[0, 4:17, 2, 2], expected, rtol=0.01)


def test_opposite_velocities_give_inverse_maps() -> None:
    x = np.linspace(0, 2 * np.pi, 25)
    velocity = np.zeros((3, 25, 5, 5))
    velocity[0] = np.sin(x)[:, None, None]
    there, back = (exponential(sign * velocity)[0, :, 2, 2] for sign in (1, -1))
    places = np.arange(25) + there
    np.testing.assert_allclose(places + np.interp(places, np.arange(25), back), np.arange(25), atol=0.08)


def test_smallest_jacobian_of_a_known_map() -> None:
    displacement = np.zeros((3, 6, 6, 6))
    displacement[0] = -0.5 * np.arange(6)[:, None, None]
    displacement[2] = 0.2 * np.arange(6)
    assert smallest_jacobian(displacement) == pytest.approx(0.5 * 1.2)


def test_smallest_jacobian_sees_a_single_fold() -> None:
    displacement = np.zeros((3, 6, 6, 6))
    displacement[1, 3, 3, 3] = -1.2
    assert smallest_jacobian(displacement) < 0


def test_random_warp_is_refused_where_it_folds() -> None:
    with pytest.raises(ConfigError, match=r"folds.*Jacobian"):
        random_warp(np.random.default_rng(0), (32, 32, 32), ((8.0, 60.0),))


def test_random_warp_moves_by_millimeters() -> None:
    warp = random_warp(np.random.default_rng(0), (64, 64, 64), ((28.0, 3.0), (14.0, 2.0), (8.0, 1.0)))
    assert warp.shape == (3, 64, 64, 64)
    assert 1.0 < float(warp.std()) < 8.0
    assert smallest_jacobian(warp) > 0
