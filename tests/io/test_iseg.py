from pathlib import Path

import numpy as np

from medssl.io import iseg as layout
from medssl.io.inspection import inspect_subject
from medssl.io.nifti import read_volume
from medssl.labels import BRAIN_TISSUES, ISEG_RAW, LabelTable

BOTH = ("T1w", "T2w")


def test_subjects_of_both_folders_are_found_in_order_of_their_numbers(iseg: Path) -> None:
    first, last = layout.find_subjects(iseg, BOTH)
    assert (first.key, last.key) == ("sub-1", "sub-23")
    assert [path.name for path in first.images] == ["subject-1-T1.hdr", "subject-1-T2.hdr"]
    assert first.label == iseg / "iSeg-2017-Training/subject-1-label.hdr"
    assert (first.encoding, first.mask, last.label) == ("iseg", None, None)


def test_one_folder_of_the_challenge_is_enough(iseg: Path) -> None:
    (subject,) = layout.find_subjects(iseg / "iSeg-2017-Testing", BOTH)
    assert subject.key == "sub-23"


def test_raw_values_are_mapped_by_abbreviation() -> None:
    """Invariant 9: the values are those of the challenge."""
    names = {label.value: label.abbreviation for label in BRAIN_TISSUES}
    assert {raw: names[value] for raw, value in layout.ISEG_VALUES.items()} == ISEG_RAW


def test_table_without_a_tissue_leaves_its_raw_value_unknown() -> None:
    table = LabelTable.from_rows([{"index": 5, "name": "gray matter", "abbreviation": "GM"}])
    assert layout.iseg_values(table) == {0: 0, 150: 5}


def test_trailing_axis_is_dropped_and_no_voxel_is_cropped(iseg: Path, scan: np.ndarray) -> None:
    """Invariant 9: (x, y, z, 1) in, the wider subject whole."""
    volume = read_volume(iseg / "iSeg-2017-Testing/subject-23-T1.hdr", "sub-23")
    assert volume.grid.shape == (scan.shape[0] + 4, *scan.shape[1:])
    np.testing.assert_array_equal(volume.data[2:-2], scan)
    np.testing.assert_array_equal(np.sign(np.diag(volume.grid.affine)), [-1, 1, 1, 1])


def test_subjects_pass_inspection_as_they_are(iseg: Path) -> None:
    reports = [
        inspect_subject(subject, BOTH, BRAIN_TISSUES, "training")
        for subject in layout.find_subjects(iseg, BOTH)
    ]
    assert [report.problems for report in reports] == [(), ()]
    assert (reports[0].label_values, reports[0].mask_origin) == ((0, 1, 2, 3), "T1w != 0")
