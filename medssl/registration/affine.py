"""The affine step: Mattes mutual information on the first contrast, multi-resolution, from centered scans."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name
from numpy.typing import NDArray

_BINS = 32
_SAMPLES = 20_000
_STEPS = 60
_SEED = 1


def centered(fixed: sitk.Image, moving: sitk.Image, by_moments: bool) -> sitk.AffineTransform:
    """Bring the centers together: the middles of the volumes, or the centers of mass of what is not 0."""
    kind = sitk.CenteredTransformInitializerFilter
    how = kind.MOMENTS if by_moments else kind.GEOMETRY
    if by_moments:
        fixed, moving = fixed > 0, moving > 0
    start = sitk.CenteredTransformInitializer(
        sitk.Cast(fixed, sitk.sitkFloat32), sitk.Cast(moving, sitk.sitkFloat32), sitk.AffineTransform(3), how
    )
    return sitk.AffineTransform(start)


def aligned(fixed: sitk.Image, moving: sitk.Image, start: sitk.AffineTransform) -> sitk.AffineTransform:
    """Maximize the mutual information of two images over affine transforms, coarse to fine.

    Args:
        fixed: On the working grid.
        moving: On its own grid.
        start: Where to begin; it is not changed.

    Returns:
        From positions in the fixed image to positions in the moving one.

    Raises:
        RuntimeError: The images do not overlap (ITK's own).
    """
    result = sitk.AffineTransform(start)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    levels = (4, 2, 1) if min(fixed.GetSize()) >= 48 else (2, 1)
    voxels = fixed.GetNumberOfPixels()
    shares = [min(0.5, _SAMPLES * level**3 / voxels, 1.0) for level in levels]
    method.SetMetricSamplingPercentagePerLevel(shares, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    step = max(fixed.GetSpacing())
    method.SetOptimizerAsRegularStepGradientDescent(step, 1e-3 * step, _STEPS, relaxationFactor=0.5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(list(levels))
    method.SetSmoothingSigmasPerLevel([step * level / 2 if level > 1 else 0 for level in levels])
    method.SetInitialTransform(result, inPlace=True)
    method.Execute(fixed, moving)
    return result


def matrix_of(transform: sitk.AffineTransform) -> NDArray[np.float64]:
    """Return the 4 x 4 matrix of an affine transform, with its center taken in."""
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    center = np.array(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(transform.GetTranslation()) + center - linear @ center
    return matrix


def transform_of(matrix: NDArray[np.float64]) -> sitk.AffineTransform:
    """Return the affine transform of a 4 x 4 matrix."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform
