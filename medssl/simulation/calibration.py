"""Numbers that tell how near the simulated contrast is to real scans at 6 months."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medssl.labels import BRAIN_TISSUES

BINS = 256
JOINT_BINS = 64
"""Per axis. 256 x 256 bins would hold a handful of voxels each and call noise a difference."""

TARGETS = {
    "GM_share": (0.42, 0.52),
    "WM_share": (0.26, 0.36),
    "CSF_share": (0.17, 0.27),
    "T1w_overlap": (0.62, 0.78),
    "T2w_overlap": (0.80, 0.94),
    "ceiling": (0.50, 0.74),
}
"""Where the mean over subjects must lie: what was measured on real scans at 6 months, with tolerance."""


def tissue_shares(label: NDArray[np.uint8]) -> dict[str, float]:
    """Return the share of each tissue in the brain mask (label not 0)."""
    inside = int((label != 0).sum())
    return {row.abbreviation: float((label == row.value).sum()) / inside for row in BRAIN_TISSUES.foreground}


def overlap(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return the sum of minima of two histograms, each normalized to 1."""
    return float(np.minimum(first / first.sum(), second / second.sum()).sum())


def histogram_overlap(image: NDArray[np.floating], label: NDArray[np.uint8]) -> float:
    """Return the overlap of gray and white matter in one contrast: 256 bins over the range in the mask.

    Shapes:
        image, label: ``(I, J, K)``
    """
    inside = image[label != 0]
    edges = np.linspace(inside.min(), inside.max(), BINS + 1)
    gray, white = (np.histogram(image[label == _value(name)], edges)[0] for name in ("GM", "WM"))
    return overlap(gray, white)


def joint_overlap(images: Mapping[str, NDArray[np.floating]], label: NDArray[np.uint8]) -> float:
    """Return the overlap of gray and white matter in the joint histogram of all contrasts.

    The voxels are halved at random into a histogram that decides and one that is scored, so that sparse bins
    do not pass for a difference; one minus half the result is the best balanced voxelwise accuracy.

    Shapes:
        images: each ``(I, J, K)``
        label: ``(I, J, K)``
    """
    inside = label != 0
    edges = [
        np.linspace(image[inside].min(), image[inside].max(), JOINT_BINS + 1) for image in images.values()
    ]
    rng = np.random.default_rng(0)
    seen, scored = [], []
    for name in ("GM", "WM"):
        values = np.stack([image[label == _value(name)] for image in images.values()], axis=1)
        half = rng.random(len(values)) < 0.5
        for kept, part in ((seen, half), (scored, ~half)):
            histogram = np.histogramdd(values[part], edges)[0]
            kept.append(histogram / histogram.sum())
    decided = seen[0] >= seen[1]
    accuracy = (scored[0][decided].sum() + scored[1][~decided].sum()) / 2
    return float(2 - 2 * accuracy)


def measure(images: Mapping[str, NDArray[np.floating]], label: NDArray[np.uint8]) -> dict[str, float]:
    """Return shares, overlaps and the balanced voxelwise ceiling of one subject."""
    shares = tissue_shares(label)
    joint = joint_overlap(images, label)
    return {
        **{f"{name}_share": shares[name] for name in shares},
        **{f"{name}_overlap": histogram_overlap(image, label) for name, image in images.items()},
        "joint_overlap": joint,
        "ceiling": 1 - joint / 2,
        "mask_voxels": float((label != 0).sum()),
    }


def _value(abbreviation: str) -> int:
    return next(row.value for row in BRAIN_TISSUES if row.abbreviation == abbreviation)
