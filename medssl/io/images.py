"""One image file: its kind by its content, its pixels as (H, W, C), or the reason why nobody should use it."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from medssl.errors import ImageError, InputError
from medssl.io.dicom import read_dicom

KINDS: Mapping[str, str] = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".npy": "NPY",
    ".dcm": "DICOM",
    ".dicom": "DICOM",
}
"""Suffix in lower case -> what such a file holds."""

SMALLEST_SIDE = 8
"""Pixels; what is smaller is an icon or a mistake."""

LARGEST_AREA = 100_000_000
"""Pixels of height times width; looked at in the header, before anything is decoded."""

MOST_CHANNELS = 32
"""Of an array; more along the last axis is a volume."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x93NUMPY", "NPY"),
    (b"GIF8", "GIF"),
    (b"RIFF", "WebP"),
    (b"%PDF", "PDF"),
    (b"\x1f\x8b", "gzip"),
)
_HEAD = 132  # bytes; a DICOM file says so at the end of them

_BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow, numpy and pydicom raise for files that are damaged or something else."""

_GRAY_16 = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})  # before version 11, Pillow gave "I" for PNG
_UP_TO_8 = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa"})
_BITS_TAG, _PHOTOMETRIC_TAG = 258, 262
_WHITE_IS_ZERO = 0


def read_image(path: Path | str, *, trust_suffix: bool = True) -> NDArray[Any]:
    """Read an image as it is meant to be seen, with the values that it holds.

    The orientation that a camera noted is applied, palettes become RGB, one bit becomes gray, an alpha channel
    that hides nothing is dropped. Gray stays one channel and 16 bits stay 16 bits.

    Args:
        path: PNG, JPEG, BMP, TIFF, NPY or DICOM file.
        trust_suffix: Refuse a file whose suffix names another kind than its content; a name without a known
            suffix promises nothing.

    Returns:
        uint8 or uint16 as stored; float32, finite, for arrays of other numbers and for DICOM with a window, slope or
        intercept (see `read_dicom`).

    Shapes:
        return: ``(H, W, C)``

    Raises:
        ImageError: The file is missing, empty, damaged, of another kind than its suffix says, or holds CMYK,
            transparency, several pages, color of 16 bits, too few or too many pixels, NaN or infinity.
    """
    path = Path(path)
    kind = _kind_of(path)
    if kind not in _READERS:
        msg = f"{path} holds {kind or 'no image that is known'}; expected {', '.join(_READERS)}."
        raise ImageError(msg, "Export it again as PNG.")
    promised = KINDS.get(path.suffix.lower(), kind)
    if trust_suffix and promised != kind:
        msg = f"{path} holds a {kind} image; its suffix says {promised}."
        raise ImageError(msg, f"Rename it to {path.stem}.{kind.lower()} after a look at it.")
    try:
        with _QUIET:
            return _READERS[kind](path)
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except _BROKEN as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        msg = f"{path} is no complete {kind} image ({reason})."
        raise ImageError(msg, "Copy or export it again.") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors of what is done with an image say which one it is.

    Raises:
        ImageError: In place of any `InputError`.
    """
    try:
        yield
    except InputError as error:
        msg = f"{path}: {error.finding}"
        raise ImageError(msg, error.cure) from error


def is_image(name: str) -> bool:
    """Tell by its name whether a file is an image."""
    return Path(name).suffix.lower() in KINDS


def is_unnamed_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM that has no suffix, as scanners write it: IM0001, or the digits of a UID.

    Only such names are opened; DICOMDIR is a table of contents.
    """
    if path.name == "DICOMDIR" or not (path.suffix[1:].isdigit() or not path.suffix) or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD)[128:] == b"DICM"
    except OSError:
        return False


class _Quiet:
    """Keeps warnings back while any thread decodes; `warnings.catch_warnings` alone must not overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(None, None, None)


_QUIET = _Quiet()


