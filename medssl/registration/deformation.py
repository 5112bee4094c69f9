"""What follows the affine step: demons over all contrasts, or B-splines, coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name
from numpy.typing import NDArray

from medssl.geometry import Grid
from medssl.registration.scan import coarser, resampled, smoothed, to_array, to_itk
from medssl.registration.settings import RegistrationSettings

_ROUND = 10
_QUANTILES = np.linspace(0, 1, 51)
_LOCAL_NOISE = 0.05
_SPLINE_MM = 20.0
_SPLINE_MESH = 4
_SPLINE_SAMPLES = 10_000


def displacement_field(
    fixed: Sequence[sitk.Image],
    moving: Sequence[sitk.Image],
    overlap: NDArray[np.bool_],
    grid: Grid,
    settings: RegistrationSettings,
) -> NDArray[np.float32]:
    """Find the displacement that lays the moving contrasts over the fixed ones.

    Args:
        fixed: One image a contrast on the working grid.
        moving: The same contrasts after the affine step, on that grid.
        overlap: Where both scans have their masks.
        grid: The working grid.
        settings: See `RegistrationSettings`.

    Returns:
        In mm along R, A, S: a fixed position plus this is a position in the moving image.

    Shapes:
        overlap: ``(I, J, K)``; return: ``(3, I, J, K)``
    """
    if settings.deformation == "none":
        return np.zeros((3, *grid.shape), np.float32)
    matched = [_histogram_matched(*pair, overlap, grid) for pair in zip(moving, fixed, strict=True)]
    if settings.deformation == "bspline":
        return _splines(fixed[0], matched[0], grid, settings.iterations)
    field = None
    for level, iterations in enumerate(settings.iterations):
        factor = 2 ** (len(settings.iterations) - 1 - level)
        place = coarser(grid, factor) if factor > 1 else grid
        pairs = [
            tuple(_at_level(image, place, factor, settings.local_voxels) for image in pair)
            for pair in zip(fixed, matched, strict=True)
        ]
        field = _demons(pairs, field, place, iterations, settings)
    return to_array(field).astype(np.float32)


def _demons(
    pairs: Sequence[tuple[sitk.Image, sitk.Image]],
    field: sitk.Image | None,
    grid: Grid,
    iterations: int,
    settings: RegistrationSettings,
) -> sitk.Image:
    """Run demons on one level: each contrast for a few iterations from one displacement, then their mean.

    What only one contrast shows moves by less than it would alone; taking turns lost more.
    """
    symmetric = settings.deformation == "demons"
    method = (
        sitk.FastSymmetricForcesDemonsRegistrationFilter()
        if symmetric
        else sitk.DiffeomorphicDemonsRegistrationFilter()
    )
    method.SetStandardDeviations(settings.smoothing_voxels)
    method.SetSmoothDisplacementField(True)
    field = None if field is None else resampled(field, grid, extend=True)
    length = iterations if len(pairs) == 1 else _ROUND
    while iterations > 0:
        method.SetNumberOfIterations(min(length, iterations))
        found = [method.Execute(*pair, *([] if field is None else [field])) for pair in pairs]
        field = found[0] if len(found) == 1 else to_itk(np.mean([to_array(one) for one in found], 0), grid)
        iterations -= length
    return field


def _splines(
    fixed: sitk.Image, moving: sitk.Image, grid: Grid, iterations: Sequence[int]
) -> NDArray[np.float32]:
    """Find a B-spline displacement by the correlation of the first contrast."""
    mesh = [
        max(_SPLINE_MESH, round(n * mm / _SPLINE_MM)) for n, mm in zip(grid.shape, grid.spacing, strict=True)
    ]
    transform = sitk.BSplineTransformInitializer(fixed, mesh)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(min(0.5, _SPLINE_SAMPLES / fixed.GetNumberOfPixels()), 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsLBFGSB(1e-5, max(iterations), 5, 2 * max(iterations))
    levels = [2 ** (len(iterations) - 1 - level) for level in range(len(iterations))]
    method.SetShrinkFactorsPerLevel(levels)
    method.SetSmoothingSigmasPerLevel([max(grid.spacing) * level / 2 if level > 1 else 0 for level in levels])
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, fixed.GetSize(), fixed.GetOrigin(), fixed.GetSpacing(),
        fixed.GetDirection(),
    )  # fmt: skip
    return to_array(field).astype(np.float32)


def _at_level(image: sitk.Image, grid: Grid, factor: int, local_voxels: float) -> sitk.Image:
    """Smooth and shrink an image to a level; normalize it locally if asked to."""
    if factor > 1:
        image = resampled(smoothed(image, [size * factor / 2 for size in image.GetSpacing()]), grid)
    if local_voxels > 0:
        sigmas = [size * local_voxels for size in image.GetSpacing()]
        centered = image - smoothed(image, sigmas)
        image = centered / (sitk.Sqrt(sitk.Abs(smoothed(centered * centered, sigmas))) + _LOCAL_NOISE)
    return image


def _histogram_matched(
    moving: sitk.Image, fixed: sitk.Image, overlap: NDArray[np.bool_], grid: Grid
) -> sitk.Image:
    """Give the moving image the fixed one's quantiles inside the overlap; outside the mask it stays 0."""
    source, wanted = to_array(moving), to_array(fixed)
    have = np.quantile(source[overlap], _QUANTILES)
    want = np.quantile(wanted[overlap], _QUANTILES)
    matched = np.interp(source, np.concatenate([[0.0], have]), np.concatenate([[0.0], want]))
    return to_itk(matched.astype(np.float32), grid)
