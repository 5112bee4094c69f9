"""Phantoms with known content, and how they are written to files."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

OBLIQUE = np.array([[-1.9, 0.2, 0.1, 40.0], [0.2, 1.8, -0.3, -30.0], [0.1, 0.3, 2.1, -20.0], [0, 0, 0, 1.0]])


def orthogonal(affine: NDArray[np.float64], spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Return an affine with right angles near the given one."""
    left, _, right = np.linalg.svd(affine[:3, :3])
    result = affine.copy()
    result[:3, :3] = (left @ right) * np.array(spacing)
    return result


def ellipsoid_labels(shape: tuple[int, int, int] = (32, 32, 32)) -> NDArray[np.uint8]:
    """Nested ellipsoids: white matter (2) in gray matter (1) in CSF (3)."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    labels = np.zeros(shape, np.uint8)
    for limit, value in ((0.85, 3), (0.7, 1), (0.45, 2)):
        labels[radius < limit] = value
    return labels


def phantom_image(labels: NDArray[np.uint8], means: tuple[float, ...], seed: int) -> NDArray[np.int16]:
    """Give each label an intensity; zero outside, never zero inside. Each seed has blobs of its own."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 20, labels.shape)
    blobs = ndimage.gaussian_filter(rng.normal(0, 1, labels.shape), 1.5)
    image = np.array(means)[labels] + noise + 60 * blobs / blobs.std()
    return np.where(labels == 0, 0, np.clip(np.rint(image), 1, 1000)).astype(np.int16)


def save(path: Path, data: NDArray, affine: NDArray) -> Path:
    """Write a NIfTI file with both codes set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path


def write_subject(
    root: Path, name: str, seed: int, *, labeled: bool = True, affine: NDArray | None = None
) -> None:
    """Write one phantom subject in BIDS."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine
    labels = ellipsoid_labels()
    anat = root / f"sub-{name}" / "anat"
    save(anat / f"sub-{name}_T1w.nii.gz", phantom_image(labels, (0, 400, 600, 150), seed), affine)
    save(anat / f"sub-{name}_T2w.nii.gz", phantom_image(labels, (0, 500, 400, 900), seed + 1), affine)
    if labeled:
        place = root / "derivatives" / "manual" / f"sub-{name}" / "anat"
        save(place / f"sub-{name}_seg-braintissues_dseg.nii.gz", labels, affine)


TINY = {
    "network_def#growth_rate": 4,
    "network_def#stem_channels": 8,
    "network_def#block_layers": 1,
    "network_def#levels": 2,
    "crop_size": [16, 16, 16],
    "batch_size": 2,
    "epochs": 2,
    "steps_per_epoch": 3,
    "val_interval": 1,
    "augmentation_strength": 0.5,
}
"""Settings that make a training of seconds; dropout stays on, so that random states matter."""
