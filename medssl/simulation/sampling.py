"""From the 1 mm anatomy to the voxels of a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

FIELD_OF_VIEW_MM = (144, 176, 144)
"""Extent of every simulated scan, and the number of voxels of the 1 mm anatomy."""


def output_shape(spacing: tuple[float, float, float]) -> tuple[int, int, int]:
    """Return the number of voxels that cover the field of view."""
    i, j, k = (max(1, round(extent / size)) for extent, size in zip(FIELD_OF_VIEW_MM, spacing, strict=True))
    return i, j, k


def centers_mm(length: int, spacing: float) -> NDArray[np.float64]:
    """Return voxel centers along one axis; the middle of the field of view is 0."""
    return (np.arange(length) - (length - 1) / 2) * spacing


def scan_affine(spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return the RAS+ affine of a scan that is centered on the field of view."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [centers_mm(n, s)[0] for n, s in zip(output_shape(spacing), spacing, strict=True)]
    return affine


def voxel_means(volume: NDArray[np.floating], spacing: tuple[float, float, float]) -> NDArray[np.float32]:
    """Average the linearly interpolated anatomy over the box of every output voxel.

    The same formula serves spacings finer and coarser than the anatomy, so spacing changes sampling only.

    Args:
        volume: On the 1 mm grid.
        spacing: Size of the output voxels in mm.

    Returns:
        The mean of the volume over each voxel.

    Shapes:
        volume: ``FIELD_OF_VIEW_MM``
        return: ``output_shape(spacing)``
    """
    result = np.asarray(volume, dtype=np.float32)
    for axis, size in enumerate(spacing):
        weights = _box_weights(volume.shape[axis], output_shape(spacing)[axis], size)
        moved = np.moveaxis(result, axis, 0)
        flat = weights @ moved.reshape(moved.shape[0], -1)
        result = np.moveaxis(flat.reshape(-1, *moved.shape[1:]), 0, axis)
    return np.ascontiguousarray(result)


def _box_weights(length: int, count: int, size: float) -> sparse.csr_array:
    """Return the exact integral of each linear basis function over each output voxel, ``(count, length)``."""
    offset = centers_mm(count, size)[:, None] - centers_mm(length, 1.0)[None, :]
    weights = _hat_integral(offset + size / 2) - _hat_integral(offset - size / 2)
    weights /= weights.sum(axis=1, keepdims=True)
    return sparse.csr_array(weights.astype(np.float32))


def _hat_integral(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integrate the hat function ``max(0, 1 - |t|)`` from minus infinity to x."""
    x = np.clip(x, -1, 1)
    return 0.5 + x - np.sign(x) * x**2 / 2
