"""The adult tissue template that nilearn ships, cut down to the cerebrum as in iSeg."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template
from numpy.typing import NDArray
from scipy import ndimage

_ACROSS_MM = (0.0, 12.0, 20.0, 28.0, 40.0, 55.0)
_ALONG_MM = (-110.0, -100.0, -80.0, -62.0, -45.0, -35.0, -28.0, -20.0, -10.0, 0.0)
_FLOOR_MM = (
    (-20.0, -20.0, -20.0, -20.0, -22.0, -24.0),
    (-20.0, -20.0, -20.0, -20.0, -22.0, -24.0),
    (-13.0, -15.0, -17.0, -18.0, -20.0, -24.0),
    (2.0, -8.0, -11.0, -14.0, -20.0, -25.0),
    (-4.0, -10.0, -14.0, -18.0, -25.0, -29.0),
    (-9.0, -12.0, -21.0, -27.0, -33.0, -36.0),
    (-10.0, -12.0, -30.0, -34.0, -45.0, -60.0),
    (-12.0, -14.0, -34.0, -60.0, -60.0, -60.0),
    (-18.0, -20.0, -60.0, -60.0, -60.0, -60.0),
    (-60.0, -60.0, -60.0, -60.0, -60.0, -60.0),
)
"""Height of the tentorium and of the cut through the midbrain, by position along y and distance from x = 0."""

_MARGIN = 12
_ENVELOPE_CLOSING_MM = 5.0
_VENTRICLE_DEPTH_MM = 22.0


@dataclass(frozen=True, eq=False)
class Template:
    """The cerebrum of the ICBM 2009a average, adult size, 1 mm, RAS+.

    Args:
        gray: Probability of gray matter.
        white: Probability of white matter.
        depth: Distance in mm from the surface of the brain, sulci closed; negative outside.
        ventricles: Smooth map, near 1 in the lateral and third ventricles.
        center: Voxel index of the middle of the brain box.
        origin_mm: MNI position of voxel (0, 0, 0).

    Shapes:
        gray, white, depth, ventricles: ``(I, J, K)``
    """

    gray: NDArray[np.float32]
    white: NDArray[np.float32]
    depth: NDArray[np.float32]
    ventricles: NDArray[np.float32]
    center: NDArray[np.float64]
    origin_mm: NDArray[np.float64]


@lru_cache(maxsize=1)
def cerebrum_template() -> Template:
    """Load the tissue maps, remove cerebellum and brain stem, crop to the cerebrum."""
    image = load_mni152_gm_template(resolution=1)
    gray = np.asarray(image.dataobj, dtype=np.float32)
    white = np.asarray(load_mni152_wm_template(resolution=1).dataobj, dtype=np.float32)
    origin = np.asarray(image.affine[:3, 3], dtype=np.float64)
    kept = _above_floor(gray.shape, origin) & (gray + white > 0.3)
    kept = _largest_component(ndimage.binary_opening(kept))
    low = np.maximum(np.argwhere(kept).min(axis=0) - _MARGIN, 0)
    high = np.argwhere(kept).max(axis=0) + _MARGIN + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    depth = _envelope_depth(kept[box])
    envelope = depth > 0
    inside = np.where(_above_floor(gray.shape, origin)[box] & envelope, np.float32(1), np.float32(0))
    gray, white, origin = gray[box] * inside, white[box] * inside, origin + low
    edges = np.argwhere(envelope)
    return Template(
        gray=gray,
        white=white,
        depth=depth,
        ventricles=_ventricles(1 - gray - white, depth, origin),
        center=(edges.min(axis=0) + edges.max(axis=0)) / 2.0,
        origin_mm=origin,
    )


def _above_floor(shape: tuple[int, ...], origin: NDArray[np.float64]) -> NDArray[np.bool_]:
    across = np.abs(np.arange(shape[0]) + origin[0])
    along = np.arange(shape[1]) + origin[1]
    by_row = np.stack([np.interp(across, _ACROSS_MM, row) for row in _FLOOR_MM])
    floor = np.stack([np.interp(along, _ALONG_MM, column) for column in by_row.T])  # (I, J)
    return np.asarray((np.arange(shape[2]) + origin[2])[None, None] > floor[:, :, None])


def _largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _envelope_depth(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the depth below the surface of the closed mask; at least minus the radius of the closing."""
    grown = ndimage.distance_transform_edt(~mask) <= _ENVELOPE_CLOSING_MM
    depth = ndimage.distance_transform_edt(grown) - _ENVELOPE_CLOSING_MM
    return np.asarray(ndimage.gaussian_filter(depth, 1.0), dtype=np.float32)


def _ventricles(
    fluid: NDArray[np.float32], depth: NDArray[np.float32], origin: NDArray[np.float64]
) -> NDArray[np.float32]:
    x, y, z = (np.arange(n) + start for n, start in zip(fluid.shape, origin, strict=True))
    box = (
        (np.abs(x) < 36)[:, None, None]
        & ((y > -52) & (y < 38))[None, :, None]
        & ((z > -26) & (z < 32))[None, None, :]
    )
    core = np.where(box & (depth > _VENTRICLE_DEPTH_MM), fluid, np.float32(0))
    smooth = ndimage.gaussian_filter(core, 1.5)
    return np.asarray(np.clip(smooth / 0.6, 0, 1), dtype=np.float32)
