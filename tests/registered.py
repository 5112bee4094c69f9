"""Tiny scans with known anatomy for registration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.registration import RegistrationSettings, Scan

SIDE = 24
QUICK = RegistrationSettings(iterations=(15, 10))


def positions() -> NDArray[np.float64]:
    """Voxel numbers, ``(3, I, J, K)``."""
    return np.stack(np.meshgrid(*[np.arange(SIDE, dtype=float)] * 3, indexing="ij"))


def anatomy(
    center: tuple[float, ...] = (12.0, 11.0, 12.0),
    radii: tuple[float, ...] = (7.0, 8.0, 6.0),
    bend: float = 0,
) -> NDArray[np.uint8]:
    """An ellipsoid (1) with a smaller one (2) inside it, off its center, bent to one side."""
    x = positions()
    x[0] += bend * np.cos(2 * np.pi * x[1] / SIDE)
    middle, size = (np.reshape(value, (3, 1, 1, 1)) for value in (center, radii))
    labels = (np.sum(((x - middle) / size) ** 2, 0) < 1).astype(np.uint8)
    inner = middle + size * np.reshape((0.25, -0.2, 0.1), (3, 1, 1, 1))
    labels[np.sum(((x - inner) / (0.5 * size)) ** 2, 0) < 1] = 2
    return labels


def intensities(
    labels: NDArray[np.uint8], means: tuple[float, ...] = (10.0, 60.0, 100.0), seed: int = 0
) -> NDArray[np.float32]:
    """A scan of the anatomy with a little noise."""
    noise = np.random.default_rng(seed).normal(0, 1.5, labels.shape)
    return ndimage.gaussian_filter(np.array(means)[labels] + noise, 0.7).astype(np.float32)


def scan(labels: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None, seed: int = 0) -> Scan:
    """One contrast at 1 mm."""
    return Scan(intensities(labels, seed=seed)[None], np.eye(4), mask)


def dice(found: NDArray, truth: NDArray, number: int = 1) -> float:
    """Overlap of one class."""
    a, b = found == number, truth == number
    return 2 * np.sum(a & b) / (a.sum() + b.sum())
