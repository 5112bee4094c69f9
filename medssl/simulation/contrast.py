"""What the tissues look like at an age: the signal of T1w and T2w before the scanner blurs and samples it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.simulation.anatomy import Anatomy
from medssl.simulation.fields import random_field

CONTRASTS = ("T1w", "T2w")
"""What a subject is scanned with, in channel order."""


@dataclass(frozen=True)
class ContrastTraits:
    """How one subject's tissues look in one contrast; signals against a brain of about 0.5.

    Args:
        gray: Mean signal of gray matter.
        fluid: Mean signal of CSF.
        maturation: Signal that white matter gains from unmyelinated to myelinated, halved.
        offset: White against gray matter where the myelination is halfway.
        offset_spread: How far subjects lie from this offset, to either side.
        lag_months: How much later than the myelin itself the contrast changes.
        gray_texture: Standard deviation inside gray matter.
        white_texture: Standard deviation inside white matter.
        deep_gray: Signal that the central gray matter gains with myelin.
    """

    gray: float
    fluid: float
    maturation: float
    offset: float
    offset_spread: float
    lag_months: float
    gray_texture: float
    white_texture: float
    deep_gray: float


_SPEED_MONTHS = 3.5
_AGE_SPREAD_MONTHS = 0.8
_TYPICAL = {
    "T1w": ContrastTraits(0.50, 0.24, 0.075, -0.012, 0.045, 0.0, 0.009, 0.009, 0.010),
    "T2w": ContrastTraits(0.47, 0.85, -0.060, 0.040, 0.035, 1.2, 0.011, 0.012, -0.008),
}


def draw_signals(
    rng: np.random.Generator, anatomy: Anatomy, age_months: float
) -> dict[str, NDArray[np.float32]]:
    """Draw the signal of each contrast on the grid of the anatomy; outside the brain is CSF.

    Args:
        rng: Source of the subject's contrast.
        anatomy: The brain.
        age_months: Age at the scan; subjects of one age are up to two months apart in maturation.

    Returns:
        Signal per contrast, CSF around the brain included (the skull is stripped after sampling).

    Shapes:
        return: each ``FIELD_OF_VIEW_MM``
    """
    brain = anatomy.inside > 0
    myelin_age = _myelin_age(rng, anatomy, brain)
    maturity_months = age_months + _AGE_SPREAD_MONTHS * float(np.clip(rng.standard_normal(), -2, 2))
    shared = [_texture(rng, brain) for _ in range(2)]
    signals = {}
    for name in CONTRASTS:
        traits = _draw_traits(rng, _TYPICAL[name])
        own = [_texture(rng, brain) for _ in range(2)]
        gray_texture, white_texture = (0.6 * a + 0.8 * b for a, b in zip(shared, own, strict=True))
        myelin = np.tanh((maturity_months - traits.lag_months - myelin_age) / _SPEED_MONTHS)
        central = np.clip((anatomy.depth[brain] - 14.0) / 10.0, 0, 1)
        gray = traits.gray + traits.deep_gray * central * (1 + myelin) + traits.gray_texture * gray_texture
        white = (
            traits.gray + traits.offset + traits.maturation * myelin + traits.white_texture * white_texture
        )
        signal = np.full(brain.shape, traits.fluid, dtype=np.float32)
        signal[brain] = (
            anatomy.gray[brain] * gray
            + anatomy.white[brain] * white
            + (1.0 - anatomy.gray[brain] - anatomy.white[brain]) * traits.fluid
        )
        signals[name] = signal
    return signals


def _draw_traits(rng: np.random.Generator, typical: ContrastTraits) -> ContrastTraits:
    draw = rng.standard_normal
    return ContrastTraits(
        gray=typical.gray + 0.03 * draw(),
        fluid=typical.fluid + 0.07 * float(np.clip(draw(), -2, 2)),
        maturation=typical.maturation * float(np.exp(0.3 * draw())),
        offset=typical.offset + typical.offset_spread * _either_sign(rng),
        offset_spread=typical.offset_spread,
        lag_months=typical.lag_months + 0.5 * draw(),
        gray_texture=typical.gray_texture * float(np.exp(0.35 * draw())),
        white_texture=typical.white_texture * float(np.exp(0.35 * draw())),
        deep_gray=typical.deep_gray + 0.015 * draw(),
    )


def _either_sign(rng: np.random.Generator) -> float:
    """Draw a number near 1 or near -1: white matter ahead of or behind the typical subject."""
    return float(rng.choice((-1.0, 1.0)) * (1 + 0.25 * np.clip(rng.standard_normal(), -2, 2)))


def _myelin_age(rng: np.random.Generator, anatomy: Anatomy, brain: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the age in months at which each place is half myelinated: center first, back before front."""
    depth = anatomy.depth[brain].astype(np.float64)
    posterior = anatomy.posterior[brain].astype(np.float64)
    along, across = 5.0 + 0.8 * rng.standard_normal(), 4.0 + 0.8 * rng.standard_normal()
    central_sulcus = np.exp(-(((posterior - 0.52) / 0.12) ** 2)) * np.clip(anatomy.height[brain] - 0.4, 0, 1)
    months = (
        5.6 - along * (posterior - 0.5) - across * (np.clip(depth / 28.0, 0, 1) - 0.45) - 3.0 * central_sulcus
    )
    return np.asarray(months + 1.8 * random_field(rng, brain.shape, 12.0)[brain])


def _texture(rng: np.random.Generator, brain: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Draw a field with fine and coarse parts, standard deviation near 1."""
    fine = random_field(rng, brain.shape, 1.0)[brain].astype(np.float64)
    return np.asarray(0.6 * fine + 0.8 * random_field(rng, brain.shape, 4.0)[brain])
