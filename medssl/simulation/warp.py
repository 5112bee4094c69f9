"""Random diffeomorphic warps: the exponential of a smooth velocity field."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.errors import ConfigError
from medssl.simulation.fields import random_field, upsampled

GRID_MM = 4
"""Spacing of the velocity grid: half the finest scale of the warps."""

_SQUARINGS = 6


def random_warp(
    rng: np.random.Generator, shape: tuple[int, int, int], scales: tuple[tuple[float, float], ...]
) -> NDArray[np.float32]:
    """Draw a displacement without folds on a 1 mm grid.

    Args:
        rng: Source of the velocity field.
        shape: Grid of the result.
        scales: Pairs of (width of the smoothing in mm, standard deviation of the velocity in mm).

    Returns:
        Displacement in mm along each axis.

    Shapes:
        return: ``(3, I, J, K)``

    Raises:
        ConfigError: The map folds somewhere, which amplitudes out of proportion to their widths can do.
    """
    coarse = tuple(n // GRID_MM + 2 for n in shape)
    velocity = np.stack(
        [
            sum(amplitude * random_field(rng, coarse, width, GRID_MM) for width, amplitude in scales)
            for _ in range(3)
        ]
    )
    displacement = exponential(velocity / GRID_MM)
    smallest = smallest_jacobian(displacement)
    if smallest <= 0:
        msg = (
            f"The random warp folds: its smallest Jacobian determinant is {smallest:.3f}, expected more than 0. "
            f"Use smaller amplitudes than {scales} (width mm, amplitude mm)."
        )
        raise ConfigError(msg)
    return np.stack([upsampled(GRID_MM * part.astype(np.float32), shape, GRID_MM) for part in displacement])


def exponential(velocity: NDArray[np.floating]) -> NDArray[np.float64]:
    """Integrate a stationary velocity field over unit time by scaling and squaring.

    Args:
        velocity: In voxels of its own grid.

    Returns:
        Displacement in voxels.

    Shapes:
        velocity: ``(3, I, J, K)``
        return: ``(3, I, J, K)``

    Source:
        Arsigny et al. 2006, https://doi.org/10.1007/11866565_113. Own implementation.
    """
    displacement = np.asarray(velocity, dtype=np.float64) / 2**_SQUARINGS
    grid = np.indices(displacement.shape[1:], dtype=np.float64)
    for _ in range(_SQUARINGS):
        places = grid + displacement
        displacement = displacement + np.stack(
            [ndimage.map_coordinates(part, places, order=1, mode="nearest") for part in displacement]
        )
    return displacement


def smallest_jacobian(displacement: NDArray[np.floating]) -> float:
    """Return the smallest determinant of the Jacobian of ``x + displacement(x)`` over all cell corners.

    Shapes:
        displacement: ``(3, I, J, K)`` in voxels
    """
    steps = [np.diff(displacement, axis=axis + 1) for axis in range(3)]
    size = tuple(n - 1 for n in displacement.shape[1:])
    smallest = np.inf
    for corner in itertools.product((0, 1), repeat=3):
        columns = []
        for axis in range(3):
            window = [slice(None)] * 4
            for other in range(3):
                start = 0 if other == axis else corner[other]
                window[other + 1] = slice(start, start + size[other])
            column = steps[axis][tuple(window)].copy()
            column[axis] += 1
            columns.append(column)
        a, b, c = columns
        determinant = np.einsum("iabc,iabc->abc", a, np.cross(b, c, axis=0))
        smallest = min(smallest, float(determinant.min()))
    return smallest
