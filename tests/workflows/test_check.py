import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.errors import DatalistError
from medssl.workflows.check import check


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A labeled pair and an unlabeled one, brains of 10 x 10 x 10 voxels."""
    brain = np.zeros((16, 16, 16), np.int16)
    brain[3:13, 3:13, 3:13] = np.random.default_rng(0).integers(100, 400, (10, 10, 10))
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[3:13, 3:13, 3:13] = 1 + np.arange(10)[:, None, None] % 3
    images = {f"{name}_{contrast}": brain for name in "ab" for contrast in ("T1w", "T2w")}
    for name, data in (images | {"a_dseg": labels}).items():
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}.nii.gz")
    return tmp_path


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*")}


def test_sound_folder_is_ok_and_untouched(folder: Path) -> None:
    before = _files(folder)
    result = check(folder)
    assert result.ok
    assert [(report.subject, report.section) for report in result.reports] == [
        ("sub-a", "training"),
        ("sub-b", "unlabeled"),
    ]
    assert result.problems == ()
    assert _files(folder) == before


def test_result_is_json_with_relative_paths(folder: Path) -> None:
    text = json.dumps(check(folder).as_dict(), allow_nan=False)
    assert str(folder) not in text
    found = json.loads(text)
    assert (found["ok"], found["layout"], found["contrasts"]) == (True, "flat", ["T1w", "T2w"])
    assert found["subjects"][0] == {
        "subject": "sub-a",
        "section": "training",
        "ok": True,
        "files": {"T1w": "a_T1w.nii.gz", "T2w": "a_T2w.nii.gz", "label": "a_dseg.nii.gz"},
        "shape": [16, 16, 16],
        "spacing_mm": [1.0, 1.0, 1.0],
        "orientation": "RAS",
        "label_values": [0, 1, 2, 3],
        "mask": "T1w != 0",
    }


def test_problems_of_all_subjects_are_listed(folder: Path) -> None:
    (folder / "a_T2w.nii.gz").unlink()
    (folder / "b_T1w.nii.gz").write_bytes(b"no image")
    result = check(folder)
    assert not result.ok
    assert [(problem.subject, problem.file) for problem in result.problems] == [
        ("sub-a", folder / "a_T2w.nii.gz"),
        ("sub-b", folder / "b_T1w.nii.gz"),
    ]
    listed = result.as_dict()["problems"]
    assert [problem["file"] for problem in listed] == ["a_T2w.nii.gz", "b_T1w.nii.gz"]
    assert all(problem["message"] and problem["cure"] for problem in listed)
    assert result.as_dict()["subjects"][1]["shape"] is None


def test_warnings_leave_the_result_ok(folder: Path) -> None:
    for name in ("b_T1w", "b_T2w"):
        data = nib.load(folder / f"{name}.nii.gz").get_fdata(dtype=np.float32)
        nib.save(nib.Nifti1Image(data, None), folder / f"{name}.nii.gz")
    result = check(folder)
    assert result.ok
    assert [problem.severity for problem in result.problems] == ["warning"]


def test_split_that_leaks_is_fatal(folder: Path) -> None:
    scans = {"subject": "a", "image": ["a_T1w.nii.gz", "a_T2w.nii.gz"], "label": "a_dseg.nii.gz"}
    (folder / "datalist.json").write_text(json.dumps({"training": [scans], "test": [scans]}))
    result = check(folder)
    assert not result.ok
    assert result.problems[0].error is DatalistError
    assert "sub-a is in 'training' and in 'test'" in result.problems[0].message


def test_empty_folder_is_one_fatal_problem(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert (result.ok, result.reports, result.cohort) == (False, (), None)
    assert "is empty" in result.problems[0].message
    assert result.as_dict()["subjects"] == []


def test_missing_file_among_several_is_one_fatal_problem(folder: Path) -> None:
    result = check([folder / "a_T1w.nii.gz", folder / "none_T2w.nii.gz"])
    assert [problem.severity for problem in result.problems] == ["fatal"]
    assert "none_T2w.nii.gz" in result.problems[0].message


def test_contrasts_and_mask_are_taken_from_the_caller(folder: Path) -> None:
    (folder / "b_T2w.nii.gz").unlink()
    result = check(folder, contrasts=("T1w",), mask="none")
    assert result.ok
    assert {report.mask_origin for report in result.reports} == {"none"}


def test_resampling_turns_another_grid_into_a_warning(folder: Path) -> None:
    data = nib.load(folder / "b_T2w.nii.gz").get_fdata(dtype=np.float32)
    affine = np.eye(4)
    affine[:3, 3] = -1
    nib.save(nib.Nifti1Image(np.pad(data, 1), affine), folder / "b_T2w.nii.gz")
    assert not check(folder).ok
    assert check(folder, resample=True).ok


def test_progress_is_told_about_every_subject(folder: Path, told: Callable[..., None]) -> None:
    check(folder, progress=told)
    assert told.calls == [("sub-a", 0, 2), ("sub-b", 1, 2), ("", 2, 2)]


@pytest.fixture
def told() -> Callable[..., None]:
    def remember(*arguments: object) -> None:
        remember.calls.append(arguments)

    remember.calls = []
    return remember


def test_nine_structures_on_t1w_alone_are_checked_against_their_own_table(folder: Path) -> None:
    for path in folder.glob("*_T2w.nii.gz"):
        path.unlink()
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[3:13, 3:13, 3:13] = np.arange(10)[:, None, None]
    nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "a_dseg.nii.gz")
    assert "values 4, 5, 6, 7, 8, 9" in check(folder, contrasts=["T1w"]).problems[0].message
    rows = "".join(f"{index}\tstructure {index}\n" for index in range(1, 10))
    (folder / "dseg.tsv").write_text("index\tname\n" + rows)
    result = check(folder, contrasts=["T1w"])
    assert (result.problems, result.reports[0].label_values) == ((), tuple(range(10)))
