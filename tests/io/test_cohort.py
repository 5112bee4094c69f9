import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medssl.errors import DatalistError, InputError, LabelError
from medssl.io.cohort import entries, find_label_table, read_cohort
from medssl.labels import BRAIN_TISSUES, LabelTable

Save = Callable[..., Path]
NINE = "index\tname\tabbreviation\tcolor\n0\tbackground\tBG\t#000000\n" + "".join(
    f"{index}\tstructure {index}\tS{index}\tn/a\n" for index in range(1, 10)
)


def test_bids_folder_splits_by_label(bids: Path) -> None:
    cohort = read_cohort(bids)
    assert (cohort.layout, cohort.contrasts, cohort.table) == ("bids", ("T1w", "T2w"), BRAIN_TISSUES)
    assert [subject.key for subject in cohort.training] == ["sub-01"]
    assert [subject.key for subject in cohort.unlabeled] == ["sub-02"]


def test_flat_folder_is_understood(tmp_path: Path, save: Save, scan: np.ndarray) -> None:
    save(tmp_path / "a_T1w.nii.gz", scan)
    save(tmp_path / "a_T2w.nii.gz", scan)
    cohort = read_cohort(str(tmp_path))
    assert (cohort.layout, cohort.unlabeled[0].key) == ("flat", "sub-a")


def test_iseg_folder_is_understood(iseg: Path) -> None:
    cohort = read_cohort(iseg)
    assert (cohort.layout, cohort.table) == ("iseg", BRAIN_TISSUES)
    assert ([len(cohort.training), len(cohort.unlabeled)]) == [1, 1]


def test_folder_with_a_datalist_is_read_by_it(bids: Path, write_list: Callable, entry: Callable) -> None:
    path = write_list(test=[entry("02")])
    assert read_cohort(bids) == read_cohort(path)
    assert read_cohort(bids).layout == "datalist"
    assert [subject.key for subject in read_cohort(bids).all()] == ["sub-02"]


def test_two_files_make_one_unlabeled_subject(bids: Path) -> None:
    files = [bids / "sub-01/anat/sub-01_T1w.nii.gz", bids / "sub-01/anat/sub-01_T2w.nii.gz"]
    cohort = read_cohort(files)
    assert (cohort.layout, cohort.unlabeled[0].images, cohort.contrasts) == (
        "files",
        tuple(files),
        ("T1w", "T2w"),
    )


def test_one_file_makes_a_cohort_of_one_contrast(bids: Path) -> None:
    cohort = read_cohort(bids / "sub-01/anat/sub-01_T2w.nii.gz")
    assert (cohort.contrasts, len(cohort.unlabeled)) == (("T2w",), 1)


def test_t1w_alone_is_enough_when_asked_for(bids: Path) -> None:
    cohort = read_cohort(bids, contrasts=("T1w",))
    assert [len(subject.images) for subject in cohort.all()] == [1, 1]


def test_contrasts_may_come_as_one_text(bids: Path) -> None:
    assert read_cohort(bids, "T2w,T1w").contrasts == ("T2w", "T1w")


@pytest.mark.parametrize("contrasts", [(), ("T1w", "T1w"), ("T1w", "")])
def test_senseless_contrasts_are_refused(bids: Path, contrasts: tuple[str, ...]) -> None:
    with pytest.raises(DatalistError, match="one or more different BIDS suffixes"):
        read_cohort(bids, contrasts)


def test_mask_none_holds_for_all_without_a_mask(bids: Path, save: Save, scan: np.ndarray) -> None:
    mask = save(bids / "sub-01/anat/sub-01_desc-brain_mask.nii.gz", scan)
    assert [subject.mask for subject in read_cohort(bids, mask="none").all()] == [mask, "none"]


def test_other_mask_for_all_is_refused(bids: Path) -> None:
    with pytest.raises(InputError, match="expected 'none'"):
        read_cohort(bids, mask="brain.nii")


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file or folder .*nowhere.*Check the spelling"):
        read_cohort(tmp_path / "nowhere")


def test_no_file_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="No file or folder was given"):
        read_cohort([])


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is empty; expected scans"):
        read_cohort(tmp_path)


