"""Subjects that several tests look at, simulated once."""

import numpy as np
import pytest

from medssl.simulation.anatomy import Anatomy, draw_anatomy
from medssl.simulation.cohort import SimulatedSubject, simulate_subject


@pytest.fixture(scope="session")
def subjects_at_2_mm() -> list[SimulatedSubject]:
    """Return the first subjects of one cohort."""
    return [simulate_subject(0, number, spacing=2.0) for number in (1, 2, 3)]


@pytest.fixture(scope="session")
def subjects_at_1_mm() -> list[SimulatedSubject]:
    """Return enough subjects for means that do not hang on one of them."""
    return [simulate_subject(0, number, spacing=1.0) for number in range(6)]


@pytest.fixture(scope="session")
def anatomy() -> Anatomy:
    """Return one brain."""
    return draw_anatomy(np.random.default_rng(0))
