"""Smooth random fields on a regular grid."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_VOXELS_PER_SIGMA = 2.0


def random_field(
    rng: np.random.Generator, shape: tuple[int, int, int], sigma_mm: float, spacing: float = 1.0
) -> NDArray[np.float32]:
    """Draw white noise smoothed by a Gaussian, with mean 0 and standard deviation 1 in expectation.

    Wide fields are drawn on a coarser grid and interpolated: the same look for a small part of the time.

    Args:
        rng: Source of the noise.
        shape: Grid of the result.
        sigma_mm: Standard deviation of the Gaussian.
        spacing: Voxel size of the grid in mm.

    Returns:
        The field.

    Shapes:
        return: ``(I, J, K)``
    """
    step = max(1, math.floor(sigma_mm / spacing / _VOXELS_PER_SIGMA))
    sigma = sigma_mm / spacing / step
    pad = math.ceil(2 * sigma) + 1
    coarse = tuple(math.ceil(n / step) + 2 * pad + 1 for n in shape)
    noise = rng.standard_normal(coarse, dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3.0)
    smooth *= (2 * math.sqrt(math.pi) * sigma) ** 1.5
    if step == 1:
        return np.ascontiguousarray(smooth[pad : pad + shape[0], pad : pad + shape[1], pad : pad + shape[2]])
    return upsampled(smooth, shape, step, float(pad))


def upsampled(
    coarse: NDArray[np.float32], shape: tuple[int, int, int], step: float, start: float = 0.0
) -> NDArray[np.float32]:
    """Interpolate a coarse grid linearly: fine voxel ``i`` lies at coarse index ``start + i / step``.

    Shapes:
        coarse: ``(I', J', K')``
        return: ``(I, J, K)``
    """
    result = coarse
    for axis, length in enumerate(shape):
        position = start + np.arange(length) / step
        below = np.minimum(position.astype(int), coarse.shape[axis] - 2)
        share = (position - below).astype(np.float32)
        share = share.reshape([-1 if a == axis else 1 for a in range(3)])
        lower = np.take(result, below, axis=axis)
        result = lower + (np.take(result, below + 1, axis=axis) - lower) * share
    return result
