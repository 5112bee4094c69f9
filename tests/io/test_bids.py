from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medssl.errors import DatalistError
from medssl.io import bids as layout

BOTH = ("T1w", "T2w")
Save = Callable[..., Path]


def test_scans_and_labels_of_a_subject_are_found(bids: Path) -> None:
    first, second = layout.find_subjects(bids, BOTH)
    assert first.images == (bids / "sub-01/anat/sub-01_T1w.nii.gz", bids / "sub-01/anat/sub-01_T2w.nii.gz")
    assert first.label == bids / "derivatives/manual/sub-01/anat/sub-01_seg-braintissues_dseg.nii.gz"
    assert (second.key, second.label, second.mask) == ("sub-02", None, None)


def test_contrasts_are_in_the_order_asked_for(bids: Path) -> None:
    subject = layout.find_subjects(bids, ("T2w", "T1w"))[0]
    assert [path.name for path in subject.images] == ["sub-01_T2w.nii.gz", "sub-01_T1w.nii.gz"]


def test_missing_contrast_stands_under_the_name_it_should_have(bids: Path) -> None:
    (bids / "sub-02/anat/sub-02_T2w.nii.gz").unlink()
    subject = layout.find_subjects(bids, BOTH)[1]
    assert subject.images[1] == bids / "sub-02/anat/sub-02_T2w.nii.gz"


def test_every_session_is_found_with_its_own_label(tmp_path: Path, save: Save, scan: np.ndarray) -> None:
    for session in ("3mo", "6mo"):
        save(tmp_path / f"sub-01/ses-{session}/anat/sub-01_ses-{session}_acq-hi_T1w.nii", scan)
    label = save(tmp_path / "derivatives/a/b/sub-01/ses-6mo/anat/sub-01_ses-6mo_dseg.nii.gz", scan)
    first, second = layout.find_subjects(tmp_path, ("T1w",))
    assert (first.key, first.label) == ("sub-01_ses-3mo", None)
    assert (second.key, second.label) == ("sub-01_ses-6mo", label)


def test_label_and_mask_beside_the_scan_count_too(bids: Path, save: Save, scan: np.ndarray) -> None:
    label = save(bids / "sub-02/anat/sub-02_dseg.nii.gz", scan)
    mask = save(bids / "sub-02/anat/sub-02_desc-brain_mask.nii.gz", scan)
    save(bids / "sub-02/anat/sub-02_desc-lesion_mask.nii.gz", scan)
    subject = layout.find_subjects(bids, BOTH)[1]
    assert (subject.label, subject.mask) == (label, mask)


def test_files_in_another_space_are_passed_over(bids: Path, save: Save, scan: np.ndarray) -> None:
    save(bids / "derivatives/x/sub-01/anat/sub-01_space-MNI152_dseg.nii.gz", scan)
    mask = save(bids / "derivatives/x/sub-01/anat/sub-01_space-T1w_desc-brain_mask.nii.gz", scan)
    subject = layout.find_subjects(bids, BOTH)[0]
    assert subject.label is not None
    assert "space" not in subject.label.name
    assert subject.mask == mask


def test_two_label_images_need_a_choice(bids: Path, save: Save, scan: np.ndarray) -> None:
    save(bids / "derivatives/other/sub-01/anat/sub-01_desc-auto_dseg.nii.gz", scan)
    with pytest.raises(DatalistError, match=r"sub-01 has 2 files that could be its label image.*desc-auto"):
        layout.find_subjects(bids, BOTH)


def test_two_runs_need_a_choice(bids: Path, save: Save, scan: np.ndarray) -> None:
    save(bids / "sub-02/anat/sub-02_run-2_T1w.nii.gz", scan)
    with pytest.raises(DatalistError, match=r"sub-02 has 2 files that could be its T1w scan"):
        layout.find_subjects(bids, BOTH)


def test_subject_with_none_of_the_contrasts_is_named_in_the_log(
    bids: Path, save: Save, scan: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    save(bids / "sub-03/anat/sub-03_FLAIR.nii.gz", scan)
    assert [subject.subject for subject in layout.find_subjects(bids, BOTH)] == ["01", "02"]
    assert "sub-03 has none of T1w, T2w" in caplog.text


def test_unfinished_files_are_not_found(bids: Path) -> None:
    (bids / "sub-01/anat/.partial-1234-sub-01_T1w.nii.gz").write_bytes(b"")
    (bids / "derivatives/manual/sub-01/anat/.partial-sub-01_dseg.nii.gz").write_bytes(b"")
    assert len(layout.find_subjects(bids, BOTH)) == 2


def test_labels_of_a_results_folder_are_found_by_subject(bids: Path) -> None:
    found = layout.find_labels(bids / "derivatives")
    assert list(found) == ["sub-01"]
    assert [path.name for path in found["sub-01"]] == ["sub-01_seg-braintissues_dseg.nii.gz"]
