"""Registered labeled scans in the shape of another one: its prior, and labeled scans with its anatomy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.labels import UNKNOWN
from medssl.registration import Registration, anatomical_prior


@dataclass(frozen=True, eq=False)
class WarpedAtlas:
    """A labeled scan on the grid of another one.

    Args:
        image: ``(C, I, J, K)`` float16.
        label: ``(I, J, K)`` uint8, unknown where less than half of a voxel has a known label.
        mask: ``(I, J, K)`` bool.
    """

    image: NDArray[np.float16]
    label: NDArray[np.uint8]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class WarpedScan:
    """What the atlases of one scan give.

    Args:
        prior: ``(K, I, J, K)`` float16, above 0, sums to 1 over classes.
        atlases: The warped images that were asked for, by name.
    """

    prior: NDArray[np.float16]
    atlases: dict[str, WarpedAtlas]


def warp_onto(
    atlases: Sequence[tuple[str, Path, NDArray[Any], NDArray[np.float32] | None]],
    shape: Sequence[int],
    classes: int,
    absent: Sequence[int],
    sigma_voxels: float,
    floor: float,
) -> WarpedScan:
    """Warp labeled scans onto the grid of another one, each in a single pass.

    Args:
        atlases: Name, file of the registration, labels ``(I, J, K)``; image and mask ``(C + 1, I, J, K)`` where the
            warped scan is wanted.
        shape: Of the grid.
        classes: K.
        absent: Classes that none of them has.
        sigma_voxels: See `anatomical_prior`.
        floor: As there.
    """
    if not atlases:
        return WarpedScan(np.full((classes, *shape), 1 / classes, np.float16), {})
    shares, warped = [], {}
    for name, path, label, image_and_mask in atlases:
        one_hot = np.stack([label == number for number in range(classes)]).astype(np.float32)
        registration = Registration.load(path)
        if image_and_mask is None:
            shares.append(registration.warp_image(one_hot))
            continue
        found = registration.warp_image(np.concatenate([one_hot, image_and_mask]))
        shares.append(found[:classes])
        warped[name] = _labeled_scan(found[classes:-1], found[:classes], found[-1])
    prior = anatomical_prior(shares, [1.0] * len(shares), sigma_voxels, floor)
    return WarpedScan(_flat_for_absent(prior, absent), warped)


def _labeled_scan(
    image: NDArray[np.float32], shares: NDArray[np.float32], mask: NDArray[np.float32]
) -> WarpedAtlas:
    label = np.where(shares.sum(0) >= 0.5, shares.argmax(0), UNKNOWN).astype(np.uint8)
    return WarpedAtlas(image.astype(np.float16), label, mask > 0.5)


def _flat_for_absent(prior: NDArray[np.float32], absent: Sequence[int]) -> NDArray[np.float16]:
    """Give classes that no atlas has the share 1 / K everywhere: nobody knows where they are."""
    if absent:
        prior = prior * (1 - len(absent) / len(prior)) / np.delete(prior, absent, axis=0).sum(0)
        prior[list(absent)] = 1 / len(prior)
    return prior.astype(np.float16)
