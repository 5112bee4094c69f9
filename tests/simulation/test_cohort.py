"""A subject is a pure function of its arguments, and looks like iSeg data."""

import numpy as np
import pytest

from medssl.errors import ConfigError
from medssl.labels import BRAIN_TISSUES
from medssl.simulation.acquisition import known_site
from medssl.simulation.anatomy import Anatomy
from medssl.simulation.cohort import SimulatedSubject, checked_spacing, simulate_subject, tissue_labels


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    values = [row.value for row in BRAIN_TISSUES.foreground]
    pairs = [(first == value, second == value) for value in values]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]))


def test_t1w_is_zero_exactly_where_the_label_is(subjects_at_2_mm: list[SimulatedSubject]) -> None:
    for subject in subjects_at_2_mm:
        np.testing.assert_array_equal(subject.images["T1w"] != 0, subject.label != 0)
        assert (subject.images["T2w"][subject.label == 0] == 0).all()


def test_images_hold_whole_numbers_from_0_to_1000(subjects_at_2_mm: list[SimulatedSubject]) -> None:
    for image in subjects_at_2_mm[0].images.values():
        assert image.dtype == np.float32
        assert image.min() == 0
        assert 300 < image.max() <= 1000
        np.testing.assert_array_equal(image, np.rint(image))


def test_labels_are_those_of_the_table(subjects_at_2_mm: list[SimulatedSubject]) -> None:
    label = subjects_at_2_mm[0].label
    assert label.dtype == np.uint8
    assert tuple(np.unique(label)) == BRAIN_TISSUES.values


def test_brain_fits_the_field_of_view(subjects_at_2_mm: list[SimulatedSubject]) -> None:
    for subject in subjects_at_2_mm:
        inner = np.zeros_like(subject.label)
        inner[1:-1, 1:-1, 1:-1] = subject.label[1:-1, 1:-1, 1:-1]
        np.testing.assert_array_equal(inner, subject.label)


def test_subjects_differ(subjects_at_2_mm: list[SimulatedSubject]) -> None:
    first, *others = subjects_at_2_mm
    assert max(_dice(first.label, other.label) for other in others) < 0.7


def test_same_arguments_give_same_voxels(subjects_at_2_mm: list[SimulatedSubject]) -> None:
    again = simulate_subject(0, 1, spacing=2.0)
    np.testing.assert_array_equal(again.label, subjects_at_2_mm[0].label)
    for name, image in again.images.items():
        np.testing.assert_array_equal(image, subjects_at_2_mm[0].images[name])


def test_site_spacing_age_and_motion_leave_the_anatomy_alone(
    subjects_at_2_mm: list[SimulatedSubject],
) -> None:
    other = simulate_subject(0, 1, spacing=2.0, site="B", age_months=12.0, motion=2.0)
    np.testing.assert_array_equal(other.label, subjects_at_2_mm[0].label)
    assert not np.array_equal(other.images["T1w"], subjects_at_2_mm[0].images["T1w"])


def test_spacing_samples_the_same_brain(anatomy: Anatomy) -> None:
    fine, coarse = tissue_labels(anatomy, (1.0, 1.0, 1.0)), tissue_labels(anatomy, (2.0, 2.0, 1.0))
    assert min(_dice(coarse, half) for half in (fine[::2, ::2], fine[1::2, 1::2])) > 0.75
    assert 4 * (coarse != 0).sum() == pytest.approx((fine != 0).sum(), rel=0.02)


def test_site_has_its_own_spacing() -> None:
    assert checked_spacing(None, known_site("A")) == (1.0, 1.0, 1.0)
    assert checked_spacing(None, known_site("B")) == (0.9, 0.9, 1.2)
    assert checked_spacing(2, known_site("B")) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing": 0.0}, "spacing is 0; expected 0.3 to 8"),
        ({"spacing": (1.0, -1.0, 1.0)}, "spacing is -1"),
        ({"spacing": (1.0, 1.0)}, "2 numbers; expected one or three"),
        ({"spacing": float("nan")}, "spacing is nan"),
        ({"site": "C"}, "no simulated site 'C'"),
        ({"age_months": -1.0}, "age_months is -1"),
        ({"motion": 99.0}, "motion is 99"),
        ({"seed": -1}, "seed is -1; expected 0 to 4294967295"),
    ],
)
def test_bad_arguments_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate_subject(**({"seed": 0, "number": 1} | change))
