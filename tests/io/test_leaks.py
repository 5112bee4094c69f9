import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from phantoms import ellipsoid_labels, orthogonal, phantom_image, save
from scipy.ndimage import affine_transform, gaussian_filter

from medssl.errors import DatalistError, InputError
from medssl.io import leaks
from medssl.io.leaks import NEAR_DUPLICATE, SECTION_PAIRS, Leak, find_leaks, require_no_leaks
from medssl.io.subjects import Cohort, Subject
from medssl.labels import BRAIN_TISSUES

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
Image = tuple[NDArray, NDArray]


def _brain(seed: int) -> NDArray[np.int16]:
    """Nested ellipsoids, each subject with folds of its own."""
    labels = ellipsoid_labels()
    folds = gaussian_filter(np.random.default_rng(seed).normal(size=labels.shape), 1.5)
    image = phantom_image(labels, (0, 400, 600, 300), seed) + 35 * folds / folds.std()
    return np.where(labels == 0, 0, np.clip(image, 1, 2000)).astype(np.int16)


def _flipped_in_storage(data: NDArray, affine: NDArray) -> Image:
    """Store the axes in another order and direction, and say so in the header."""
    turned = affine[:, [2, 0, 1, 3]].copy()
    turned[:3, 3] += turned[:3, 0] * (data.shape[2] - 1)
    turned[:3, 0] *= -1
    return data.transpose(2, 0, 1)[::-1], turned


def _header_lost(data: NDArray, affine: NDArray) -> Image:
    return data.transpose(1, 0, 2)[:, ::-1], AFFINE


def _padded(data: NDArray, affine: NDArray) -> Image:
    return np.pad(data, ((3, 0), (1, 5), (0, 2))), affine


def _regridded(data: NDArray, affine: NDArray) -> Image:
    coarse = np.diag([1.3, 1.3, 1.3, 1.0])
    return affine_transform(
        data.astype(np.float32), coarse, output_shape=(25, 25, 25), order=1
    ), affine @ coarse


def _regridded_by_splines(data: NDArray, affine: NDArray) -> Image:
    """Resample so that the background is full of values near 0."""
    coarse = np.diag([1.3, 1.3, 1.3, 1.0])
    return affine_transform(
        data.astype(np.float32), coarse, output_shape=(25, 25, 25), order=3
    ), affine @ coarse


def _turned(data: NDArray, affine: NDArray) -> Image:
    """Resample to an oblique grid with the same center."""
    tilt = np.array([[0.95, -0.3, 0.1, 0], [0.3, 0.95, 0.1, 0], [-0.1, -0.1, 1.0, 0], [0, 0, 0, 1]])
    target = orthogonal(tilt, (2.0, 2.0, 2.0))
    target[:3, 3] = affine[:3, :3] @ np.full(3, 15.5) - target[:3, :3] @ np.full(3, 17.5)
    to_voxel = np.linalg.inv(affine) @ target
    return affine_transform(data.astype(np.float32), to_voxel, output_shape=(36, 36, 36), order=1), target


def _noised(data: NDArray, affine: NDArray) -> Image:
    noise = np.random.default_rng(7).normal(0, 0.05 * data[data > 0].std(), data.shape)
    return np.where(data > 0, data + noise, 0).astype(np.float32), affine


def _rescaled(data: NDArray, affine: NDArray) -> Image:
    return np.where(data > 0, 2.7 * data + 100, 0).astype(np.float32), affine


def _cropped(data: NDArray, affine: NDArray) -> Image:
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ (5, 0, 4)
    return data[5:, :-4, 4:], moved


def _bent(data: NDArray, affine: NDArray) -> Image:
    return np.where(data > 0, 100 * np.sqrt(np.abs(data)), 0).astype(np.float32), affine


