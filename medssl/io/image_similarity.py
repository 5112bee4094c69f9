"""Images that look like one another: what was saved again, made smaller or brighter. A hint, never a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.io.image_items import HELD_OUT, ImageCohort, ImageItem
from medssl.io.images import read_image

Progress = Callable[[str, int, int], None]
"""Called before each image with its name, the number read and the number in all; once more at the end."""

_SIDE = 8  # a hash has 8 x 8 bits
_BLOCK = 64  # images compared with all others at once


class SimilarImages(NamedTuple):
    """A held-out image and the one it resembles most among those that training sees.

    Args:
        held_out: An image of validation or test.
        seen: The labeled or unlabeled image.
        bits: Number of bits, of 64, in which their hashes differ.
    """

    held_out: ImageItem
    seen: ImageItem
    bits: int


def similar_images(
    cohort: ImageCohort, *, bits: int = 2, progress: Progress | None = None
) -> list[SimilarImages]:
    """Find held-out images that look like one that training sees.

    Small or plain images resemble others by chance: look at the pairs before believing them. Measured on MedNIST
    (64 x 64): 90 % of the copies saved as JPEG of quality 75 lie within 2 bits, and 17 % of the test images lie so
    near to a stranger among 4,800; of MNIST's digits 76 % do.

    Args:
        cohort: Whose images.
        bits: Largest difference of two hashes that is reported.
        progress: Told about each image.

    Returns:
        For each held-out image the nearest other, if it is near enough.

    Raises:
        ImageError: An image cannot be read.
    """
    held_out = [item for name in HELD_OUT for item in cohort.section(name)]
    seen = [*cohort.training, *cohort.unlabeled]
    if not held_out or not seen:
        return []
    hashes = _hashes([*held_out, *seen], progress)
    others, found = hashes[len(held_out) :], []
    for start in range(0, len(held_out), _BLOCK):
        block = hashes[start : min(start + _BLOCK, len(held_out))]
        differing = np.bitwise_count(block[:, None] ^ others[None, :])
        nearest = differing.argmin(axis=1)
        for place, other in enumerate(nearest):
            if differing[place, other] <= bits:
                pair = SimilarImages(held_out[start + place], seen[other], int(differing[place, other]))
                found.append(pair)
    return found


def difference_hash(pixels: NDArray[Any]) -> int:
    """Return 64 bits: is each of 8 x 9 averaged patches brighter than its neighbor to the left?

    Neither another size, nor another brightness or contrast, nor the noise of JPEG changes many of them.

    Shapes:
        pixels: ``(H, W, C)``

    Source:
        The difference hash of N. Krawetz, 2013. Own implementation.
    """
    gray = pixels.mean(axis=2, dtype=np.float32)
    patches = _patches(gray.shape[0], _SIDE) @ gray @ _patches(gray.shape[1], _SIDE + 1).T
    brighter = patches[:, 1:] > patches[:, :-1]
    return int.from_bytes(np.packbits(brighter).tobytes(), "big")


def _patches(length: int, count: int) -> NDArray[np.float32]:
    """Return the share that each pixel has in each patch along one axis, ``(count, length)``."""
    edges = np.linspace(0, length, count + 1)
    pixels = np.arange(length)
    ends = np.minimum(edges[1:, None], pixels + 1)
    return np.clip(ends - np.maximum(edges[:-1, None], pixels), 0, None).astype(np.float32)


def _hashes(items: Sequence[ImageItem], progress: Progress | None) -> NDArray[np.uint64]:
    found = np.empty(len(items), np.uint64)
    for number, item in enumerate(items):
        if progress:
            progress(item.name, number, len(items))
        found[number] = difference_hash(read_image(item.path))
    if progress:
        progress(items[-1].name, len(items), len(items))
    return found
