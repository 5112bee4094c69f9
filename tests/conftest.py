"""Shared fixtures: phantoms and cohorts with known content."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MEDSSL_CACHE", tempfile.mkdtemp())

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from phantoms import OBLIQUE, orthogonal, write_subject


@pytest.fixture
def affine_oblique() -> NDArray[np.float64]:
    """Rotated, flipped, anisotropic, with right angles."""
    return orthogonal(OBLIQUE, (2.0, 1.8, 2.2))


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three labeled and one unlabeled phantom subject."""
    root = tmp_path / "cohort"
    for seed, name in enumerate(("01", "02", "03")):
        write_subject(root, name, 10 * seed)
    write_subject(root, "04", 40, labeled=False)
    return root


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the home folder's caches."""
    monkeypatch.setenv("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True)
def _the_same_draws() -> None:
    """Let every test draw the same of torch's random numbers: none fails once in a hundred runs."""
    torch.manual_seed(0)
