"""NIfTI and Analyze volumes: read with every check, written on a reference's own grid and compared."""

from __future__ import annotations

import gzip
import hashlib
import logging
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.wrapstruct import WrapStructError
from numpy.typing import ArrayLike, NDArray

from medssl.errors import GridError, InputError, LabelError, OutputError
from medssl.geometry import Grid
from medssl.io.files import atomic_path, state_of
from medssl.io.iseg import iseg_values
from medssl.labels import UNKNOWN, LabelTable

_LOGGER = logging.getLogger(__name__)

_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    WrapStructError,
    OSError,
    EOFError,
    ValueError,
    zlib.error,
)
"""What nibabel raises for files that are damaged or something else."""

_SMALLEST_SPACING_MM = 1e-3
_NIFTI1_HEADER_BYTES = 348
_NIFTI2_HEADER_BYTES = 540
_COMPRESSION = 1
"""Label maps shrink by 97 to 98 % at any level. One of 144 x 192 x 256: 12 ms and 0.22 MB at level 1, 41 ms and 0.13 MB
at 6, 404 ms and 0.12 MB at 9; its probabilities 0.63 s and 10.4 MB at 1, 0.79 s and 9.9 MB at 6."""
_GEOMETRY_FIELDS = (
    "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "sform_code", "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume in memory with its grid.

    Args:
        data: ``(I, J, K)``.
        grid: Shape and affine.
        path: The file it came from.
    """

    data: NDArray[Any]
    grid: Grid
    path: Path

    def voxel_sha256(self) -> str:
        """Return the SHA-256 of all values but 0 in ascending order: no flip, padding, header or packing changes it."""
        return hashlib.sha256(np.sort(self.data[self.data != 0]).tobytes()).hexdigest()


def read_volume(path: Path | str, subject: str) -> Volume:
    """Read an image as float32 in its own voxel order.

    Args:
        path: NIfTI or Analyze file; trailing axes of length 1 are dropped.
        subject: Named in messages, such as "sub-01".

    Returns:
        Finite values, not all the same.

    Raises:
        InputError: The file is missing, truncated, no volume, 4D, RGB, constant, or has NaN or infinity.
        GridError: The spacing is zero or negative, or the affine is sheared.
    """
    image, grid = _open(Path(path), subject)
    data = _voxels(image, Path(path), subject).astype(np.float32, copy=False)
    _check_values(data, Path(path), subject)
    return Volume(data, grid, Path(path))


def voxel_sha256_once(path: Path | str, subject: str) -> str:
    """Return `Volume.voxel_sha256` of a file, which a process reads once as long as it stays as it is.

    Raises:
        InputError: As `read_volume`.
        GridError: As there.
    """
    return _voxel_sha256_at(subject, *state_of(path))


@lru_cache(maxsize=1 << 12)
def _voxel_sha256_at(subject: str, path: str, *state: int) -> str:
    return read_volume(path, subject).voxel_sha256()


def read_grid(path: Path | str, subject: str) -> Grid:
    """Read and check only the header of a volume.

    Raises:
        InputError: The file is missing, no volume, 4D or RGB.
        GridError: The spacing is zero or negative, or the affine is sheared.
    """
    return _open(Path(path), subject)[1]


def read_labels(
    path: Path | str, subject: str, table: LabelTable, encoding: str = "table", allow_empty: bool = False
) -> Volume:
    """Read a label image as uint8 values of the table; 255 (unknown) is allowed.

    Args:
        path: NIfTI or Analyze file.
        subject: Named in messages.
        table: The values that may occur.
        encoding: "table", or "iseg" for a file with the raw values of that challenge.
        allow_empty: Accept an image without any label, such as a prediction that found nothing.

    Raises:
        InputError: The file is missing, truncated, no volume, 4D or RGB.
        GridError: The spacing is zero or negative, or the affine is sheared.
        LabelError: Values are no whole numbers, outside the table, or all background.
    """
    path = Path(path)
    image, grid = _open(path, subject)
    stored = _voxels(image, path, subject)
    known = iseg_values(table) if encoding == "iseg" else {raw: raw for raw in (*table.values, UNKNOWN)}
    values = _whole_numbers(stored, path, subject)
    _check_known(np.unique(values), known, table, path, subject)
    recode = np.zeros(256, np.uint8)
    recode[list(known)] = list(known.values())
    labels = recode[values]
    if not allow_empty and not np.any((labels != 0) & (labels != UNKNOWN)):
        msg = f"{subject}: the label image {path.name} is empty: every voxel is background or unknown."
        raise LabelError(msg, "List this subject under 'unlabeled', or give the right label file.")
    return Volume(labels, grid, path)


def read_whole_numbers(path: Path | str, subject: str) -> Volume:
    """Read a label image as uint8, whatever its values mean.

    Raises:
        InputError: The file is missing, truncated, no volume, 4D or RGB.
        GridError: The spacing is zero or negative, or the affine is sheared.
        LabelError: Values are no whole numbers from 0 to 255.
    """
    image, grid = _open(Path(path), subject)
    return Volume(_whole_numbers(_voxels(image, Path(path), subject), Path(path), subject), grid, Path(path))


def read_mask(path: Path | str, subject: str) -> Volume:
    """Read a brain mask as bool: every voxel that is not 0.

    Raises:
        InputError: The file is missing, truncated, no volume, 4D, RGB, or empty.
        GridError: The spacing is zero or negative, or the affine is sheared.
    """
    image, grid = _open(Path(path), subject)
    inside = _voxels(image, Path(path), subject) != 0
    if not inside.any():
        msg = f"{subject}: the brain mask {Path(path).name} is empty: every voxel is 0."
        raise InputError(msg, "Give the right mask, or remove it from the datalist.")
    return Volume(inside, grid, Path(path))


def resample(volume: Volume, grid: Grid, subject: str) -> Volume:
    """Bring a volume to another grid by the two headers alone: linear, 0 outside its field of view.

    Nothing is registered: the two scans must already lie on each other in scanner space.

    Args:
        volume: What to resample.
        grid: Where to.
        subject: Named in the log.
    """
    to_voxel = np.linalg.inv(volume.grid.affine) @ grid.affine
    from scipy.ndimage import affine_transform  # noqa: PLC0415 - takes longer to import than this module

    data = affine_transform(
        volume.data, to_voxel[:3, :3], to_voxel[:3, 3], grid.shape, order=1, mode="constant", cval=0.0
    )
    _LOGGER.info(
        "%s: %s resampled by header (linear) from shape %s, spacing %s mm, %s to shape %s, spacing %s mm, %s",
        subject, volume.path.name,
        volume.grid.shape, _rounded(volume.grid.spacing), volume.grid.axcodes,
        grid.shape, _rounded(grid.spacing), grid.axcodes,
    )  # fmt: skip
    return Volume(data, grid, volume.path)


def write_labels(path: Path | str, values: NDArray[np.uint8], reference: Path | str) -> None:
    """Write a label image on the grid of a reference scan.

    Shape, affine, qform, sform, their codes and the units are those of the reference, bit for bit. The file
    is written under a temporary name, read again, compared, and only then renamed.

    Args:
        path: Ends in ".nii.gz" or ".nii".
        values: Values of the label table.
        reference: The scan that was segmented.

    Shapes:
        values: ``(I, J, K)``

    Raises:
        OutputError: The folder cannot be written to, or the file reads back otherwise than written.
        GridError: The shape is not the reference's.
    """
    image = _load(Path(reference), Path(reference).name)
    _require_shape(values.shape, image, Path(reference))
    header = _header_like(image)
    _write(Path(path), np.asarray(values, np.uint8).reshape(image.shape), header)


def write_probabilities(path: Path | str, probabilities: NDArray[np.float32], reference: Path | str) -> None:
    """Write probabilities on the grid of a reference scan, labels along the fourth axis in table order.

    Written like `write_labels`: same geometry, read again, compared, renamed.

    Args:
        path: Ends in ".nii.gz" or ".nii".
        probabilities: Values in [0, 1].
        reference: The scan that was segmented.

    Shapes:
        probabilities: ``(I, J, K)`` or ``(I, J, K, L)``

    Raises:
        OutputError: The folder cannot be written to, or the file reads back otherwise than written.
        GridError: The shape is not the reference's.
    """
    image = _load(Path(reference), Path(reference).name)
    _require_shape(probabilities.shape[:3], image, Path(reference))
    header = _header_like(image)
    _write(Path(path), np.asarray(probabilities, np.float32), header)


def save_new(path: Path | str, data: NDArray[Any], affine: ArrayLike) -> None:
    """Write an array as a new NIfTI file, atomically; equal arrays give equal bytes.

    Both transforms of the header get the affine with code 1 (scanner), units are mm, the data type is kept.

    Args:
        path: Ends in ".nii.gz" or ".nii".
        data: ``(I, J, K)`` or ``(I, J, K, L)``.
        affine: 4 x 4, voxel -> RAS+ mm.

    Raises:
        OutputError: The folder cannot be written to, or the file reads back otherwise than written.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(data.shape)
    header.set_zooms((*np.linalg.norm(np.asarray(affine)[:3, :3], axis=0), *(1.0,) * (data.ndim - 3)))
    header.set_qform(np.asarray(affine), 1)
    header.set_sform(np.asarray(affine), 1)
    header.set_xyzt_units("mm")
    _write(Path(path), data, header)


def has_orientation(path: Path | str) -> bool:
    """Tell whether a NIfTI header says how the voxels lie in space. Analyze follows a convention instead."""
    header = nib.load(path).header
    return "sform_code" not in header or bool(header["sform_code"] or header["qform_code"])


# --------------------------------------------------------------------------------------------- reading


def _open(path: Path, subject: str) -> tuple[SpatialImage, Grid]:
    """Open a file and check its header."""
    if not path.is_file():
        msg = f"{subject}: {path.name} is missing: there is no file {path}."
        raise InputError(msg, "Put it there, or correct the path in the datalist.")
    _check_raw_spacing(path, subject)
    image = _load(path, subject)
    _check_one_volume(image, path, subject)
    grid = Grid(tuple(int(n) for n in image.shape[:3]), np.asarray(image.affine, np.float64))
    _check_grid(grid, path, subject)
    return image, grid


def _load(path: Path, subject: str) -> SpatialImage:
    """Read the header."""
    try:
        image = nib.load(path, mmap=False)
    except _UNREADABLE as error:
        msg = f"{subject}: {path.name} is no readable NIfTI or Analyze image ({_brief(error)})."
        raise InputError(msg, "Copy or convert the file again.") from error
    if not isinstance(image, SpatialImage):
        msg = f"{subject}: {path.name} holds no volume but {type(image).__name__}."
        raise InputError(msg, "Give a NIfTI or Analyze volume.")
    return image


def _voxels(image: SpatialImage, path: Path, subject: str) -> NDArray[Any]:
    """Read the voxels, scaled as the header says, as ``(I, J, K)``."""
    try:
        data = np.asanyarray(image.dataobj)
    except _UNREADABLE as error:
        msg = f"{subject}: {path.name} is truncated or damaged: its voxels cannot be read ({_brief(error)})."
        raise InputError(msg, "Copy the file again from its source.") from error
    return data.reshape(image.shape[:3])


def _check_raw_spacing(path: Path, subject: str) -> None:
    """Refuse a spacing that nibabel would repair without a word (zero becomes 1, negative positive)."""
    try:
        with ImageOpener(str(path.with_suffix(".hdr") if path.suffix == ".img" else path)) as stream:
            size = stream.read(4)
            stream.seek(0)
            header_class = _header_class(size)
            if header_class is None:
                return
            pixdim = header_class.from_fileobj(stream, check=False)["pixdim"][1:4]
    except _UNREADABLE:
        return  # whatever this file is, opening it says so
    if np.any(pixdim <= 0) or not np.all(np.isfinite(pixdim)):
        raise _bad_spacing(pixdim, path, subject)


def _header_class(size: bytes) -> type[nib.Nifti1Header] | None:
    """Return the kind of header that starts with this size in bytes (Analyze has NIfTI-1's pixdim)."""
    sizes = {int.from_bytes(size, "little"), int.from_bytes(size, "big")}
    if _NIFTI1_HEADER_BYTES in sizes:
        return nib.Nifti1Header
    return nib.Nifti2Header if _NIFTI2_HEADER_BYTES in sizes else None


def _check_one_volume(image: SpatialImage, path: Path, subject: str) -> None:
    """Refuse colors, complex numbers, series and single slices."""
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iufb":
        kind = "RGB colors" if dtype.fields is not None else f"values of type {dtype}"
        msg = f"{subject}: {path.name} holds {kind}; expected one number a voxel."
        raise InputError(msg, "Export the scan again as a gray-value image.")
    if len(image.shape) < 3 or any(n != 1 for n in image.shape[3:]) or 0 in image.shape:
        msg = f"{subject}: {path.name} is {len(image.shape)}D, shape {image.shape}; expected one 3D volume."
        raise InputError(msg, "Extract the volume you want into a file of its own.")


def _check_grid(grid: Grid, path: Path, subject: str) -> None:
    """Refuse an affine that is no rotation, flip and positive spacing."""
    if not np.all(np.isfinite(grid.affine)) or min(grid.spacing) < _SMALLEST_SPACING_MM:
        raise _bad_spacing(grid.spacing, path, subject)
    if grid.is_sheared() or abs(np.linalg.det(grid.affine[:3, :3])) < _SMALLEST_SPACING_MM**3:
        msg = f"{subject}: {path.name} has a sheared affine: its voxel axes are not at right angles."
        raise GridError(msg, "Resample it to a grid with right angles first.")


def _bad_spacing(spacing: ArrayLike, path: Path, subject: str) -> GridError:
    found = tuple(round(float(size), 4) for size in np.asarray(spacing))
    msg = f"{subject}: {path.name} has the voxel spacing {found} mm; expected three sizes above 0."
    return GridError(msg, "Correct the header (pixdim, sform) or convert the scan again.")


def _check_values(data: NDArray[np.float32], path: Path, subject: str) -> None:
    """Refuse an image without content or with values nobody can compute with."""
    lowest, highest = float(data.min()), float(data.max())
    if not np.isfinite(lowest) or not np.isfinite(highest):
        bad = int(data.size - np.isfinite(data).sum())
        msg = f"{subject}: {path.name} has {bad} NaN or infinite voxels of {data.size}; expected none."
        raise InputError(msg, "Find the step that made them, or set them to 0 where they are background.")
    if lowest == highest:
        what = "all zero" if lowest == 0 else f"constant ({lowest:g})"
        msg = f"{subject}: {path.name} is {what}; expected an image."
        raise InputError(msg, "Export or copy the scan again.")


def _whole_numbers(stored: NDArray[Any], path: Path, subject: str) -> NDArray[np.uint8]:
    """Return label values as uint8, or refuse them."""
    if stored.dtype == np.uint8:
        return stored
    lowest, highest = stored.min(), stored.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)) or lowest < 0 or highest > UNKNOWN:
        msg = f"{subject}: the label image {path.name} has values from {lowest:g} to {highest:g}; "
        msg += f"expected 0 to {UNKNOWN}."
        raise LabelError(msg, "Is it a label image? Renumber its labels if it is.")
    values = stored.astype(np.uint8)
    if not np.array_equal(values, stored):
        msg = f"{subject}: the label image {path.name} has fractions such as "
        msg += f"{float(stored[values != stored][0]):g}; expected whole numbers."
        raise LabelError(msg, "Was it resampled linearly? Resample labels by nearest neighbor.")
    return values


