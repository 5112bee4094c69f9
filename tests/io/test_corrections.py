import nibabel as nib
import numpy as np
import pytest
from phantoms import ellipsoid_labels, save

from medssl.errors import GridError, LabelError
from medssl.io.cohort import read_cohort
from medssl.io.corrections import correction_file, corrections_folder, remapped, save_correction
from medssl.labels import BRAIN_TISSUES

VALUES = np.array([0, 1, 2, 3], np.uint8)


def test_the_folder_lies_beside(tmp_path):
    assert corrections_folder(tmp_path / "a") == tmp_path / "a-labels"
    assert corrections_folder(tmp_path / "a" / "datalist.json") == tmp_path / "a-labels"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("GM", "wm", "csf"), [0, 1, 2, 3]),
        (("csf", "gm", "wm"), [0, 3, 1, 2]),
        (("White Matter", "cerebrospinal-fluid", "gray_matter"), [0, 2, 3, 1]),
        (("gm", "gm", "unknown"), [0, 1, 1, 255]),
        (("gm", "background", "wm"), [0, 1, 0, 2]),
    ],
)
def test_numbers_become_values_by_their_names(names, expected):
    segments = [{"name": name, "idx": number} for number, name in enumerate(names, 1)]
    assert remapped(VALUES, segments, BRAIN_TISSUES, "x").tolist() == expected


def test_without_names_the_numbers_are_the_tables():
    assert remapped(VALUES, [], BRAIN_TISSUES, "x").tolist() == [0, 1, 2, 3]
    with pytest.raises(LabelError, match="7"):
        remapped(np.array([0, 7], np.uint8), [], BRAIN_TISSUES, "x")


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ([{"name": "liver", "idx": 1}], "liver"),
        ([{"name": "gm", "idx": 1}], "2, 3"),
        ([{"name": "gm", "idx": 300}], "300"),
        ([{"name": "gm", "idx": "x"}], "name and idx"),
        ([{"idx": 1}], "name and idx"),
        (["gm"], "name and idx"),
        ([{"name": "background", "idx": number} for number in (1, 2, 3)], "no voxel"),
    ],
)
def test_what_cannot_be_understood_is_refused(segments, words):
    with pytest.raises(LabelError, match=words):
        remapped(VALUES, segments, BRAIN_TISSUES, "x")


def test_a_label_is_kept_on_the_grid_of_its_scan(cohort, tmp_path):
    subject = read_cohort(cohort).unlabeled[0]
    path = correction_file(corrections_folder(cohort), subject.key, BRAIN_TISSUES)
    scan = nib.load(subject.images[0])
    rounded = scan.affine + 1e-5  # as after the way through a viewer
    save_correction(path, save(tmp_path / "x.nii.gz", ellipsoid_labels(), rounded), subject, BRAIN_TISSUES)
    assert np.array_equal(nib.load(path).affine, scan.affine)
    assert read_cohort(cohort).training[-1].label == path
    with pytest.raises(GridError, match="reference volume"):
        save_correction(
            path, save(tmp_path / "y.nii.gz", ellipsoid_labels(), 2 * rounded), subject, BRAIN_TISSUES
        )


def test_a_test_scan_stays_one_whatever_is_drawn_on_it(cohort):
    from medssl.io.files import write_json

    anat = "sub-04/anat/sub-04"
    write_json(
        cohort / "datalist.json",
        {"test": [{"subject": "04", "image": [f"{anat}_T1w.nii.gz", f"{anat}_T2w.nii.gz"]}]},
    )
    path = correction_file(corrections_folder(cohort), "sub-04", BRAIN_TISSUES)
    save(path, ellipsoid_labels(), np.diag([2.0, 2, 2, 1]))
    found = read_cohort(cohort)
    assert found.training == ()
    assert found.test[0].label == path


def test_another_folder_takes_the_place_of_the_one_beside(cohort, tmp_path):
    """The one beside the scans does not count then."""
    scan = read_cohort(cohort).unlabeled[0]
    drawn = save(tmp_path / "drawn.nii.gz", ellipsoid_labels(), np.diag([2.0, 2, 2, 1]))
    beside = corrections_folder(cohort)
    save_correction(correction_file(beside, scan.key, BRAIN_TISSUES), drawn, scan, BRAIN_TISSUES, [])
    assert scan.key in [one.key for one in read_cohort(cohort).training]
    assert scan.key in [one.key for one in read_cohort(cohort, corrections=tmp_path / "other").unlabeled]
    assert scan.key in [one.key for one in read_cohort(cohort, corrections=beside).training]