def _kind_of(path: Path) -> str | None:
    """Look at the first bytes of a file."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        msg = f"{path} cannot be opened: {error.strerror or error}."
        raise ImageError(msg, "Check the path and its permissions.") from error
    if not head:
        msg = f"{path} is empty (0 bytes)."
        raise ImageError(msg, "Copy it again, or remove it.")
    if head[128:] == b"DICM":
        return "DICOM"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def _require_size(path: Path, height: int, width: int) -> None:
    if height * width > LARGEST_AREA:
        raise _too_large(path, height, width)
    if min(height, width) < SMALLEST_SIDE:
        msg = f"{path} has {height} x {width} pixels; expected at least {SMALLEST_SIDE} a side."
        raise ImageError(msg, "Remove it, or export it at its full size.")


def _too_large(path: Path, height: int = 0, width: int = 0) -> ImageError:
    size = f"{height} x {width} pixels" if height else "far too many pixels"
    msg = f"{path} has {size}; expected {LARGEST_AREA // 1_000_000} megapixels at most."
    return ImageError(msg, "Cut it into tiles, or export it smaller.")


# ------------------------------------------------------------------------------------------------ Pillow


def _read_pillow(path: Path) -> NDArray[Any]:
    """Read PNG, JPEG, BMP or TIFF."""
    with path.open(
        "rb"
    ) as stream:  # by its path, Pillow 13 scrambles uncompressed TIFF that lies on its side
        image = Image.open(stream, formats=("PNG", "JPEG", "BMP", "TIFF"))
        _require_size(path, image.height, image.width)
        pages = getattr(image, "n_frames", 1)
        if pages > 1:
            msg = f"{path} holds {pages} pages or frames; expected one image."
            raise ImageError(msg, "Export the one that counts, or each into a file of its own.")
        _require_known_colors(path, image)
        return _pixels(path, ImageOps.exif_transpose(image))


def _require_known_colors(path: Path, image: Image.Image) -> None:
    """Refuse what Pillow would change without a word, and colors that are not those of a screen."""
    bits = _bits(path, image)
    if image.mode in _GRAY_16 and bits == 16:
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) != _WHITE_IS_ZERO:
            return
        msg, cure = "gray of 16 bits with white as 0", "Export it with black as 0."
    elif image.mode in _UP_TO_8:
        if bits <= 8:
            return
        msg, cure = "color or alpha of 16 bits", "Export it with 8 bits, or save all 16 as an array (.npy)."
    elif image.mode in {"I", "F"}:
        msg, cure = "numbers of 32 bits or with a sign", "Save them as an array (.npy)."
    else:
        msg, cure = f"{image.mode} colors", "Export it as RGB."
    msg = f"{path} holds {msg}; expected gray of 8 or 16 bits, or RGB of 8."
    raise ImageError(msg, cure)


def _bits(path: Path, image: Image.Image) -> int:
    """Return the bits a sample takes in the file."""
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(_BITS_TAG, (1,))))  # type: ignore[attr-defined]
    if image.format == "PNG":
        with path.open("rb") as stream:
            return stream.read(25)[24]
    return 8


def _pixels(path: Path, image: Image.Image) -> NDArray[Any]:
    """Return the values of an image that is one page of known colors."""
    if image.mode in _GRAY_16:
        pixels = np.array(image).astype(np.uint16)
        _require_opaque(path, hidden=pixels == image.info.get("transparency", -1))
        return pixels[..., None]
    if image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        shown = image if image.mode in {"La", "RGBa"} else image.convert("RGBA")
        _require_opaque(path, hidden=np.array(shown)[..., -1] < 255)
    gray = image.mode in {"1", "L", "LA", "La"}
    if image.mode in {"La", "RGBa"}:  # opaque, so that nothing was multiplied
        return np.array(image)[..., : 1 if gray else 3]
    pixels = np.array(image.convert("L" if gray else "RGB"))
    return pixels.reshape(*pixels.shape[:2], 1 if gray else 3)


def _require_opaque(path: Path, hidden: NDArray[np.bool_]) -> None:
    if hidden.any():
        share = 100 * hidden.mean()
        msg = f"{path} is transparent in {share:.3g} % of its pixels; expected none, since no color is there."
        raise ImageError(msg, "Lay it over the background that it should have, and export it without alpha.")


# ------------------------------------------------------------------------------------------------ arrays


def _read_array(path: Path) -> NDArray[Any]:
    """Read an array of ``(H, W)`` or ``(H, W, C)``."""
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    if stored.ndim not in (2, 3) or not 1 <= (*stored.shape, 1)[2] <= MOST_CHANNELS:
        msg = (
            f"{path} has the shape {stored.shape}; expected (H, W) or (H, W, C) with C up to {MOST_CHANNELS}."
        )
        raise ImageError(msg, "Save one image a file, channels last (numpy.moveaxis).")
    _require_size(path, *stored.shape[:2])
    if stored.dtype.kind not in "buif":
        msg = f"{path} holds {stored.dtype}; expected whole or real numbers."
        raise ImageError(msg, "Save it as uint8, uint16 or float32.")
    pixels = _native(stored)
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        msg = f"{path} holds {count} values that are not finite; expected none."
        raise ImageError(msg, "Replace NaN and infinity before saving.")
    return pixels.reshape(*pixels.shape[:2], -1)


def _native(stored: NDArray[Any]) -> NDArray[Any]:
    """Copy an array into one of the three types of `read_image`."""
    if stored.dtype == np.bool_:
        return np.where(stored, np.uint8(255), np.uint8(0))
    kept = {1: np.uint8, 2: np.uint16}.get(stored.dtype.itemsize) if stored.dtype.kind == "u" else None
    with np.errstate(over="ignore"):
        return np.array(stored, dtype=kept or np.float32)


def _read_dicom(path: Path) -> NDArray[Any]:
    return read_dicom(path, lambda height, width: _require_size(path, height, width))


_READERS: Mapping[str, Callable[[Path], NDArray[Any]]] = {
    "PNG": _read_pillow,
    "JPEG": _read_pillow,
    "BMP": _read_pillow,
    "TIFF": _read_pillow,
    "NPY": _read_array,
    "DICOM": _read_dicom,
}
