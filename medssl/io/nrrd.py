"""NRRD, the format that 3D Slicer prefers: read into NIfTI, label maps written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own spelling
from numpy.typing import NDArray

from medssl.errors import InputError
from medssl.geometry import Grid
from medssl.io.files import atomic_path
from medssl.io.nifti import save_new

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's positions are LPS+ mm, NIfTI's RAS+ mm."""

_HEADER_BYTES = 1 << 16


def is_nrrd(path: Path) -> bool:
    """Tell by its name whether a file is NRRD."""
    return path.name.lower().endswith(".nrrd")


def nrrd_to_nifti(source: Path, target: Path) -> None:
    """Write an NRRD volume as NIfTI with the same voxels and affine.

    Raises:
        InputError: The file is damaged, holds colors, is not 3D, or names another file for its voxels.
        OutputError: The target cannot be written.
    """
    _require_own_voxels(source)
    try:
        image = sitk.ReadImage(str(source))
    except RuntimeError as error:
        msg = f"{source.name} is no readable NRRD volume."
        raise InputError(msg, "Export it again, or as NIfTI (.nii.gz).") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        msg = f"{source.name} is {image.GetDimension()}D with {image.GetNumberOfComponentsPerPixel()} numbers a voxel; "
        msg += "expected one 3D volume."
        raise InputError(msg, "Export one volume, or the segmentation as one label map.")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    data = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    if data.dtype in (np.int64, np.uint64):
        data = data.astype(np.int32)
    save_new(target, data, _TO_RAS @ affine)


def _require_own_voxels(source: Path) -> None:
    """Refuse a header that points to another file: whoever sent it must not choose what is opened here."""
    with source.open("rb") as stream:
        head = stream.read(_HEADER_BYTES).partition(b"\n\n")[0]
    if re.search(rb"(?im)^\s*data ?file\s*:", head.replace(b"\r", b"\n")):
        msg = f"{source.name} is a header without voxels."
        raise InputError(msg, "Save it with its voxels in the same file (.nrrd).")


def write_labels_nrrd(path: Path, values: NDArray[np.uint8], grid: Grid) -> None:
    """Write a label map as compressed NRRD.

    Args:
        path: Ends in ".nrrd".
        values: Values of the label table.
        grid: Of the scan.

    Raises:
        OutputError: The folder cannot be written to.

    Shapes:
        values: ``(I, J, K)``
    """
    affine = _TO_RAS @ grid.affine
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    image.SetSpacing([float(size) for size in grid.spacing])
    image.SetOrigin([float(place) for place in affine[:3, 3]])
    image.SetDirection([float(part) for part in (affine[:3, :3] / np.array(grid.spacing)).ravel()])
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True, compressionLevel=1)
