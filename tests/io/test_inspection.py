import gzip
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.errors import DatalistError, GridError, InputError, LabelError, MedsslError
from medssl.io.cohort import read_cohort
from medssl.io.inspection import (
    Problem,
    inspect_cohort,
    inspect_subject,
    require_usable,
    require_usable_cohort,
)
from medssl.io.subjects import Cohort, Subject
from medssl.labels import BRAIN_TISSUES

BOTH = ("T1w", "T2w")
Save = Callable[..., Path]


@pytest.fixture
def subject(bids: Path) -> Subject:
    return read_cohort(bids).training[0]


def _problems(subject: Subject, resample: bool = False) -> tuple[Problem, ...]:
    return inspect_subject(subject, BOTH, BRAIN_TISSUES, "training", resample).problems


def _only_problem(subject: Subject, resample: bool = False) -> Problem:
    (problem,) = _problems(subject, resample)
    assert problem.subject == "sub-01"
    assert problem.message.startswith("sub-01: ")
    assert problem.cure.endswith(".")
    return problem


def test_sound_subject_is_described(subject: Subject) -> None:
    report = inspect_subject(subject, BOTH, BRAIN_TISSUES, "training")
    assert report.ok
    assert report.problems == ()
    assert (report.subject, report.section) == ("sub-01", "training")
    assert list(report.files) == ["T1w", "T2w", "label"]
    assert (report.shape, report.orientation) == ((20, 24, 18), "LAS")
    assert report.spacing == pytest.approx((0.9, 1.1, 1.5), rel=1e-6)
    assert (report.label_values, report.mask_origin) == ((0, 1, 2, 3), "T1w != 0")


def test_missing_contrast_names_the_file_it_should_be(subject: Subject) -> None:
    subject.images[1].unlink()
    problem = _only_problem(subject)
    assert "T2w is missing: expected sub-01_T2w.nii.gz" in problem.message
    assert "--contrasts" in problem.cure
    assert (problem.severity, problem.file, problem.error) == ("fatal", subject.images[1], InputError)


def test_missing_label_file_is_fatal(subject: Subject) -> None:
    assert (
        "gone_dseg.nii.gz is missing"
        in _only_problem(replace(subject, label=Path("gone_dseg.nii.gz"))).message
    )


def test_t2w_on_another_grid_is_refused(subject: Subject, save: Save, scan: np.ndarray) -> None:
    save(subject.images[1], scan[:, :, ::2], np.diag([1.0, 1, 2, 1]))
    problem = _only_problem(subject)
    assert (
        "T2w (sub-01_T2w.nii.gz) is not on the T1w grid: shape (20, 24, 9) against (20, 24, 18)"
        in problem.message
    )
    assert "--resample" in problem.cure
    assert problem.error is GridError


def test_t2w_moved_by_its_header_is_on_another_grid(
    subject: Subject, save: Save, scan: np.ndarray, affine_oblique: np.ndarray
) -> None:
    affine_oblique[:3, 3] += 5
    save(subject.images[1], scan, affine_oblique)
    assert "position or rotation: corners up to 8.66 mm apart" in _only_problem(subject).message


