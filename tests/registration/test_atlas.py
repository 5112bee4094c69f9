import numpy as np
import pytest

from medssl.errors import RegistrationError
from medssl.registration import anatomical_prior, similarity

RNG = np.random.default_rng(0)


def _reference_smoothed(image, sigma):
    """Convolve with a Gaussian of 4 sigma a side, axis by axis, the rim repeated."""
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in range(3):
        padded = np.pad(image, [(radius, radius) if a == axis else (0, 0) for a in range(3)], mode="edge")
        parts = [
            weight * np.take(padded, range(n, n + image.shape[axis]), axis) for n, weight in enumerate(kernel)
        ]
        image = sum(parts)
    return image


def _reference_prior(warped, weights, sigma, floor):
    mean = sum(w * a.astype(np.float64) for w, a in zip(weights, warped, strict=True)) / sum(weights)
    smooth = np.stack([_reference_smoothed(channel, sigma) for channel in mean])
    prior = np.empty_like(smooth)
    for place in np.ndindex(smooth.shape[1:]):
        shares = smooth[(slice(None), *place)]
        prior[(slice(None), *place)] = (shares + floor / len(shares)) / (shares.sum() + floor)
    return prior


def _labels(seed, classes=3, shape=(6, 5, 7)):
    rng = np.random.default_rng(seed)
    one_hot = np.eye(classes)[rng.integers(0, classes, shape)]
    one_hot[-2:] = 0
    return np.moveaxis(one_hot, -1, 0).astype(np.float32)


@pytest.mark.parametrize(("sigma", "floor"), [(0.7, 0.02), (1.3, 0.2)])
def test_prior_equals_the_naive_formula(sigma, floor):
    warped, weights = [_labels(0), _labels(1), _labels(2)], [1.0, 0.5, 0.0]
    found = anatomical_prior(warped, weights, sigma, floor)
    np.testing.assert_allclose(found, _reference_prior(warped, weights, sigma, floor), atol=1e-6)


def test_prior_is_a_distribution_that_excludes_nothing():
    found = anatomical_prior([_labels(0)], [1.0])
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    assert found.min() >= 0.02 / 3 / 1.02 - 1e-6


def test_prior_is_flat_where_no_atlas_reaches():
    nothing = np.zeros((3, 6, 5, 7), np.float32)
    np.testing.assert_allclose(anatomical_prior([nothing], [1.0]), 1 / 3)


def test_failed_registrations_have_no_say():
    good, bad = _labels(0), _labels(1)
    np.testing.assert_array_equal(anatomical_prior([good, bad], [1, 0]), anatomical_prior([good], [1]))
    np.testing.assert_allclose(anatomical_prior([good, bad], [0, 0]), 1 / 3)


@pytest.mark.parametrize(
    ("warped", "weights"),
    [([], []), ([_labels(0)], [1, 1]), ([_labels(0)], [-1]), ([_labels(0), _labels(0)[:2]], [1, 1])],
)
def test_atlases_that_do_not_fit_are_refused(warped, weights):
    with pytest.raises(RegistrationError):
        anatomical_prior(warped, weights)


def test_similarity_is_the_correlation_in_the_mask():
    x, y = RNG.normal(size=(2, 2, 5, 6, 7))
    mask = RNG.random((5, 6, 7)) > 0.5
    wanted = np.mean([np.corrcoef(a[mask], b[mask])[0, 1] for a, b in zip(x, y, strict=True)])
    assert similarity(x, y, mask) == pytest.approx(wanted)
    assert similarity(x, 3 * x + 5) == pytest.approx(1)
    assert similarity(x, np.ones_like(x)) == 0