def _no_mask(data: NDArray) -> NDArray[np.float32]:
    """Fill the air around the brain, as in scans whose background is a class of its own."""
    air = 300 + 100 * gaussian_filter(np.random.default_rng(int(data.sum())).normal(size=data.shape), 1.5)
    return np.where(data > 0, data, air).astype(np.float32)


@pytest.fixture
def scan(tmp_path: Path) -> Callable[..., Subject]:
    """Write an image and return it as a subject."""

    def make(name: str, data: NDArray, affine: NDArray = AFFINE, session: str | None = None) -> Subject:
        stem = f"sub-{name}" + (f"_ses-{session}" if session else "")
        path = save(tmp_path / "cohort" / f"sub-{name}" / f"{stem}_T1w.nii.gz", data, affine)
        return Subject(name, (path,), session=session)

    return make


@pytest.fixture
def cohort(tmp_path: Path) -> Callable[..., Cohort]:
    def make(**sections: Subject | tuple[Subject, ...]) -> Cohort:
        lists = {name: (one,) if isinstance(one, Subject) else one for name, one in sections.items()}
        return Cohort(tmp_path / "cohort", ("T1w",), BRAIN_TISSUES, **lists)

    return make


def _only(cohort: Cohort) -> Leak:
    (leak,) = find_leaks(cohort)
    return leak


# ----------------------------------------------------------------------------------------------- voxels


@pytest.mark.parametrize("section", ["training", "unlabeled"])
@pytest.mark.parametrize("held_out", ["validation", "test"])
@pytest.mark.parametrize("change", [_flipped_in_storage, _header_lost, _padded])
def test_same_voxels_are_found_under_another_name_and_grid(
    scan: Callable, cohort: Callable, section: str, held_out: str, change: Callable
) -> None:
    held = scan("01", _brain(1))
    copy = scan("77", *change(_brain(1), AFFINE))
    leak = _only(cohort(**{section: (scan("02", _brain(2)), copy), held_out: held}))
    assert (leak.one, leak.other, leak.sections, leak.kind) == (
        copy,
        held,
        (section, held_out),
        "same voxels",
    )


def test_same_voxels_are_found_in_another_data_type_and_format(
    tmp_path: Path, scan: Callable, cohort: Callable
) -> None:
    held, path = scan("01", _brain(1)), tmp_path / "cohort" / "a-T1.hdr"
    nib.AnalyzeImage(_brain(1).astype(np.float32)[..., None], AFFINE).to_filename(path)
    assert _only(cohort(test=held, unlabeled=Subject("9", (path,)))).kind == "same voxels"


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize(
    "change", [_regridded, _regridded_by_splines, _turned, _noised, _rescaled, _cropped, _bent]
)
def test_changed_copy_is_a_near_duplicate(
    scan: Callable, cohort: Callable, change: Callable, filled: bool
) -> None:
    data = _no_mask(_brain(1)) if filled else _brain(1)
    held, copy = scan("01", data), scan("77", *change(data, AFFINE))
    leak = _only(cohort(test=held, unlabeled=copy))
    assert (leak.kind, leak.one, leak.other) == ("near-duplicate", copy, held)
    assert f"below {NEAR_DUPLICATE} is usual" in leak.detail


def test_near_duplicate_is_found_with_its_axes_lost(scan: Callable, cohort: Callable) -> None:
    copy = scan("77", *_noised(*_header_lost(_brain(1), AFFINE)))
    assert _only(cohort(test=scan("01", _brain(1)), unlabeled=copy)).kind == "near-duplicate"


@pytest.mark.parametrize("filled", [False, True])
def test_different_subjects_are_not_flagged(scan: Callable, cohort: Callable, filled: bool) -> None:
    scans = [scan(f"{n:02}", _no_mask(_brain(n)) if filled else _brain(n)) for n in range(1, 9)]
    lists = {"training": scans[:2], "validation": scans[2:4], "test": scans[4:6], "unlabeled": scans[6:]}
    assert require_no_leaks(cohort(**{name: tuple(some) for name, some in lists.items()})) == []


