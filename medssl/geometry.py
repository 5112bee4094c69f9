"""Voxel grids: shape and affine of a volume, and how two of them differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray

AFFINE_TOLERANCE_MM = 1e-3
"""Two affines are one if no corner of the volume moves by more than this."""

SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two voxel axes that still counts as a right angle."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid.

    Args:
        shape: Number of voxels along (i, j, k).
        affine: 4 x 4, voxel index -> RAS+ position in mm.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along (i, j, k)."""
        i, j, k = voxel_sizes(self.affine)
        return float(i), float(j), float(k)

    @property
    def axcodes(self) -> str:
        """Directions in which the voxel axes point, such as "RAS"."""
        return "".join(code or "?" for code in aff2axcodes(self.affine))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def corners_mm(self) -> NDArray[np.float64]:
        """Return the positions of the eight outermost voxel centers, ``(8, 3)`` in mm."""
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1).T
        return np.asarray(corners @ self.affine[:3, :3].T + self.affine[:3, 3])

    def is_sheared(self) -> bool:
        """Tell whether the voxel axes are not at right angles."""
        axes = self.affine[:3, :3] / np.maximum(np.linalg.norm(self.affine[:3, :3], axis=0), 1e-12)
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR_TOLERANCE)

    def difference(self, other: Grid) -> str | None:
        """Describe how ``other`` differs from this grid, or return None where it does not."""
        if self.shape != other.shape:
            return f"shape {other.shape} against {self.shape}"
        if not np.allclose(self.spacing, other.spacing, atol=AFFINE_TOLERANCE_MM):
            return f"spacing {_mm(other.spacing)} against {_mm(self.spacing)}"
        moved = np.linalg.norm(other.corners_mm() - self.corners_mm(), axis=1).max()
        if moved > AFFINE_TOLERANCE_MM:
            if self.axcodes != other.axcodes:
                return f"orientation {other.axcodes} against {self.axcodes}"
            return f"position or rotation: corners up to {moved:.2f} mm apart"
        return None


def _mm(spacing: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{size:.4g}" for size in spacing) + ") mm"
