"""Subjects that several tests look at, simulated once."""

import pytest

from medssl.simulation.cohort import SimulatedSubject, simulate_subject


@pytest.fixture(scope="session")
def subjects_at_2_mm() -> list[SimulatedSubject]:
    """Four subjects of one cohort."""
    return [simulate_subject(0, number, spacing=2.0) for number in range(1, 5)]
