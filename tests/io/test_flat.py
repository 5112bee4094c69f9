from collections.abc import Callable
from pathlib import Path

import pytest

from medssl.errors import DatalistError
from medssl.io import flat

BOTH = ("T1w", "T2w")
Fill = Callable[..., None]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Put empty files into a folder; only their names matter."""

    def touch(*names: str) -> None:
        for name in names:
            (tmp_path / name).touch()

    return touch


def test_subjects_are_found_with_label_and_mask(tmp_path: Path, fill: Fill) -> None:
    fill(
        "a_T1w.nii.gz",
        "a_T2w.nii.gz",
        "a_dseg.nii.gz",
        "a_mask.nii.gz",
        "b_T1w.nii",
        "b_T2w.nii.gz",
        "notes.txt",
    )
    first, second = flat.find_subjects(tmp_path, BOTH)
    assert first.images == (tmp_path / "a_T1w.nii.gz", tmp_path / "a_T2w.nii.gz")
    assert (first.label, first.mask) == (tmp_path / "a_dseg.nii.gz", tmp_path / "a_mask.nii.gz")
    assert second.images[0] == tmp_path / "b_T1w.nii"
    assert (second.key, second.label, second.mask) == ("sub-b", None, None)


def test_bids_names_in_one_folder_give_subject_and_session(tmp_path: Path, fill: Fill) -> None:
    fill("sub-01_ses-6mo_T1w.nii.gz", "sub-01_ses-6mo_T2w.nii.gz", "sub-01_ses-6mo_seg-x_dseg.nii.gz")
    fill("sub-01_ses-6mo_desc-brain_mask.nii.gz")
    (subject,) = flat.find_subjects(tmp_path, BOTH)
    assert subject.key == "sub-01_ses-6mo"
    assert subject.label == tmp_path / "sub-01_ses-6mo_seg-x_dseg.nii.gz"
    assert subject.mask == tmp_path / "sub-01_ses-6mo_desc-brain_mask.nii.gz"


def test_id_that_starts_with_another_keeps_its_own_files(tmp_path: Path, fill: Fill) -> None:
    fill("baby_T1w.nii", "baby_07_T1w.nii", "baby_07_dseg.nii", "baby_07_mask.nii")
    subjects = {subject.subject: subject for subject in flat.find_subjects(tmp_path, ("T1w",))}
    assert subjects["baby"].label is None
    assert subjects["baby"].mask is None
    assert subjects["baby07"].label == tmp_path / "baby_07_dseg.nii"


def test_missing_contrast_stands_under_the_name_it_should_have(tmp_path: Path, fill: Fill) -> None:
    fill("a_T1w.nii.gz")
    (subject,) = flat.find_subjects(tmp_path, BOTH)
    assert subject.images[1] == tmp_path / "a_T2w.nii.gz"


def test_two_label_images_need_a_choice(tmp_path: Path, fill: Fill) -> None:
    fill("a_T1w.nii", "a_dseg.nii", "a_desc-manual_dseg.nii")
    with pytest.raises(DatalistError, match=r"a has 2 files that could be its label image"):
        flat.find_subjects(tmp_path, ("T1w",))


def test_packed_and_unpacked_scan_need_a_choice(tmp_path: Path, fill: Fill) -> None:
    fill("a_T1w.nii", "a_T1w.nii.gz")
    with pytest.raises(DatalistError, match=r"a has 2 files that could be its T1w scan"):
        flat.find_subjects(tmp_path, ("T1w",))


def test_files_are_put_in_contrast_order_by_their_suffixes(tmp_path: Path, fill: Fill) -> None:
    fill("sub-01_T1w.nii", "sub-01_T2w.nii", "sub-01_desc-brain_mask.nii")
    subject = flat.subject_of_files([tmp_path / "sub-01_T2w.nii", tmp_path / "sub-01_T1w.nii"], BOTH)
    assert [path.name for path in subject.images] == ["sub-01_T1w.nii", "sub-01_T2w.nii"]
    assert (subject.key, subject.mask) == ("sub-01", tmp_path / "sub-01_desc-brain_mask.nii")


def test_files_without_suffixes_are_taken_in_order(tmp_path: Path, fill: Fill) -> None:
    fill("mprage.nii", "space.nii")
    subject = flat.subject_of_files([tmp_path / "mprage.nii", tmp_path / "space.nii"], BOTH)
    assert [path.name for path in subject.images] == ["mprage.nii", "space.nii"]
    assert subject.key == "sub-mprage"


def test_files_named_by_contrast_alone_take_the_name_of_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "baby_7"
    folder.mkdir()
    subject = flat.subject_of_files([folder / "T1w.nii.gz", folder / "T2w.nii.gz"], BOTH)
    assert subject.key == "sub-baby7"


def test_files_of_two_subjects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatalistError, match=r"different subjects \(01, 02\)"):
        flat.subject_of_files([tmp_path / "sub-01_T1w.nii", tmp_path / "sub-02_T2w.nii"], BOTH)


def test_wrong_number_of_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatalistError, match=r"1 files were given \(a\.nii\); expected 2: T1w, T2w"):
        flat.subject_of_files([tmp_path / "a.nii"], BOTH)


@pytest.mark.parametrize(
    ("names", "contrasts"),
    [
        (["a_T2w.nii", "a_T1w.nii"], ("T1w", "T2w")),
        (["a_FLAIR.nii", "a_T1w.nii"], ("T1w", "FLAIR")),
        (["a_T1w.nii", "b_T1w.nii"], None),
        (["mprage.nii"], None),
    ],
)
def test_contrasts_come_from_names_that_have_a_suffix(
    names: list[str], contrasts: tuple[str, ...] | None
) -> None:
    assert flat.contrasts_of_files([Path(name) for name in names]) == contrasts