def test_t2w_on_another_grid_is_a_warning_when_resampling(
    subject: Subject,
    save: Save,
    scan: np.ndarray,
    affine_oblique: np.ndarray,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shifted = affine_oblique.copy()
    shifted[:3, 3] -= affine_oblique[:3, :3] @ (3, 3, 3)
    save(subject.images[1], np.pad(scan, 3), shifted)
    with caplog.at_level(logging.INFO):
        problem = _only_problem(subject, resample=True)
    assert problem.severity == "warning"
    assert "T2w will be resampled to the T1w grid" in problem.message
    assert "from shape (26, 30, 24)" in caplog.text


def test_resampling_does_not_bring_brains_together(
    subject: Subject, save: Save, scan: np.ndarray, affine_oblique: np.ndarray
) -> None:
    affine_oblique[:3, 3] += 100
    save(subject.images[1], scan, affine_oblique)
    fatal = [problem for problem in _problems(subject, resample=True) if problem.severity == "fatal"]
    assert "do not lie on each other: 0% of the smaller overlaps; expected at least 50%" in fatal[0].message


def test_brains_that_do_not_overlap_are_refused(subject: Subject, save: Save, scan: np.ndarray) -> None:
    save(subject.images[1], np.roll(scan, 12, axis=1))
    problem = _only_problem(subject)
    assert "the brains in T1w and T2w (sub-01_T2w.nii.gz) do not lie on each other" in problem.message
    assert "Register" in problem.cure
    assert problem.error is GridError


def test_brains_that_overlap_in_part_are_doubtful(subject: Subject, save: Save, scan: np.ndarray) -> None:
    save(subject.images[1], np.roll(scan, 4, axis=1))
    problem = _only_problem(subject)
    assert problem.severity == "warning"
    assert "of the T2w brain lies on the T1w brain" in problem.message


def test_truncated_file_is_collected_with_all_others(subject: Subject, save: Save) -> None:
    subject.images[0].write_bytes(subject.images[0].read_bytes()[:900])
    save(subject.images[1], np.zeros((20, 24, 18), np.int16))
    save(subject.label, np.full((20, 24, 18), 9, np.uint8))
    messages = [problem.message for problem in _problems(subject)]
    assert len(messages) == 3
    for message, part in zip(messages, ("truncated", "all zero", "values 9"), strict=True):
        assert part in message


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda data: data[..., None].repeat(2, axis=3), "is 4D"),
        (lambda data: np.full_like(data, 5), "constant (5)"),
        (lambda data: np.where(data > 390, np.nan, data).astype(np.float32), "NaN or infinite"),
        (lambda data: np.zeros(data.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "RGB"),
    ],
)
def test_unusable_voxels_are_collected(
    subject: Subject, save: Save, scan: np.ndarray, change: Callable, part: str
) -> None:
    save(subject.images[1], change(scan))
    problem = _only_problem(subject)
    assert part in problem.message
    assert "sub-01_T2w.nii.gz" in problem.message


def test_zero_spacing_is_collected(subject: Subject) -> None:
    raw = bytearray(gzip.decompress(subject.images[1].read_bytes()))
    raw[80:84] = bytes(4)
    subject.images[1].write_bytes(gzip.compress(bytes(raw)))
    assert _only_problem(subject).error is GridError


def test_sheared_scan_is_collected(subject: Subject, save: Save, scan: np.ndarray) -> None:
    save(subject.images[1], scan, np.eye(4) + np.eye(4, k=1) * [[0.2]] * np.array([1, 1, 1, 0])[:, None])
    assert "sheared" in _only_problem(subject).message


def test_label_values_outside_the_table_are_collected(
    subject: Subject, save: Save, labels: np.ndarray
) -> None:
    save(subject.label, np.where(labels == 3, 8, labels).astype(np.uint8))
    problem = _only_problem(subject)
    assert problem.error is LabelError
    assert "has the values 8; expected only those of the table 'braintissues'" in problem.message


def test_label_on_another_grid_is_refused(subject: Subject, save: Save, labels: np.ndarray) -> None:
    save(subject.label, labels[2:])
    problem = _only_problem(subject)
    assert "label image sub-01_seg-braintissues_dseg.nii.gz is not on the T1w grid" in problem.message
    assert "shape (18, 24, 18) against (20, 24, 18)" in problem.message
    assert "nearest neighbor" in problem.cure


def test_label_without_a_tissue_and_with_unknown_voxels_are_warnings(
    subject: Subject, save: Save, labels: np.ndarray
) -> None:
    save(subject.label, np.where(labels == 3, 255, labels).astype(np.uint8))
    absent, unknown = _problems(subject)
    assert (absent.severity, unknown.severity) == ("warning", "warning")
    assert "no voxel of CSF" in absent.message
    assert "unknown (255)" in unknown.message


def test_empty_label_is_refused(subject: Subject, save: Save, labels: np.ndarray) -> None:
    save(subject.label, np.zeros_like(labels))
    assert "is empty" in _only_problem(subject).message


def test_mask_file_is_used_in_place_of_the_scan(subject: Subject, save: Save, labels: np.ndarray) -> None:
    mask = save(subject.images[0].parent / "sub-01_desc-brain_mask.nii.gz", labels)
    report = inspect_subject(replace(subject, mask=mask), BOTH, BRAIN_TISSUES, "training")
    assert (report.ok, report.mask_origin) == (True, "sub-01_desc-brain_mask.nii.gz")


@pytest.mark.parametrize(
    ("change", "part"), [(lambda m: m[1:], "not on the T1w grid"), (lambda m: m * 0, "is empty")]
)
def test_useless_mask_is_refused(
    subject: Subject, save: Save, labels: np.ndarray, change: Callable, part: str
) -> None:
    mask = save(subject.images[0].parent / "a_mask.nii.gz", change(labels))
    assert part in _only_problem(replace(subject, mask=mask)).message


