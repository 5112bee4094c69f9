"""A subject is a pure function of its arguments, and looks like iSeg data."""

import numpy as np
import pytest

from medssl.errors import ConfigError
from medssl.labels import BRAIN_TISSUES
from medssl.simulation.cohort import SimulatedSubject, simulate_subject


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    scores = [
        2 * ((first == row.value) & (second == row.value)).sum() / ((first == row.value).sum() + (second == row.value).sum())
        for row in BRAIN_TISSUES.foreground
    ]
    return float(np.mean(scores))


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


def test_site_spacing_age_and_motion_leave_the_anatomy_alone(subjects_at_2_mm: list[SimulatedSubject]) -> None:
    other = simulate_subject(0, 1, spacing=2.0, site="B", age_months=12.0, motion=2.0)
    np.testing.assert_array_equal(other.label, subjects_at_2_mm[0].label)
    assert not np.array_equal(other.images["T1w"], subjects_at_2_mm[0].images["T1w"])


def test_spacing_samples_the_same_brain() -> None:
    fine = simulate_subject(0, 1, spacing=1.0)
    coarse = simulate_subject(0, 1, spacing=(2.0, 2.0, 1.0))
    halves = fine.label[::2, ::2], fine.label[1::2, 1::2]
    assert min(_dice(coarse.label, half) for half in halves) > 0.75
    ratio = coarse.images["T1w"][coarse.label != 0].mean() / fine.images["T1w"][fine.label != 0].mean()
    assert ratio == pytest.approx(1, abs=0.03)


def test_white_matter_brightens_with_age_in_t1w_and_darkens_in_t2w() -> None:
    contrast = {}
    for age in (3.0, 12.0):
        subject = simulate_subject(0, 2, spacing=4.0, age_months=age)
        for name, image in subject.images.items():
            gray, white = (image[subject.label == value].mean() for value in (1, 2))
            contrast[name, age] = (white - gray) / gray
    assert contrast["T1w", 3.0] < contrast["T1w", 12.0] - 0.1
    assert contrast["T2w", 3.0] > contrast["T2w", 12.0] + 0.05


def test_site_has_its_own_spacing() -> None:
    subject = simulate_subject(0, 1, spacing=None, site="B")
    assert subject.label.shape == (160, 196, 107)
    np.testing.assert_allclose(np.diag(subject.affine)[:3], (0.9, 0.9, 1.2))


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
    ],
)
def test_bad_arguments_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate_subject(0, 1, **change)
