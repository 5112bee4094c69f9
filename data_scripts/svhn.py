"""SVHN (73,257 + 26,032 house numbers, 32 x 32 color, cropped digits) in medssl's layout.

    python data_scripts/svhn.py SOURCE OUT

SOURCE holds train_32x32.mat and test_32x32.mat; extra_32x32.mat is not used. The files write the digit 0 as 10.
Non-commercial use (Netzer et al., 2011).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import Picture, parser, run, write_dataset
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from medssl.errors import InputError

TRAIN = (4948, 13_861, 10_585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
TEST = (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595)
COUNTS = {"images": 99_289, "classes": 10, "train": 73_257, "test": 26_032}
COUNTS |= {f"train/{digit}": count for digit, count in enumerate(TRAIN)}
COUNTS |= {f"test/{digit}": count for digit, count in enumerate(TEST)}


def pictures(source: Path) -> Iterator[Picture]:
    """Yield all digits in the order of the files."""
    for split, name in (("training", "train"), ("test", "test")):
        images, labels = _values(source / f"{name}_32x32.mat")
        for number, label in enumerate(labels):
            yield Picture(images[..., number], str(label % 10), f"{name}-{number:05d}", split)


def _values(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a file: ``X (H, W, 3, N)`` and ``y (N, 1)``."""
    try:
        content = loadmat(path)
        images, labels = content["X"], content["y"].ravel().astype(int)
    except (OSError, KeyError, ValueError, TypeError, MatReadError) as error:
        msg = f"{path} is no readable .mat file with X and y ({error})."
        raise InputError(msg, "Download the cropped digits (format 2) again.") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[2:] != (3, len(labels)):
        msg = f"{path} holds X of {images.shape} {images.dtype} and {len(labels)} labels; expected (H, W, 3, N) uint8."
        raise InputError(msg, "Download the cropped digits (format 2) again.")
    return images, labels


if __name__ == "__main__":
    given = parser(__doc__).parse_args()
    run(lambda: write_dataset(given, pictures(given.source), COUNTS))