def test_each_copy_is_found_among_many(scan: Callable, cohort: Callable) -> None:
    held = tuple(scan(f"{n:02}", _brain(n)) for n in (1, 2, 3))
    copies = tuple(scan(f"7{n}", *_regridded_by_splines(_brain(n), AFFINE)) for n in (3, 1, 2))
    found = find_leaks(cohort(test=held, unlabeled=(scan("04", _brain(4)), *copies)))
    pairs = [(leak.one.key, leak.other.key) for leak in found]
    assert pairs == [("sub-73", "sub-03"), ("sub-71", "sub-01"), ("sub-72", "sub-02")]


def test_rim_mixed_with_the_background_does_not_hide_a_copy(scan: Callable, cohort: Callable) -> None:
    held, copy = scan("03", _brain(3)), scan("77", *_regridded_by_splines(_brain(3), AFFINE))
    assert _only(cohort(test=held, unlabeled=copy)).kind == "near-duplicate"


def test_shading_that_all_scans_share_is_no_likeness(scan: Callable, cohort: Callable) -> None:
    shading = np.linspace(0.1, 2, 32)[:, None, None]
    held, other = (scan(f"{n:02}", (_no_mask(_brain(n)) * shading).astype(np.float32)) for n in (1, 2))
    assert find_leaks(cohort(test=held, unlabeled=other)) == []


def test_foreground_is_all_that_is_not_zero_where_nearly_everything_is() -> None:
    filled = np.full((8, 8, 8), 1000.0, np.float32)
    filled[0], filled[1] = 0, 1
    assert leaks._inside(filled).sum() == 7 * 64
    stripped = _brain(1).astype(np.float32)
    assert np.array_equal(leaks._inside(stripped + 1e-3), stripped > 0)


def test_large_scan_is_reduced_and_still_found(scan: Callable, cohort: Callable) -> None:
    fine = np.diag([0.4, 0.4, 0.4, 1.0])
    zoomed = affine_transform(_brain(1).astype(np.float32), fine, output_shape=(78, 78, 78), order=1)
    assert _only(cohort(test=scan("01", _brain(1)), unlabeled=scan("77", zoomed, AFFINE @ fine))).kind == (
        "near-duplicate"
    )


def test_unreadable_scan_is_named(scan: Callable, cohort: Callable) -> None:
    broken = scan("02", _brain(2))
    broken.images[0].write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"sub-02: sub-02_T1w\.nii\.gz is no readable"):
        find_leaks(cohort(test=scan("01", _brain(1)), unlabeled=broken))


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("link", "detail"),
    [
        (lambda to, at: at.symlink_to(to), "one file on the disk"),
        (lambda to, at: at.hardlink_to(to), "one file on the disk"),
        (shutil.copy, "equal byte for byte"),
    ],
)
def test_same_file_is_found(
    tmp_path: Path, scan: Callable, cohort: Callable, link: Callable, detail: str
) -> None:
    held, other = scan("01", _brain(1)), tmp_path / "cohort" / "other_T1w.nii.gz"
    link(held.images[0], other)
    leak = _only(cohort(test=held, unlabeled=Subject("77", (other,))))
    assert leak.kind == "same file"
    assert leak.detail.endswith(detail)


def test_same_second_contrast_is_found(scan: Callable, cohort: Callable) -> None:
    one, other, shared = (scan(name, _brain(n)) for n, name in enumerate(("01", "02", "03")))
    pairs = [Subject(two.subject, (two.images[0], shared.images[0])) for two in (one, other)]
    leak = _only(cohort(test=pairs[0], unlabeled=pairs[1]))
    assert (leak.kind, "sub-03/sub-03_T1w.nii.gz" in leak.detail) == ("same file", True)


