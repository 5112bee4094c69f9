from pathlib import Path

import pytest

from medssl.errors import DatalistError
from medssl.io.subjects import Cohort, Subject, is_nifti, name_parts, only_one, plain_label, stem
from medssl.labels import BRAIN_TISSUES


def test_key_starts_file_names() -> None:
    assert Subject("01", ()).key == "sub-01"
    assert Subject("01", (), session="6mo").key == "sub-01_ses-6mo"


def test_all_subjects_come_section_by_section() -> None:
    one, two, three = (Subject(name, ()) for name in "123")
    cohort = Cohort(Path(), ("T1w",), BRAIN_TISSUES, training=(two,), test=(three,), unlabeled=(one,))
    assert [subject.subject for subject in cohort.all()] == ["2", "3", "1"]
    assert [name for name, _ in cohort.placed()] == ["training", "test", "unlabeled"]


def test_unknown_section_is_refused() -> None:
    with pytest.raises(DatalistError, match=r"'trainig'.*training, validation, test, unlabeled"):
        Cohort(Path(), ("T1w",), BRAIN_TISSUES).section("trainig")


@pytest.mark.parametrize("name", ["a_T1w.nii.gz", "a_T1w.nii", "a_T1w.hdr", "x/a_T1w.tsv"])
def test_stem_drops_the_whole_extension(name: str) -> None:
    assert stem(name) == "a_T1w"


def test_name_parts_are_entities_and_suffix() -> None:
    found = name_parts("sub-01_ses-6mo_acq-a_T1w.nii.gz")
    assert found == ({"sub": "01", "ses": "6mo", "acq": "a"}, "T1w")


@pytest.mark.parametrize(
    ("text", "label"), [("sub-01", "01"), ("baby_07", "baby07"), ("ses-6mo", "6mo"), ("01", "01")]
)
def test_labels_are_letters_and_digits(text: str, label: str) -> None:
    assert plain_label(text) == label


def test_hidden_files_are_no_images() -> None:
    assert is_nifti(Path("a/sub-01_T1w.nii"))
    assert not is_nifti(Path("a/.partial-sub-01_T1w.nii.gz"))


def test_two_files_for_one_purpose_are_refused() -> None:
    with pytest.raises(
        DatalistError, match=r"sub-01 has 2 files .*label image: a\.nii, b\.nii; expected one.*datalist"
    ):
        only_one([Path("b.nii"), Path("a.nii")], "sub-01", "label image")
    assert only_one([], "sub-01", "label image") is None
