"""A scan as registration sees it, and its way to SimpleITK and back.

SimpleITK's physical space is used for RAS+ mm: both scans live in it, and nothing of it is written as an ITK
file, so that no axis ever changes its sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name
from numpy.typing import NDArray

from medssl.errors import RegistrationError
from medssl.geometry import Grid

_MARGIN_VOXELS = 4
_NEAR = 1.5
_INSIDE = 0.1
_SMALLEST_SIDE = 8


@dataclass(frozen=True, eq=False)
class Scan:
    """The contrasts of one scan on one grid.

    Args:
        image: ``(C, I, J, K)`` float32, contrasts in an order that all scans share.
        affine: 4 x 4, voxel -> RAS+ mm.
        mask: ``(I, J, K)`` bool, the brain. None for scans without a mask, or nothing but True.
        subject: Its name, for error messages.

    Raises:
        RegistrationError: Shapes do not fit, the image is not finite, or the mask is empty.
    """

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    mask: NDArray[np.bool_] | None = None
    subject: str = "A scan to register"

    def __post_init__(self) -> None:
        if self.image.ndim != 4 or np.shape(self.affine) != (4, 4):
            found = f"the shape {self.image.shape} and an affine {np.shape(self.affine)}"
            msg = f"{self.subject} has {found}; expected (C, I, J, K) and (4, 4)."
            raise RegistrationError(msg)
        if self.mask is not None and (self.mask.shape != self.image.shape[1:] or not self.mask.any()):
            msg = f"{self.subject} of shape {self.image.shape} has a mask of shape {self.mask.shape} "
            msg += f"with {int(self.mask.sum())} voxels; expected the same grid and at least one."
            raise RegistrationError(msg)
        if not np.isfinite(self.image).all():
            msg = f"{self.subject} holds NaN or infinite voxels; expected none."
            raise RegistrationError(msg)

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        i, j, k = self.image.shape[1:]
        return Grid((i, j, k), np.asarray(self.affine, np.float64))

    @property
    def inside(self) -> NDArray[np.bool_]:
        """The mask, or all voxels where there is none."""
        return np.ones(self.image.shape[1:], np.bool_) if self.mask is None else self.mask

    @property
    def is_masked(self) -> bool:
        """Tell whether anything lies outside the mask."""
        return self.mask is not None and not self.mask.all()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let SimpleITK use one thread: sums come out in one order, so that results repeat bit for bit."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def working_grid(scan: Scan, spacing_mm: float) -> Grid:
    """Choose the grid on which a displacement is found: along R, A, S, around the mask.

    A voxel has a 48th of the mask's longest side, at most ``spacing_mm`` and never less than the scan's own;
    where that is less than 1.5 times the scan's own, the scan's own is kept. So whole brains get 2 mm, and
    crops of 50 mm at 1 mm stay as they are.
    """
    inside = np.argwhere(scan.inside)
    low, high = inside.min(0), inside.max(0)
    if scan.is_masked:
        low, high = low - _MARGIN_VOXELS, high + _MARGIN_VOXELS
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1).T
    corners = corners @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    start, extent = corners.min(0), np.ptp(corners, axis=0)
    own = _spacing_along_ras(scan.grid)
    wanted = min(spacing_mm, float(extent.max()) / 48)
    spacing = np.where(wanted < _NEAR * own, own, wanted)
    i, j, k = (max(_SMALLEST_SIDE, int(n)) for n in np.ceil(extent / spacing - 1e-6) + 1)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = start
    return Grid((i, j, k), affine)


def coarser(grid: Grid, factor: int) -> Grid:
    """Return a grid over the same field of view with voxels ``factor`` times as large (8 a side at least)."""
    old = np.array(grid.shape)
    shape = np.maximum(_SMALLEST_SIDE, np.ceil(old / factor)).astype(int)
    scale = old / shape
    affine = grid.affine @ np.diag([*scale, 1.0])
    affine[:3, 3] = grid.affine[:3, :3] @ ((scale - 1) / 2) + grid.affine[:3, 3]
    i, j, k = (int(n) for n in shape)
    return Grid((i, j, k), affine)


def to_itk(array: NDArray[np.generic], grid: Grid) -> sitk.Image:
    """Make an image of ``(I, J, K)``, or of vectors ``(C, I, J, K)``."""
    vectors = array.ndim == 4
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T), isVector=vectors)
    return placed(image, grid)


def placed(image: sitk.Image, grid: Grid) -> sitk.Image:
    """Give an image the position and spacing of a grid."""
    spacing = np.array(grid.spacing)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(grid.affine[:3, 3].tolist())
    image.SetDirection((grid.affine[:3, :3] / spacing).ravel().tolist())
    return image


def to_array(image: sitk.Image) -> NDArray[np.generic]:
    """Return the voxels as ``(I, J, K)`` or ``(C, I, J, K)``."""
    return np.ascontiguousarray(sitk.GetArrayViewFromImage(image).T)


def resampled(
    image: sitk.Image, grid: Grid, transform: sitk.Transform | None = None, *, extend: bool = False
) -> sitk.Image:
    """Interpolate an image linearly on a grid.

    Args:
        image: Scalars or vectors.
        grid: Where to.
        transform: From positions on the grid to positions in the image; None for the same.
        extend: Outside its field of view give the nearest voxel of the rim; otherwise 0.
    """
    empty = placed(sitk.Image([int(n) for n in grid.shape], sitk.sitkUInt8), grid)
    method = sitk.ResampleImageFilter()
    method.SetReferenceImage(empty)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetTransform(transform or sitk.Transform())
    method.SetDefaultPixelValue(0.0)
    method.SetUseNearestNeighborExtrapolator(extend)
    return method.Execute(image)


def prepared(scan: Scan) -> list[NDArray[np.float32]]:
    """Bring each contrast to one range: .1 to 1 between the 1st and 99th percentile in the mask, 0 outside.

    Outside the mask a normalized image is 0, which is the mean of the brain: no edge would show its outline.
    """
    return [_in_range(contrast, scan.inside, scan.subject) for contrast in scan.image]


def smoothed(image: sitk.Image, sigmas_mm: Sequence[float]) -> sitk.Image:
    """Smooth with a Gaussian along the voxel axes; an axis with 0 is left alone."""
    for axis, sigma in enumerate(sigmas_mm):
        if sigma > 0:
            image = sitk.RecursiveGaussian(image, sigma=sigma, direction=axis)
    return image


def _in_range(contrast: NDArray[np.float32], inside: NDArray[np.bool_], subject: str) -> NDArray[np.float32]:
    low, high = np.percentile(contrast[inside], (1, 99))
    if not high > low:
        msg = f"{subject} is constant in its mask ({low:g}); expected an image."
        raise RegistrationError(msg)
    share = np.clip((contrast - low) / (high - low), 0, 1)
    return np.where(inside, _INSIDE + (1 - _INSIDE) * share, 0).astype(np.float32)


def _spacing_along_ras(grid: Grid) -> NDArray[np.float64]:
    """Return the voxel size along R, A, S: that of the voxel axis which points there most."""
    axes = np.abs(grid.affine[:3, :3] / np.array(grid.spacing))
    return np.asarray(np.array(grid.spacing)[axes.argmax(1)])