def test_equal_headers_of_analyze_pairs_are_not_the_same_file(tmp_path: Path, cohort: Callable) -> None:
    subjects = []
    for number in (1, 2):
        path = tmp_path / "cohort" / f"subject-{number}-T1.hdr"
        path.parent.mkdir(exist_ok=True)
        nib.AnalyzeImage(_brain(number)[..., None], AFFINE).to_filename(path)
        subjects.append(Subject(str(number), (path,)))
    assert subjects[0].images[0].read_bytes() == subjects[1].images[0].read_bytes()
    assert find_leaks(cohort(test=subjects[0], unlabeled=subjects[1])) == []
    pair = Subject("9", (subjects[0].images[0].with_suffix(".img"),))
    assert _only(cohort(test=subjects[0], unlabeled=pair)).kind == "same file"


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("one", "other"),
    [("01", "01"), ("sub-01", "01"), ("sub01", "01"), ("1", "001"), ("subject-1", "01"), ("Ab_3", "aB3")],
)
def test_spelling_of_an_id_does_not_hide_a_subject(
    tmp_path: Path, scan: Callable, cohort: Callable, one: str, other: str
) -> None:
    held, copy = scan("x", _brain(1)), scan("y", _brain(2))
    leak = _only(cohort(test=Subject(one, held.images), unlabeled=Subject(other, copy.images)))
    assert leak.kind == "same subject"
    assert ("differ in spelling" in leak.detail) == (one != other)


@pytest.mark.parametrize(
    ("one", "other"), [("10", "1"), ("100", "10"), ("A1", "B1"), ("1", "11"), ("s2", "2s"), ("subA", "A")]
)
def test_different_ids_are_different_subjects(scan: Callable, cohort: Callable, one: str, other: str) -> None:
    held, second = scan("x", _brain(1)), scan("y", _brain(2))
    assert find_leaks(cohort(test=Subject(one, held.images), unlabeled=Subject(other, second.images))) == []


@pytest.mark.parametrize("sections", [pair for pair in SECTION_PAIRS if pair != ("training", "unlabeled")])
def test_sessions_of_one_subject_never_straddle_a_split(
    scan: Callable, cohort: Callable, sections: tuple[str, str]
) -> None:
    first, second = scan("01", _brain(1), session="6mo"), scan("01", _brain(2), session="9mo")
    leak = _only(cohort(**dict(zip(sections, (first, second), strict=True))))
    assert (leak.kind, leak.detail) == ("same subject", "sessions '6mo' and '9mo'")


def test_training_and_unlabeled_may_share_a_child_but_no_scan(scan: Callable, cohort: Callable) -> None:
    first, second = scan("01", _brain(1), session="6mo"), scan("01", _brain(2), session="9mo")
    alike = scan("01", *_noised(_brain(1), AFFINE), session="9mob")
    assert find_leaks(cohort(training=first, unlabeled=(second, alike))) == []
    assert _only(cohort(training=first, unlabeled=first)).kind == "same subject"


def test_validation_and_test_are_compared_by_name_and_file_only(scan: Callable, cohort: Callable) -> None:
    one, copy = scan("01", _brain(1)), scan("02", *_padded(_brain(1), AFFINE))
    seen: list[str] = []
    found = find_leaks(
        cohort(validation=one, test=copy), progress=lambda name, done, total: seen.append(name)
    )
    assert (found, seen) == ([], [""])
    assert _only(cohort(validation=one, test=Subject("02", one.images))).kind == "same file"


# ---------------------------------------------------------------------------------------------- refusal


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_unlabeled_leak_is_refused_unless_transductive(
    scan: Callable, cohort: Callable, held_out: str
) -> None:
    """Invariant 10."""
    held, copy = scan("01", _brain(1)), scan("77", *_regridded(_brain(1), AFFINE))
    leaky = cohort(training=scan("02", _brain(2)), unlabeled=copy, **{held_out: held})
    with pytest.raises(DatalistError) as caught:
        require_no_leaks(leaky)
    assert f"sub-77 in 'unlabeled' (sub-77/sub-77_T1w.nii.gz) and sub-01 in '{held_out}'" in str(caught.value)
    assert "near-duplicate" in str(caught.value)
    assert "Remove these scans from 'unlabeled', or pass --transductive" in caught.value.cure
    assert [leak.kind for leak in require_no_leaks(leaky, transductive=True)] == ["near-duplicate"]