def test_scan_without_orientation_is_a_warning(bids: Path, scan: np.ndarray) -> None:
    for path in bids.rglob("sub-02_T*w.nii.gz"):
        nib.save(nib.Nifti1Image(scan, None), path)
    (problem,) = _problems(read_cohort(bids).unlabeled[0])
    assert (problem.severity, "no orientation" in problem.message) == ("warning", True)


# ----------------------------------------------------------------------------------------- whole heads


def _head(spacing: float, skull: float, scalp: float) -> np.ndarray:
    """Brain of 65 mm radius, fluid, skull and scalp (thickness in mm) in air that is exactly 0."""
    axis = (np.arange(round(200 / spacing)) - 100 / spacing) * spacing
    radius = np.sqrt(sum(axes**2 for axes in np.meshgrid(axis, axis, axis * 1.1, indexing="ij")))
    edges = [45, 65, 68, 68 + skull, 68 + skull + scalp]
    head = np.select([radius < edge for edge in edges], [400, 300, 100, 40, 500], 0).astype(np.int16)
    return head if scalp else np.where(radius < 66, head, 0).astype(np.int16)


@pytest.mark.parametrize(("spacing", "skull", "scalp"), [(2.0, 6, 5), (1.72, 4, 4), (3.0, 6, 6)])
def test_whole_head_in_empty_air_is_refused_by_its_rim(
    tmp_path: Path, save: Save, spacing: float, skull: float, scalp: float
) -> None:
    path = save(tmp_path / "sub-01_T1w.nii.gz", _head(spacing, skull, scalp), np.diag([spacing] * 3 + [1]))
    report = inspect_subject(Subject("01", (path,)), ("T1w",), BRAIN_TISSUES, "unlabeled")
    (problem,) = report.problems
    assert "sub-01_T1w.nii.gz seems not to be skull-stripped: below its bright rim" in problem.message
    assert "desc-brain_mask.nii.gz" in problem.cure
    assert "--mask none" in problem.cure


@pytest.mark.parametrize("spacing", [2.0, 1.72, 3.0])
def test_stripped_brain_of_the_same_size_passes(tmp_path: Path, save: Save, spacing: float) -> None:
    path = save(tmp_path / "sub-01_T1w.nii.gz", _head(spacing, 0, 0), np.diag([spacing] * 3 + [1]))
    assert inspect_subject(Subject("01", (path,)), ("T1w",), BRAIN_TISSUES, "unlabeled").problems == ()


def test_whole_head_in_noisy_air_is_refused_by_its_share(tmp_path: Path, save: Save) -> None:
    noise = np.random.default_rng(0).integers(1, 9, (67, 67, 67))
    path = save(
        tmp_path / "sub-01_T1w.nii.gz", (_head(3.0, 6, 6) + noise).astype(np.int16), np.diag([3.0, 3, 3, 1])
    )
    (problem,) = inspect_subject(Subject("01", (path,)), ("T1w",), BRAIN_TISSUES, "unlabeled").problems
    assert "100% of the field of view is not 0 (a brain: at most 60%)" in problem.message


def test_more_than_a_brain_can_be_is_refused_by_its_volume(
    tmp_path: Path, save: Save, scan: np.ndarray
) -> None:
    path = save(tmp_path / "sub-01_T2w.nii.gz", scan, np.diag([12.0, 12, 12, 1]))
    (problem,) = inspect_subject(Subject("01", (path,)), ("T2w",), BRAIN_TISSUES, "unlabeled").problems
    assert "ml are not 0 (a brain: at most 2500 ml)" in problem.message


def test_whole_head_passes_with_mask_none(tmp_path: Path, save: Save) -> None:
    path = save(tmp_path / "sub-01_T1w.nii.gz", _head(3.0, 6, 6), np.diag([3.0, 3, 3, 1]))
    report = inspect_subject(Subject("01", (path,), mask="none"), ("T1w",), BRAIN_TISSUES, "unlabeled")
    assert (report.problems, report.mask_origin) == ((), "none")


def test_contrasts_with_noisy_air_are_compared_above_the_noise(tmp_path: Path, save: Save) -> None:
    noise = np.random.default_rng(0).integers(1, 9, (2, 67, 67, 67)).astype(np.int16)
    head, affine = _head(3.0, 6, 6), np.diag([3.0, 3, 3, 1])
    first = save(tmp_path / "a_T1w.nii", head + noise[0], affine)
    near, far = (np.roll(head, shift, axis=0) + noise[1] for shift in (1, 33))
    good, bad = save(tmp_path / "a_T2w.nii", near, affine), save(tmp_path / "b_T2w.nii", far, affine)
    assert _problems(Subject("01", (first, good), mask="none")) == ()
    assert "do not lie on each other" in _problems(Subject("01", (first, bad), mask="none"))[0].message


