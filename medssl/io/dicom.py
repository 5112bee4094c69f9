"""Single DICOM images: gray levels by slope, intercept and window, brighter where the film is brighter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ImageError


def read_dicom(path: Path, check_size: Callable[[int, int], None]) -> NDArray[Any]:
    """Read the one image of a DICOM file.

    Args:
        path: File with the preamble of part 10 of the standard.
        check_size: Called with height and width before pixels are decoded; raises where they will not do.

    Returns:
        RGB as uint8. Gray by the file's first window as float32 in [0, 1]; without a window as float32 after slope
        and intercept; without these as stored, if that is uint8 or uint16. MONOCHROME1 is inverted, so that more is
        always brighter.

    Shapes:
        return: ``(H, W, 1)`` or ``(H, W, 3)``

    Raises:
        ImageError: pydicom is missing, the file has no pixels, several frames, or colors that are not known.
    """
    try:
        import pydicom  # noqa: PLC0415 (an optional library, imported where it is used)
    except ImportError as error:
        msg = f"{path} is a DICOM file; reading it takes pydicom, which is not installed."
        raise ImageError(msg, "Run: pip install pydicom. Or export the images as PNG.") from error
    header = pydicom.dcmread(path, stop_before_pixels=True)
    if "Rows" not in header or "Columns" not in header:
        msg = f"{path} is a DICOM file without an image (it holds {header.get('Modality', 'no modality')})."
        raise ImageError(msg, "Remove it from the folder or list of images.")
    check_size(int(header.Rows), int(header.Columns))
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        msg = f"{path} holds {frames} frames; expected one image."
        raise ImageError(msg, "Export the frame that counts, or each into a file of its own.")
    dataset = pydicom.dcmread(path)
    return _shown(path, dataset)


def _shown(path: Path, dataset: Any) -> NDArray[Any]:
    """Turn the stored values of a data set into what a screen shows."""
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if kind.startswith("MONOCHROME"):
        return _gray_levels(dataset)[..., None]
    stored = np.asarray(dataset.pixel_array)  # YBR is RGB by now
    if stored.dtype == np.uint8 and stored.ndim == 3 and stored.shape[2] == 3:
        return stored.copy()
    msg = f"{path} holds {kind or 'unnamed'} colors of {stored.dtype}; expected MONOCHROME1, MONOCHROME2 or RGB."
    raise ImageError(msg, "Export it as PNG.")


def _gray_levels(dataset: Any) -> NDArray[Any]:
    """Apply slope, intercept, window and the sense of the gray scale."""
    stored = np.asarray(dataset.pixel_array)
    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    limits = np.array(_stored_range(dataset)) * slope + intercept
    values = stored.astype(np.float64) * slope + intercept
    kept = stored.dtype if stored.dtype.kind == "u" and stored.dtype.itemsize <= 2 else np.float32
    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        function = str(dataset.get("VOILUTFunction") or "LINEAR")
        values = windowed(values, _first(dataset.WindowCenter), _first(dataset.WindowWidth), function)
        limits = np.array([0.0, 1.0])
        kept = np.float32
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = limits.sum() - values
    return values.astype(kept if (slope, intercept) == (1, 0) else np.float32)


def windowed(
    values: NDArray[np.float64], center: float, width: float, function: str = "LINEAR"
) -> NDArray[np.float64]:
    """Bring a window of values to [0, 1].

    Args:
        values: After slope and intercept.
        center: Value that becomes about one half.
        width: Of the window in the unit of the values.
        function: "LINEAR", "LINEAR_EXACT" or "SIGMOID".

    Shapes:
        values: any
        return: as values

    Source:
        DICOM PS3.3, C.11.2.1.2 and C.11.2.1.3. Own implementation.
    """
    tiny = np.finfo(np.float64).tiny
    if function == "SIGMOID":
        return np.asarray(0.5 + 0.5 * np.tanh(2.0 * (values - center) / max(width, tiny)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    with np.errstate(over="ignore"):
        return np.clip((values - center) / max(width, tiny) + 0.5, 0.0, 1.0)


def _stored_range(dataset: Any) -> tuple[int, int]:
    """Return the smallest and the largest value that the stored bits can hold."""
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def _first(value: Any) -> float:
    """Return the first of several windows."""
    return float(value if isinstance(value, (str, float, int)) else value[0])
