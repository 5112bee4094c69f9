"""Intensities as other scanners would give them: bias field, gain, offset, contrast, noise, blur."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from monai.networks.layers import GaussianFilter
from monai.transforms import Randomizable, Transform
from numpy.polynomial import legendre
from numpy.random import RandomState
from torch import Tensor

BIAS_DEGREE = 2


class RandomIntensityd(Randomizable, Transform):
    """Change the intensities of a crop in six ways, each drawn by itself.

    Args:
        key: Entry to change.
        strength: Multiplies the range of every change but the blur; 0 for no change at all.

    Shapes:
        ``(C, I, J, K)`` float32, normalized in the mask

    Notes:
        Distributed as MONAI's transforms of the same kinds, in this order. The entry that comes in is not written
        to: it may be a view of a prepared scan.
    """

    def __init__(self, key: str, strength: float = 1.0) -> None:
        self.key = key
        self.strength = strength

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with one entry changed."""
        image = data[self.key]
        if self.strength > 0:
            for change, probability in CHANGES:
                if self.R.rand() < probability:
                    image = change(image, self.R, self.strength)
        return {**data, self.key: image}


def bias_field(image: Tensor, random: RandomState, strength: float) -> Tensor:
    r"""Multiply by a smooth field, :math:`e^{\sum_n c_n P_n(x)}`, the same for all contrasts.

    :math:`P_n` are products of Legendre polynomials of degree 2 at most in all, :math:`c_n` uniform in [0, .15].
    """
    basis = [_legendre(side) for side in image.shape[1:]]
    degrees = [n for n in itertools.product(range(BIAS_DEGREE + 1), repeat=3) if sum(n) <= BIAS_DEGREE]
    coefficients = torch.zeros((BIAS_DEGREE + 1,) * 3)
    for place, value in zip(degrees, random.uniform(0, 0.15 * strength, len(degrees)), strict=True):
        coefficients[place] = value
    field = torch.einsum("abc,ai->ibc", coefficients, basis[0])
    field = torch.einsum("ibc,bj->ijc", field, basis[1])
    return image * (field @ basis[2]).exp_()


def gain(image: Tensor, random: RandomState, strength: float) -> Tensor:
    """Multiply each contrast by 0.8 to 1.2."""
    return image * (1 + _each(random.uniform(-0.2 * strength, 0.2 * strength, len(image))))


def offset(image: Tensor, random: RandomState, strength: float) -> Tensor:
    """Add -0.2 to 0.2 standard deviations to each contrast."""
    return image + _each(random.uniform(-0.2 * strength, 0.2 * strength, len(image)))


def gamma(image: Tensor, random: RandomState, strength: float) -> Tensor:
    """Raise intensities, brought to [0, 1], to a power of 0.75 to 1.35."""
    power = random.uniform(1 - 0.25 * strength, 1 + 0.35 * strength)
    low, high = image.aminmax()
    extent = high - low
    return ((image - low) / (extent + 1e-7)).pow_(power).mul_(extent).add_(low)


def noise(image: Tensor, random: RandomState, strength: float) -> Tensor:
    """Add Gaussian noise of up to 0.15 standard deviations."""
    generator = torch.Generator().manual_seed(int(random.randint(2**31)))
    deviation = random.uniform(0, 0.15 * strength)
    return torch.empty_like(image).normal_(0, deviation, generator=generator).add_(image)


def blur(image: Tensor, random: RandomState, strength: float) -> Tensor:
    """Smooth by a Gaussian of 0.3 to 0.8 voxels along each axis."""
    return GaussianFilter(3, random.uniform(0.3, 0.8, 3).tolist(), approx="erf")(image[None])[0]


CHANGES: tuple[tuple[Callable[[Tensor, RandomState, float], Tensor], float], ...] = (
    (bias_field, 0.3),
    (gain, 0.5),
    (offset, 0.5),
    (gamma, 0.3),
    (noise, 0.3),
    (blur, 0.15),
)
"""The changes in their order, and how often each happens."""


def _each(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


@lru_cache(maxsize=16)
def _legendre(side: int) -> Tensor:
    """Return the polynomials of degree 0, 1, 2 at the voxels of a side, ``(3, side)``."""
    values = legendre.legvander(np.linspace(-1, 1, side), BIAS_DEGREE).T
    return torch.from_numpy(np.ascontiguousarray(values)).float()