def _check_known(
    found: NDArray[np.uint8], known: dict[int, int], table: LabelTable, path: Path, subject: str
) -> None:
    """Refuse label values outside the table."""
    strange = [int(value) for value in found if int(value) not in known]
    if strange:
        listed = ", ".join(map(str, strange[:8])) + (", ..." if len(strange) > 8 else "")
        msg = f"{subject}: the label image {path.name} has the values {listed}; expected only those of "
        msg += f"the table '{table.name}' ({table.describe()})"
        msg += f", stored as {', '.join(map(str, known))}." if UNKNOWN not in known else "."
        cure = "Put a *_dseg.tsv with all labels (index, name) beside the label images, or correct the image."
        raise LabelError(msg, cure)


# --------------------------------------------------------------------------------------------- writing


def _header_like(image: SpatialImage) -> nib.Nifti1Header:
    """Make a header with the geometry of a reference, every field copied as it is stored."""
    source = image.header
    header = nib.Nifti2Header() if isinstance(source, nib.Nifti2Header) else nib.Nifti1Header()
    header.set_data_shape(image.shape)
    if "sform_code" not in source:  # Analyze: its affine is a convention, written out as a transform
        header.set_zooms(source.get_zooms()[: len(image.shape)])
        header.set_qform(image.affine, 1)
        header.set_sform(image.affine, 1)
        header.set_xyzt_units("mm")
        return header
    header["pixdim"] = source["pixdim"]
    for field in _GEOMETRY_FIELDS:
        header[field] = source[field]
    return header


