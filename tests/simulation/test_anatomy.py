"""The brain holds the tissue shares it was drawn with."""

import numpy as np

from medssl.simulation.anatomy import Anatomy, _tissue_shares, draw_traits
from medssl.simulation.sampling import FIELD_OF_VIEW_MM


def test_shares_are_reached_whatever_the_odds() -> None:
    traits = draw_traits(np.random.default_rng(1))
    logits = np.random.default_rng(2).normal([[3.0], [0.0], [-4.0]], 2.0, (3, 200_000))
    gray, white = _tissue_shares(logits, traits, np.ones(200_000))
    winner = np.argmax(np.stack([gray, white, 1 - gray - white]), axis=0)
    found = np.bincount(winner) / 200_000
    wanted = [1 - traits.white_share - traits.csf_share, traits.white_share, traits.csf_share]
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_tissues_are_parts_of_the_brain(anatomy: Anatomy) -> None:
    assert anatomy.gray.shape == FIELD_OF_VIEW_MM
    assert min(float(part.min()) for part in (anatomy.gray, anatomy.white)) >= 0
    assert float((anatomy.gray + anatomy.white - anatomy.inside).max()) < 0.5
    assert float((anatomy.gray + anatomy.white).max()) <= 1 + 1e-5


def test_two_draws_differ_in_size() -> None:
    sizes = [draw_traits(np.random.default_rng(seed)).scale for seed in range(20)]
    assert 0.02 < float(np.std(sizes, axis=0).min()) < 0.1


def test_front_and_back_are_not_swapped(anatomy: Anatomy) -> None:
    inside = anatomy.inside > 0.5
    front, back = inside.copy(), inside.copy()
    front[:, :120] = False
    back[:, 60:] = False
    assert anatomy.posterior[front].mean() < 0.3 < 0.7 < anatomy.posterior[back].mean()