def test_folder_without_scans_names_what_it_holds_and_what_is_understood(tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm", "c.dcm", "d.dcm", "e.dcm", "f.dcm"):
        (tmp_path / name).touch()
    message = r"No subject with T1w or T2w .*a\.dcm, .*e\.dcm and 1 more.*\(BIDS\).*iSeg.*datalist\.json"
    with pytest.raises(InputError, match=message):
        read_cohort(tmp_path)


def test_nine_structures_come_from_the_table_at_the_derivatives_root(bids: Path) -> None:
    (bids / "derivatives/manual/desc-structures_dseg.tsv").write_text(NINE)
    table = read_cohort(bids).table
    assert (table.name, len(table)) == ("structures", 10)
    assert all(label.color.startswith("#") for label in table)


@pytest.mark.parametrize(
    "name", ["sub-01_seg-braintissues_dseg.tsv", "seg-braintissues_dseg.tsv", "dseg.tsv"]
)
def test_table_beside_the_labels_is_found_under_each_name(bids: Path, name: str) -> None:
    (bids / "derivatives/manual/sub-01/anat" / name).write_text(NINE)
    assert len(read_cohort(bids).table) == 10


def test_nearest_and_closest_table_wins(bids: Path) -> None:
    folder = bids / "derivatives/manual/sub-01/anat"
    (bids / "dseg.tsv").write_text(NINE)
    (folder / "dseg.tsv").write_text(NINE)
    (folder / "sub-01_seg-braintissues_dseg.tsv").write_text("index\tname\n1\tall\n")
    assert read_cohort(bids).table.values == (0, 1)


def test_tissue_table_on_disk_is_the_built_in_one(bids: Path) -> None:
    rows = ["index\tname\tabbreviation\tcolor"] + [
        "\t".join(map(str, row.values())) for row in BRAIN_TISSUES.rows()
    ]
    (bids / "dseg.tsv").write_text("\n".join(rows))
    assert read_cohort(bids).table == BRAIN_TISSUES


def test_two_different_tables_are_refused(bids: Path, save: Save, labels: np.ndarray) -> None:
    other = save(bids / "sub-02/anat/sub-02_dseg.nii.gz", labels)
    other.with_name("sub-02_dseg.tsv").write_text("index\tname\n1\tall\n")
    (bids / "derivatives/manual/dseg.tsv").write_text(NINE)
    with pytest.raises(LabelError, match=r"dseg\.tsv and .*sub-02_dseg\.tsv differ; expected one table"):
        read_cohort(bids)


def test_faulty_table_is_named_with_its_file(bids: Path) -> None:
    (bids / "dseg.tsv").write_text("index\tname\none\tGM\n")
    with pytest.raises(LabelError, match=r"dseg\.tsv: .*row 0.*whole number"):
        read_cohort(bids)


def test_given_table_goes_before_all_others(bids: Path) -> None:
    (bids / "dseg.tsv").write_text(NINE)
    table = LabelTable.from_rows([{"index": 1, "name": "brain"}], "mine")
    assert read_cohort(bids, table=table).table == table


def test_labels_without_table_have_none(bids: Path) -> None:
    assert find_label_table([bids / "sub-01/anat/x_dseg.nii"], bids) is None


def test_entries_are_monai_items_that_open_from_here(bids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bids.parent)
    (item,) = entries("cohort", "training")
    assert item == {
        "subject": "sub-01",
        "image": ["cohort/sub-01/anat/sub-01_T1w.nii.gz", "cohort/sub-01/anat/sub-01_T2w.nii.gz"],
        "label": "cohort/derivatives/manual/sub-01/anat/sub-01_seg-braintissues_dseg.nii.gz",
    }
    assert all(Path(path).is_file() for path in [*item["image"], item["label"]])


def test_entries_of_iseg_say_how_labels_are_encoded(iseg: Path) -> None:
    assert [item.get("encoding") for item in entries(iseg, "all")] == ["iseg", "iseg"]


def test_entries_of_an_unknown_section_are_refused(bids: Path) -> None:
    with pytest.raises(DatalistError, match="'train'"):
        entries(bids, "train")


def test_reading_imports_no_torch() -> None:
    code = "import sys, medssl.io.cohort, medssl.io.inspection; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
