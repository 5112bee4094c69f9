"""Any single-label 2D subset of MedMNIST v2 (.npz, of any size) in medssl's layout.

    python data_scripts/medmnist.py bloodmnist.npz OUT

SOURCE is one file as downloaded; its name says which subset it is, and the published counts are checked for those
listed here (releases of OrganA-, OrganC- and OrganSMNIST differ in theirs). Classes keep their numbers. CC BY 4.0 but
for DermaMNIST (CC BY-NC 4.0); look up the terms of yours.
"""

from __future__ import annotations

import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import Picture, parser, run, write_dataset

from medssl.errors import InputError

SUBSETS = {
    "pathmnist": (89_996, 10_004, 7180),
    "dermamnist": (7007, 1003, 2005),
    "octmnist": (97_477, 10_832, 1000),
    "pneumoniamnist": (4708, 524, 624),
    "retinamnist": (1080, 120, 400),
    "breastmnist": (546, 78, 156),
    "bloodmnist": (11_959, 1712, 3421),
    "tissuemnist": (165_466, 23_640, 47_280),
}
"""Name -> images for training, validation and test."""

SPLITS = {"train": "training", "val": "validation", "test": "test"}


def pictures(source: Path) -> Iterator[Picture]:
    """Yield all images in the order of the file."""
    try:
        with source.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {
                f"{name}_{what}": content[f"{name}_{what}"]
                for name in SPLITS
                for what in ("images", "labels")
            }
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        msg = f"{source} is no readable MedMNIST file ({error})."
        raise InputError(msg, "Download it again.") from error
    for name, section in SPLITS.items():
        images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
        labels = labels.reshape(len(labels), -1)
        if labels.shape[1] != 1 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
            msg = f"{source} has {name} images of {images.shape} with {labels.shape[1]} labels each; expected one."
            raise InputError(msg, "Volumes and subsets with several labels (ChestMNIST) cannot be used.")
        for number, (pixels, label) in enumerate(zip(images, labels[:, 0], strict=True)):
            yield Picture(pixels, str(label), f"{name}-{number:06d}", section)


def counts_of(source: Path) -> dict[str, int]:
    """Return the published counts of a file by its name, or none where they are not listed, which is said."""
    name = source.stem.split("_")[0].lower()
    if name in SUBSETS:
        return dict(zip(SPLITS, SUBSETS[name], strict=True))
    print(
        f"note: no published counts of {name} are known here; the numbers of images are not checked.",
        file=sys.stderr,
    )
    return {}


if __name__ == "__main__":
    given = parser(__doc__).parse_args()
    run(lambda: write_dataset(given, pictures(given.source), counts_of(given.source)))