# --------------------------------------------------------------------------------------------- cohorts


def _cohort(**sections: tuple[Subject, ...]) -> Cohort:
    return Cohort(Path("data"), ("T1w",), BRAIN_TISSUES, **sections)


def _scan_of(name: str, session: str | None = None) -> Subject:
    return Subject(name, (Path(f"{name}_{session}_T1w.nii"),), session=session)


def test_sound_cohort_has_no_problem(bids: Path) -> None:
    assert inspect_cohort(read_cohort(bids)) == []


def test_cohort_without_subjects_is_refused() -> None:
    (problem,) = inspect_cohort(_cohort())
    assert (problem.severity, problem.message) == (
        "fatal",
        "The datalist at data lists no subject; expected at least one.",
    )


def test_subject_listed_twice_is_refused() -> None:
    one = Subject("1", (Path("a_T1w.nii"),))
    two = Subject("1", (Path("b_T1w.nii"),))
    (problem,) = inspect_cohort(_cohort(training=(one, two)))
    assert "sub-1 is listed 2 times (training, training); expected once" in problem.message
    assert problem.error is DatalistError


def test_file_in_two_places_is_refused() -> None:
    one, two = Subject("1", (Path("a_T1w.nii"),)), Subject("2", (Path("x/../a_T1w.nii"),))
    (problem,) = inspect_cohort(_cohort(training=(one,), unlabeled=(two,)))
    assert "a_T1w.nii stands in 2 places: sub-1 (T1w), sub-2 (T1w)" in problem.message


def test_scan_given_as_its_own_label_is_refused() -> None:
    (problem,) = inspect_cohort(_cohort(training=(Subject("1", (Path("a.nii"),), label=Path("a.nii")),)))
    assert "sub-1 (T1w), sub-1 (label)" in problem.message


@pytest.mark.parametrize("other", ["training", "validation", "unlabeled"])
def test_test_subject_in_another_list_is_refused(other: str) -> None:
    (problem,) = inspect_cohort(_cohort(test=(_scan_of("1"),), **{other: (_scan_of("1"), _scan_of("2"))}))
    assert problem.severity == "fatal"
    assert all(part in problem.message for part in ("sub-1", "'test'", f"'{other}'"))


def test_sessions_of_one_subject_on_both_sides_are_refused() -> None:
    problems = inspect_cohort(_cohort(training=(_scan_of("1", "a"),), validation=(_scan_of("1", "b"),)))
    assert ["sub-1 is in 'training' and in 'validation'" in problem.message for problem in problems] == [True]


def test_labeled_and_unlabeled_session_of_one_child_may_both_be_learned_from() -> None:
    assert inspect_cohort(_cohort(training=(_scan_of("1", "a"),), unlabeled=(_scan_of("1", "b"),))) == []
    assert len(inspect_cohort(_cohort(training=(_scan_of("1", "a"),), unlabeled=(_scan_of("1", "a"),)))) == 1


def test_unusable_subject_is_refused_with_the_first_fatal_problem(subject: Subject, bids: Path) -> None:
    cohort = read_cohort(bids)
    require_usable(subject, cohort, "training")
    subject.images[1].write_bytes(b"")
    with pytest.raises(
        InputError, match=r"sub-01: sub-01_T2w\.nii\.gz is no readable NIfTI.*Copy or convert"
    ):
        require_usable(subject, cohort, "training")


def test_only_the_named_sections_are_read(bids: Path) -> None:
    cohort = read_cohort(bids)
    cohort.unlabeled[0].images[0].unlink()
    require_usable_cohort(cohort, ("training", "validation"))
    with pytest.raises(InputError, match="sub-02: T1w is missing"):
        require_usable_cohort(cohort)


def test_lists_of_all_sections_are_compared(bids: Path) -> None:
    cohort = read_cohort(bids)
    leaky = replace(cohort, test=cohort.training)
    with pytest.raises(DatalistError, match="sub-01 is in 'training' and in 'test'"):
        require_usable_cohort(leaky, ("training",))


def test_errors_carry_message_and_cure_in_one_text() -> None:
    problem = Problem("fatal", "sub-1", None, "What is wrong.", "What to do.", GridError)
    assert isinstance(problem.exception(), GridError)
    assert str(problem.exception()) == "What is wrong. What to do."
    assert str(MedsslError("All in one.")) == "All in one."
