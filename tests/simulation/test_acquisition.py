"""What the scanner does to a signal."""

import numpy as np
import pytest

from medssl.errors import ConfigError
from medssl.simulation.acquisition import bias_field, known_site, with_motion, with_rician_noise


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_unknown_site_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'Z'.*A, B"):
        known_site("Z")


def test_noise_without_signal_follows_a_rayleigh_distribution(rng: np.random.Generator) -> None:
    noise = with_rician_noise(rng, np.zeros((40, 40, 40)), 2.0)
    assert float(noise.mean()) == pytest.approx(2.0 * np.sqrt(np.pi / 2), rel=0.02)


def test_noise_on_strong_signal_is_gaussian(rng: np.random.Generator) -> None:
    noisy = with_rician_noise(rng, np.full((40, 40, 40), 100.0), 2.0)
    assert float(noisy.std()) == pytest.approx(2.0, rel=0.02)


def test_no_motion_leaves_the_image_alone(rng: np.random.Generator) -> None:
    image = rng.random((4, 16, 4))
    assert with_motion(rng, image, 0.0, 1.0) is image


def test_motion_makes_ghosts_along_j_only(rng: np.random.Generator) -> None:
    image = np.zeros((8, 64, 8))
    image[4, 30:34, 4] = 1.0
    moved = with_motion(rng, image, 4.0, 1.0)
    assert moved[4, 10:20, 4].max() > 0.01
    assert moved[3].max() < 1e-12
    assert float((moved**2).sum()) == pytest.approx(4.0)


def test_bias_is_the_same_field_at_any_spacing() -> None:
    fine = bias_field(np.random.default_rng(3), (1.0, 1.0, 1.0))
    coarse = bias_field(np.random.default_rng(3), (2.0, 2.0, 2.0))
    means = fine.reshape(72, 2, 88, 2, 72, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(coarse, means, atol=0.01)
