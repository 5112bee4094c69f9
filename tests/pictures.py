"""Small image folders for tests: two classes that a network learns in a few steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medssl.workflows.classification.train import ClassifyOptions

CLASSES = ("dark", "light")
TINY = {"network": "vgg-small-28", "size": 16, "channels": 1, "preset": "none", "steps": 4, "device": "cpu"}
"""Options of a training that takes a second."""


def picture(label: int, seed: int, size: int = 16) -> np.ndarray:
    """Return an image whose right half is dark or light."""
    values = np.random.default_rng(seed).integers(60, 120, (size, size))
    values[:, size // 2 :] += 100 * label
    return values.astype(np.uint8)


def write_pictures(
    root: Path, training: int = 6, validation: int = 12, test: int = 5, unlabeled: int = 20
) -> Path:
    """Write a folder tree; the numbers are images a class, of unlabeled ones in all."""
    seed = 0
    for section, count in (("train", training), ("val", validation), ("test", test)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                folder = root / section / name
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture(label, seed)).save(folder / f"{number}.png")
                seed += 1
    for number in range(unlabeled):
        (root / "unlabelled").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number % 2, seed)).save(root / "unlabelled" / f"{number}.png")
        seed += 1
    return root


def options(**changes: object) -> ClassifyOptions:
    """Return the options of a tiny training."""
    return ClassifyOptions(**{**TINY, **changes})


def blocks(shape: tuple[int, ...], dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Squares of four pixels, so that there are edges and areas."""
    coarse = np.random.default_rng(seed).random((shape[0] // 4 + 1, shape[1] // 4 + 1, *shape[2:]))
    values = coarse.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]]
    return (
        (values * np.iinfo(dtype).max).astype(dtype) if np.dtype(dtype).kind == "u" else values.astype(dtype)
    )
