"""How two scans are registered, as data."""

from __future__ import annotations

from dataclasses import dataclass

from medssl.errors import ConfigError

DEFORMATIONS = ("none", "demons", "diffeomorphic", "bspline")
"""What may follow the affine step: nothing, fast symmetric forces demons, diffeomorphic demons, B-splines."""


@dataclass(frozen=True)
class RegistrationSettings:
    """How `register` works. How the defaults were chosen: ``docs/experiments.md``.

    Args:
        affine: Align by mutual information first; without it only the centers are brought together.
        deformation: One of `DEFORMATIONS`.
        spacing_mm: Voxel size of the working grid for whole brains; see `working_grid`.
        iterations: Of the deformation on each level, coarse to fine; each level halves the voxels' size.
        smoothing_voxels: Standard deviation by which demons smooth the displacement, in voxels of the level.
        local_voxels: Standard deviation of the window in which intensities are normalized before demons, in
            voxels of the level; 0 for histogram matching alone.

    Raises:
        ConfigError: A value is unknown or out of range.
    """

    affine: bool = True
    deformation: str = "demons"
    spacing_mm: float = 2.0
    iterations: tuple[int, ...] = (60, 40)
    smoothing_voxels: float = 0.8
    local_voxels: float = 2.0

    def __post_init__(self) -> None:
        if self.deformation not in DEFORMATIONS:
            msg = f"There is no deformation '{self.deformation}'."
            raise ConfigError(msg, f"Choose one of: {', '.join(DEFORMATIONS)}.")
        sizes = {"spacing_mm": self.spacing_mm, "smoothing_voxels": self.smoothing_voxels}
        for name, value in sizes.items():
            if not value > 0:
                msg = f"The registration setting {name} is {value}; expected a number above 0."
                raise ConfigError(msg)
        if not self.iterations or min(self.iterations) < 1:
            msg = f"The registration setting iterations is {self.iterations}."
            raise ConfigError(msg, "Give one number a level, each above 0.")
