"""MNIST (60,000 + 10,000 handwritten digits, 28 x 28) in medssl's layout.

    python data_scripts/mnist.py SOURCE OUT

SOURCE holds the four idx files (train-images-idx3-ubyte and so on), plain or with .gz. Their content is compared
with the published checksums. Usually quoted as CC BY-SA 3.0 (Y. LeCun, C. Cortes).
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import Picture, parser, run, write_dataset

from medssl.errors import InputError

FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""Name -> MD5 of the content."""

TRAIN = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
COUNTS = {"images": 70_000, "classes": 10, "train": 60_000, "test": 10_000}
COUNTS |= {f"train/{digit}": count for digit, count in enumerate(TRAIN)}


def pictures(source: Path, *, partial: bool) -> Iterator[Picture]:
    """Yield all digits in the order of the files."""
    for split, name in (("training", "train"), ("test", "t10k")):
        images = _values(source, f"{name}-images-idx3-ubyte", partial=partial)
        labels = _values(source, f"{name}-labels-idx1-ubyte", partial=partial)
        if len(images) != len(labels) or images.ndim != 3:
            msg = f"{name} has images of shape {images.shape} and labels of shape {labels.shape}."
            raise InputError(msg, "Give the images and the labels of one download.")
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            yield Picture(pixels, str(label), f"{name}-{number:05d}", split)


def _values(source: Path, name: str, *, partial: bool) -> np.ndarray:
    """Read an idx file: two zeros, the type (8: bytes), the number of axes, their lengths, the values."""
    packed = source / f"{name}.gz"
    try:
        content = gzip.decompress(packed.read_bytes()) if packed.is_file() else (source / name).read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        msg = f"{source} has no readable {name} or {name}.gz ({error})."
        raise InputError(msg, "Download the four idx files again.") from error
    if not partial and hashlib.md5(content).hexdigest() != FILES[name]:
        msg = f"{name} has another content than the published file."
        raise InputError(msg, "Download it again, or pass --partial for another set in this format.")
    axes = content[3] if content[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(content[4 : 4 + 4 * axes], ">u4")
    if not axes or len(content) != 4 + 4 * axes + shape.prod(dtype=int):
        msg = f"{name} is no complete idx file of bytes."
        raise InputError(msg, "Download it again.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


if __name__ == "__main__":
    given = parser(__doc__).parse_args()
    run(lambda: write_dataset(given, pictures(given.source, partial=given.partial), COUNTS))
