"""Small images on the disk, each with its own noise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def noise(seed: int) -> NDArray[np.uint8]:
    """Return gray noise of 8 x 9 pixels."""
    return np.random.default_rng(seed).integers(0, 256, (8, 9), np.uint8)


def save_picture(path: Path, seed: int = 0) -> Path:
    """Write noise, making folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed)).save(path)
    return path


def write_tree(root: Path, counts: Mapping[str, int]) -> Path:
    """Fill folders with images 1.png, 2.png and so on; no two are equal."""
    seed = 0
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            seed += 1
            save_picture(root / folder / f"{number}.png", seed)
    return root


def hash_of_tree(root: Path) -> str:
    """Return a digest of all names and contents below a folder."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()
