"""One scan laid over another: affine, then a deformation, kept as a transform that warps images and labels."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name
from numpy.typing import NDArray

from medssl.errors import RegistrationError
from medssl.geometry import Grid
from medssl.registration.affine import aligned, centered, matrix_of, transform_of
from medssl.registration.atlas import similarity
from medssl.registration.deformation import displacement_field
from medssl.registration.scan import (
    Scan,
    one_thread,
    prepared,
    resampled,
    smoothed,
    to_array,
    to_itk,
    working_grid,
)
from medssl.registration.settings import RegistrationSettings

LEAST_OVERLAP = 0.2
"""Share of the fixed mask that the moving mask must cover after the affine step."""

LEAST_SIMILARITY = 0.2
"""Of the warped scan and the fixed one where one has no mask; see docs/experiments.md for what it lets through."""

MOST_FOLDING = 0.02
"""Share of the voxels, with masks and without."""

LIBRARY = f"SimpleITK {sitk.Version.VersionString()}"
"""What registers: another version may give other results for the same input."""

_DEFAULTS = RegistrationSettings()
_SHORT_OF_MEMORY = ("allocate", "bad_alloc", "out of memory")
_UNREADABLE = (OSError, KeyError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class Registration:
    """A transform from the positions of a fixed scan to those of a moving one: x -> A (x + u(x)), RAS+ mm.

    Args:
        fixed: Grid of the fixed scan.
        moving: Grid of the moving scan.
        matrix: A, 4 x 4.
        displacement: u in mm along R, A, S, float16: steps of .008 mm up to 16 mm. 0 outside its grid.
        working: Grid of the displacement.
        overlap: Share of the fixed mask that the moving mask covers after the affine step.
        similarity: Normalized cross correlation of fixed and warped image in the fixed mask.
        key: Hash of what it was made from, set by who keeps it in a file.

    Shapes:
        displacement: ``(3, I, J, K)`` of the working grid
    """

    fixed: Grid
    moving: Grid
    matrix: NDArray[np.float64]
    displacement: NDArray[np.float16]
    working: Grid
    overlap: float
    similarity: float
    key: str = ""

    @property
    def folding(self) -> float:
        """Share of the working grid's voxels whose Jacobian determinant is not positive."""
        u = self.displacement.astype(np.float64)
        axes = (1, 2, 3)
        slopes = np.stack(
            [np.gradient(u, size, axis=axis) for axis, size in zip(axes, self.working.spacing, strict=True)],
            1,
        )
        jacobian = np.eye(3) + np.moveaxis(slopes, (0, 1), (-2, -1))
        determinant = np.linalg.det(jacobian) * np.linalg.det(self.matrix[:3, :3])
        return float(np.mean(determinant <= 0))

    def warp_image(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Interpolate an image of the moving grid linearly on the fixed grid; 0 outside its field of view.

        Shapes:
            image, return: ``(I, J, K)`` or ``(C, I, J, K)``, of the moving and the fixed grid

        Raises:
            RegistrationError: The image is not on the moving grid.
        """
        if image.shape[-3:] != self.moving.shape:
            msg = f"An array to warp has the shape {image.shape}; the moving scan has {self.moving.shape}."
            raise RegistrationError(msg)
        source = to_itk(np.asarray(image, np.float32), self.moving)
        with one_thread():
            warped = to_array(resampled(source, self.fixed, self._transform()))
        return np.asarray(warped, np.float32).reshape(*image.shape[:-3], *self.fixed.shape)

    def warp_labels(self, label: NDArray[Any], classes: int) -> NDArray[np.float32]:
        """Return how much of each class lies at each voxel of the fixed grid.

        Args:
            label: Class numbers on the moving grid; any other value (unknown) counts for no class.
            classes: K.

        Returns:
            Linear interpolation of each class' indicator. The sum over classes is 1 inside the moving field
            of view, 0 outside, and less where labels are unknown.

        Shapes:
            label: ``(I, J, K)``; return: ``(K, I, J, K)``
        """
        return self.warp_image(np.stack([label == number for number in range(classes)]))

    def save(self, path: Path | str) -> None:
        """Write an ``.npz`` file: numbers only, no pickles, no paths.

        Whoever must not lose an older file hands in the path of `medssl.io.files.atomic_path`.
        """
        with Path(path).open("wb") as stream:
            np.savez_compressed(
                stream,
                fixed_shape=self.fixed.shape,
                fixed_affine=self.fixed.affine,
                moving_shape=self.moving.shape,
                moving_affine=self.moving.affine,
                matrix=self.matrix,
                displacement=self.displacement,
                working_affine=self.working.affine,
                overlap=self.overlap,
                similarity=self.similarity,
                folding=self.folding,
                key=self.key,
            )

    @classmethod
    def load(cls, path: Path | str) -> Registration:
        """Read what `save` wrote.

        Raises:
            RegistrationError: The file is missing, damaged, or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                return cls(
                    fixed=_grid(found["fixed_shape"], found["fixed_affine"]),
                    moving=_grid(found["moving_shape"], found["moving_affine"]),
                    matrix=found["matrix"],
                    displacement=found["displacement"],
                    working=_grid(found["displacement"].shape[1:], found["working_affine"]),
                    overlap=float(found["overlap"]),
                    similarity=float(found["similarity"]),
                    key=str(found["key"]),
                )
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error

    @staticmethod
    def similarity_of(path: Path | str) -> float:
        """Return the similarity of a stored registration, without reading the transform.

        Raises:
            RegistrationError: As in `load`.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                return float(found["similarity"])
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error

    @classmethod
    def quality_of(cls, path: Path | str) -> dict[str, float]:
        """Return ``overlap``, ``similarity`` and ``folding`` of a stored registration.

        Raises:
            RegistrationError: As in `load`.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                told = {
                    name: float(found[name]) for name in ("overlap", "similarity", "folding") if name in found
                }
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error
        return told if "folding" in told else {**told, "folding": cls.load(path).folding}

    @staticmethod
    def key_of(path: Path | str) -> str | None:
        """Return the key of a stored registration, or None where there is no file that can be read."""
        try:
            with np.load(path, allow_pickle=False) as found:
                return str(found["key"])
        except _UNREADABLE:
            return None

    def _transform(self) -> sitk.Transform:
        field = to_itk(self.displacement.astype(np.float64), self.working)
        return sitk.CompositeTransform([transform_of(self.matrix), sitk.DisplacementFieldTransform(field)])


def register(fixed: Scan, moving: Scan, settings: RegistrationSettings = _DEFAULTS) -> Registration:
    """Lay one scan over another.

    Affine by mutual information of the first contrast, then a deformation over all contrasts on the working
    grid, histograms matched. The same inputs give the same result bit for bit: one thread, fixed samples.

    Args:
        fixed: The scan that stays where it is.
        moving: The scan (the atlas) that is brought to it; same contrasts in the same order.
        settings: See `RegistrationSettings`.

    Raises:
        RegistrationError: The scans have other numbers of contrasts, do not overlap after the affine step, were
            folded, do not resemble each other in the end (asked where one has no mask), or ITK gives up.
    """
    if len(fixed.image) != len(moving.image):
        msg = f"The fixed scan has {len(fixed.image)} contrasts, the moving one {len(moving.image)}."
        raise RegistrationError(msg, "Register on the contrasts that both have.")
    try:
        with one_thread():
            return _registered(fixed, moving, settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        msg = f"The scans could not be registered: {reason}"
        raise RegistrationError(msg, "Do they show the same part of the body?") from error


def fails_for_good(error: RegistrationError) -> bool:
    """Tell whether the same two scans would fail again: memory that was short may be free the next time."""
    told = f"{error} {error.__cause__}".lower()
    return not any(words in told for words in _SHORT_OF_MEMORY)


def _registered(fixed: Scan, moving: Scan, settings: RegistrationSettings) -> Registration:
    grid = working_grid(fixed, settings.spacing_mm)
    targets = [resampled(image, grid, extend=True) for image in _images(fixed, grid)]
    sources = _images(moving, grid)
    affine = centered(targets[0], sources[0], by_moments=fixed.is_masked and moving.is_masked)
    if settings.affine:
        affine = aligned(targets[0], sources[0], affine)
    brain = _covered(fixed, grid, sitk.Transform())
    both = brain & _covered(moving, grid, affine)
    overlap = float(both.sum() / max(1, brain.sum()))
    if not overlap >= LEAST_OVERLAP:
        msg = f"After the affine step the moving scan covers {overlap:.0%} of the fixed one; "
        msg += f"expected at least {LEAST_OVERLAP:.0%}."
        raise RegistrationError(msg, "Do they show the same part of the body?")
    aligned_sources = [resampled(image, grid, affine, extend=True) for image in sources]
    displacement = displacement_field(targets, aligned_sources, both, grid, settings).astype(np.float16)
    field = sitk.DisplacementFieldTransform(to_itk(displacement.astype(np.float64), grid))
    warped = [to_array(resampled(image, grid, field, extend=True)) for image in aligned_sources]
    alike = similarity(np.stack([to_array(image) for image in targets]), np.stack(warped), brain)
    made = Registration(fixed.grid, moving.grid, matrix_of(affine), displacement, grid, overlap, alike)
    if settings.deformation != "none":
        _require_success(made, masked=fixed.is_masked and moving.is_masked)
    return made


def _require_success(made: Registration, *, masked: bool) -> None:
    """Refuse what no anatomy explains: scans without masks overlap whatever they show, and any two may be folded."""
    reasons = []
    if not masked and not made.similarity >= LEAST_SIMILARITY:
        reasons.append(f"the warped scan and the fixed one have a similarity of {made.similarity:.2f}")
        reasons[-1] += f" (at least {LEAST_SIMILARITY:g} expected)"
    if made.folding > MOST_FOLDING:
        reasons.append(f"{made.folding:.1%} of the voxels are folded (at most {MOST_FOLDING:.0%} expected)")
    if reasons:
        msg = f"The registration failed: {', '.join(reasons)}."
        raise RegistrationError(msg, "Do they show the same part of the body, with the same contrasts?")


def _images(scan: Scan, grid: Grid) -> list[sitk.Image]:
    """Return the prepared contrasts, smoothed to the working grid's voxels where those are larger.

    The working grid runs along R, A, S; each voxel axis of the scan is smoothed to the size along the direction
    that it points to most.
    """
    directions = np.abs(scan.grid.affine[:3, :3] / np.array(scan.grid.spacing)).argmax(0)
    sizes = zip(np.array(grid.spacing)[directions], scan.grid.spacing, strict=True)
    sigmas = [0.5 * np.sqrt(max(0.0, wanted**2 - own**2)) for wanted, own in sizes]
    return [smoothed(to_itk(contrast, scan.grid), sigmas) for contrast in prepared(scan)]


def _covered(scan: Scan, grid: Grid, transform: sitk.Transform) -> NDArray[np.bool_]:
    """Return where the working grid lies in a scan's mask."""
    mask = to_itk(scan.inside.astype(np.float32), scan.grid)
    return np.asarray(to_array(resampled(mask, grid, transform)) > 0.5)


def _unreadable(path: Path | str, error: BaseException) -> RegistrationError:
    msg = f"{path} is no registration that can be read ({type(error).__name__}: {error})."
    return RegistrationError(msg, "Remove it; it will be made again.")


def _grid(shape: Sequence[int], affine: NDArray[np.float64]) -> Grid:
    i, j, k = (int(n) for n in shape)
    return Grid((i, j, k), affine)
