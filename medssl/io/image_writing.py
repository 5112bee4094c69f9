"""Writing an image file: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medssl.io.files import atomic_path


def write_png(path: Path | str, pixels: NDArray[np.uint8]) -> None:
    """Write an 8-bit image as PNG.

    Args:
        path: The file; missing folders are made.
        pixels: Gray or color.

    Raises:
        OutputError: The folder cannot be written to.

    Shapes:
        pixels: ``(H, W)``, ``(H, W, 1)`` or ``(H, W, 3)``
    """
    gray = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(gray)).save(temporary, format="PNG")
