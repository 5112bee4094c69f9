import numpy as np
import pytest

from medssl.evaluation.temperature import BOUNDS, fit_temperature, negative_log_likelihood, with_temperature
from medssl.labels import UNKNOWN


def _reference_loss(labels, scores, temperature):
    total = 0.0
    for label, row in zip(labels, scores, strict=True):
        powers = np.exp(row / temperature - max(row / temperature))
        total -= np.log(powers[label] / powers.sum())
    return total / len(labels)


@pytest.fixture
def sample():
    """Labels drawn from the softmax of known scores: their right temperature is 1."""
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (4000, 4))
    return np.array([rng.choice(4, p=row) for row in with_temperature(scores, 1.0)]), scores


def test_the_loss_agrees_with_a_naive_loop(sample):
    labels, scores = sample[0][:50], sample[1][:50]
    assert negative_log_likelihood(labels, scores / 1.7) == pytest.approx(
        _reference_loss(labels, scores, 1.7)
    )


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_a_factor(sample, factor):
    labels, scores = sample
    assert fit_temperature(labels, factor * scores) == pytest.approx(factor, rel=0.06)


def test_no_other_temperature_explains_the_images_better(sample):
    labels, scores = sample[0][:200], 2.5 * sample[1][:200]
    best = fit_temperature(labels, scores)
    least = _reference_loss(labels, scores, best)
    assert all(least <= _reference_loss(labels, scores, one) for one in np.linspace(0.2, 8, 60))


def test_log_probabilities_give_the_same_temperature_and_no_argmax_moves(sample):
    labels, scores = sample[0][:300], 2 * sample[1][:300]
    temperature = fit_temperature(labels, scores)
    assert fit_temperature(labels, np.log(with_temperature(scores, 1.0))) == pytest.approx(
        temperature, rel=1e-4
    )
    found = with_temperature(scores, temperature)
    assert (found.argmax(1) == scores.argmax(1)).all()
    np.testing.assert_allclose(found.sum(1), 1)


def test_images_without_an_error_end_at_the_bound():
    assert fit_temperature(np.array([0, 1]), np.eye(2)) == pytest.approx(BOUNDS[0], rel=0.01)


def test_unknown_images_do_not_count(sample):
    labels, scores = sample[0][:100].copy(), sample[1][:100]
    labels[50:] = UNKNOWN
    assert fit_temperature(labels, scores) == fit_temperature(labels[:50], scores[:50])


@pytest.mark.parametrize(
    ("labels", "scores"), [([UNKNOWN], [[1.0, 2.0]]), ([0], [[np.inf, 0.0]]), ([], np.zeros((0, 2)))]
)
def test_what_cannot_be_fitted_is_refused(labels, scores):
    with pytest.raises(ValueError, match="at least one image"):
        fit_temperature(np.array(labels, dtype=int), np.array(scores))