def _require_shape(shape: tuple[int, ...], image: SpatialImage, reference: Path) -> None:
    if tuple(shape) != tuple(image.shape[:3]):
        msg = f"The result has the shape {tuple(shape)}; {reference.name} has {tuple(image.shape[:3])}."
        raise GridError(msg, "Bring it back to the scan's own grid before writing.")


def _write(path: Path, data: NDArray[Any], header: nib.Nifti1Header) -> None:
    """Write, read again, compare, rename."""
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header["pixdim"][4 : data.ndim + 1] = 1.0
    header.set_slope_inter(1, 0)
    image_class = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = image_class(data, header.get_best_affine(), header)
    with atomic_path(path) as temporary:
        with temporary.open("wb") as raw:
            if path.name.endswith(".gz"):
                with gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0) as stream:
                    image.to_stream(stream)
            else:
                image.to_stream(raw)
        _compare(temporary, path, data, header)


def _compare(written: Path, final: Path, data: NDArray[Any], header: nib.Nifti1Header) -> None:
    """Read a file again and compare it with what it should hold."""
    try:
        image = nib.load(written, mmap=False)
        stored = np.asanyarray(image.dataobj)
    except _UNREADABLE as error:
        msg = f"{final} cannot be read again after writing ({_brief(error)})."
        raise OutputError(msg, "Check the disk and run the command again.") from error
    fields = ("pixdim", *_GEOMETRY_FIELDS)
    wrong = [field for field in fields if not np.array_equal(image.header[field], header[field])]
    if not np.array_equal(image.affine, header.get_best_affine()):
        wrong.append("affine")
    if stored.dtype != data.dtype or not np.array_equal(stored, data):
        wrong.append("voxels")
    if wrong:
        msg = f"{final} reads back otherwise than written: {', '.join(wrong)} differ."
        raise OutputError(msg, "Check the disk and run the command again.")


def _rounded(spacing: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(size, 4) for size in spacing)


def _brief(error: BaseException) -> str:
    """Return the first line of an error, short."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
