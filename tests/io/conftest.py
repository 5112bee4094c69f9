"""A small brain in an awkward grid, and folders made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SHAPE = (20, 24, 18)


@pytest.fixture
def affine_oblique() -> np.ndarray:
    """Left-handed, anisotropic, rotated by 20 degrees about k, off center."""
    angle = np.deg2rad(20.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.9, 1.1, 1.5])
    affine[:3, 3] = (12.5, -31.25, 7.75)
    return affine


@pytest.fixture
def labels() -> np.ndarray:
    """Three nested tissues, 0 outside."""
    axes = [np.linspace(-1.25, 1.25, n) for n in SHAPE]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    return np.select([radius < 0.5, radius < 0.8, radius < 1.0], [2, 1, 3], 0).astype(np.uint8)


@pytest.fixture
def scan(labels: np.ndarray) -> np.ndarray:
    """Positive in the brain, 0 outside."""
    noise = np.random.default_rng(0).uniform(0, 20, labels.shape)
    return np.where(labels > 0, np.array([0, 300, 400, 150])[labels] + noise, 0).astype(np.int16)


@pytest.fixture
def save(affine_oblique: np.ndarray) -> Callable[..., Path]:
    """Save an array as NIfTI, making folders on the way."""

    def save_array(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, affine_oblique if affine is None else affine), path)
        return path

    return save_array


@pytest.fixture
def bids(tmp_path: Path, save: Callable[..., Path], scan: np.ndarray, labels: np.ndarray) -> Path:
    """Two subjects, T1w and T2w; the first has a label in the derivatives."""
    root = tmp_path / "cohort"
    for name in ("01", "02"):
        for contrast in ("T1w", "T2w"):
            save(root / f"sub-{name}/anat/sub-{name}_{contrast}.nii.gz", scan)
    save(root / "derivatives/manual/sub-01/anat/sub-01_seg-braintissues_dseg.nii.gz", labels)
    return root


@pytest.fixture
def write_list(bids: Path) -> Callable[..., Path]:
    """Write a datalist into the BIDS folder."""

    def write(**content: object) -> Path:
        path = bids / "datalist.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def entry() -> Callable[..., dict[str, object]]:
    """Make an entry of a datalist for one of the two subjects."""

    def make(name: str, **more: object) -> dict[str, object]:
        images = [f"sub-{name}/anat/sub-{name}_{contrast}.nii.gz" for contrast in ("T1w", "T2w")]
        return {"subject": name, "image": images, **more}

    return make


@pytest.fixture
def iseg(tmp_path: Path, scan: np.ndarray, labels: np.ndarray) -> Path:
    """Analyze pairs as the challenge has them: subject 1 labeled, 23 of another size without label."""
    root = tmp_path / "iSeg"
    raw = np.array([0, 150, 250, 10], np.uint8)[labels]
    _save_pair(root / "iSeg-2017-Training/subject-1-T1.hdr", scan)
    _save_pair(root / "iSeg-2017-Training/subject-1-T2.hdr", scan)
    _save_pair(root / "iSeg-2017-Training/subject-1-label.hdr", raw)
    larger = np.pad(scan, ((2, 2), (0, 0), (0, 0)))
    _save_pair(root / "iSeg-2017-Testing/subject-23-T1.hdr", larger)
    _save_pair(root / "iSeg-2017-Testing/subject-23-T2.hdr", larger)
    return root


def _save_pair(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.AnalyzeImage(data[..., None], np.diag([-1.0, 1.0, 1.0, 1.0])).to_filename(path)
