"""The measures agree with counts by hand, and the cohort meets its targets."""

import numpy as np
import pytest

from medssl.simulation.calibration import TARGETS, histogram_overlap, joint_overlap, measure, tissue_shares
from medssl.simulation.cohort import SimulatedSubject


def _two_tissues(shift: float, count: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.repeat(np.array([1, 2], dtype=np.uint8), count).reshape(2, count, 1)
    image = rng.normal(500, 50, label.shape) + np.where(label == 2, shift, 0)
    return image, label


def test_shares_are_counted_inside_the_mask() -> None:
    label = np.array([0, 0, 1, 1, 2, 3], dtype=np.uint8)
    assert tissue_shares(label) == {"GM": 0.5, "WM": 0.25, "CSF": 0.25}


def test_identical_tissues_overlap_fully() -> None:
    image, label = _two_tissues(0)
    assert histogram_overlap(image, label) > 0.95
    assert joint_overlap({"T1w": image, "T2w": image[:, ::-1]}, label) > 0.97


def test_overlap_of_two_gaussians_is_the_textbook_value() -> None:
    image, label = _two_tissues(100)  # two standard deviations apart: 2 * Phi(-1)
    assert histogram_overlap(image, label) == pytest.approx(0.317, abs=0.02)
    assert joint_overlap({"T1w": image}, label) == pytest.approx(0.317, abs=0.02)


def test_disjoint_tissues_do_not_overlap() -> None:
    image, label = _two_tissues(2000)
    assert histogram_overlap(image, label) == 0


@pytest.fixture(scope="module")
def measured(subjects_at_1_mm: list[SimulatedSubject]) -> list[dict[str, float]]:
    return [measure(subject.images, subject.label) for subject in subjects_at_1_mm]


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_cohort_meets_the_targets_of_real_scans(measured: list[dict[str, float]], name: str) -> None:
    low, high = TARGETS[name]
    assert low <= np.mean([facts[name] for facts in measured]) <= high