@pytest.mark.parametrize("transductive", [False, True])
@pytest.mark.parametrize(
    "sections", [("training", "validation"), ("training", "test"), ("validation", "test")]
)
def test_labeled_leak_is_always_refused(
    scan: Callable, cohort: Callable, sections: tuple[str, str], transductive: bool
) -> None:
    """Invariant 10."""
    scans = scan("01", _brain(1), session="a"), scan("01", _brain(2), session="b")
    leaky = cohort(**dict(zip(sections, scans, strict=True)))
    with pytest.raises(DatalistError, match="Keep all sessions and copies") as caught:
        require_no_leaks(leaky, transductive=transductive)
    assert "--transductive" not in str(caught.value)


def test_labeled_and_unlabeled_copy_is_a_warning(
    scan: Callable, cohort: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    one, copy = scan("01", _brain(1)), scan("77", *_noised(_brain(1), AFFINE))
    with caplog.at_level(logging.WARNING):
        (leak,) = require_no_leaks(cohort(training=one, unlabeled=copy, test=scan("03", _brain(3))))
    assert (leak.harmless, leak.kind) == (True, "near-duplicate")
    assert "sub-01 in 'training'" in caplog.text
    assert "sub-77 in 'unlabeled'" in caplog.text


def test_message_names_both_scans_and_no_absolute_folder(
    tmp_path: Path, scan: Callable, cohort: Callable
) -> None:
    outside = save(tmp_path / "elsewhere" / "copy.nii.gz", *_padded(_brain(1), AFFINE))
    leaky = cohort(test=scan("01", _brain(1)), unlabeled=Subject("77", (outside,)))
    with pytest.raises(DatalistError) as caught:
        require_no_leaks(leaky)
    text = str(caught.value)
    assert "sub-77 in 'unlabeled' (copy.nii.gz) and sub-01 in 'test' (sub-01/sub-01_T1w.nii.gz)" in text
    assert "same voxels" in text
    assert str(tmp_path) not in text
    assert "elsewhere" not in text


def test_message_names_five_leaks_and_counts_the_others(scan: Callable, cohort: Callable) -> None:
    held, copy = scan("01", _brain(1)), scan("02", _brain(2))
    many = tuple(Subject("01", copy.images, session=str(n)) for n in range(7))
    with pytest.raises(DatalistError, match=r"7 pairs of scans .* and 2 more") as caught:
        require_no_leaks(cohort(test=held, unlabeled=many))
    assert str(caught.value).count("same subject") == 5


def test_progress_names_each_scan_once(scan: Callable, cohort: Callable) -> None:
    seen: list[tuple[str, int, int]] = []
    scans = {name: scan(f"{n}", _brain(n)) for n, name in enumerate(("training", "validation", "unlabeled"))}
    find_leaks(cohort(**scans), progress=lambda *told: seen.append(told))
    assert seen == [("sub-0", 0, 3), ("sub-1", 1, 3), ("sub-2", 2, 3), ("", 3, 3)]


def test_only_named_sections_are_compared(scan: Callable, cohort: Callable) -> None:
    one = scan("01", _brain(1))
    both = cohort(training=one, unlabeled=one, test=one)
    assert [leak.sections for leak in find_leaks(both)] == [
        ("training", "test"),
        ("unlabeled", "test"),
        ("training", "unlabeled"),
    ]
    assert len(find_leaks(both, sections_checked=(("unlabeled", "test"),))) == 1


def test_empty_cohort_has_no_leak(cohort: Callable) -> None:
    assert require_no_leaks(cohort()) == []
