from collections.abc import Callable
from pathlib import Path

import pytest

from medssl.errors import DatalistError, InputError, LabelError
from medssl.io.cohort import read_cohort
from medssl.io.datalist import read_datalist, write_datalist
from medssl.io.subjects import Subject
from medssl.labels import BRAIN_TISSUES

WriteList = Callable[..., Path]
Entry = Callable[..., dict[str, object]]
LABEL = "derivatives/manual/sub-01/anat/sub-01_seg-braintissues_dseg.nii.gz"


def test_sections_paths_and_sessions_are_read(bids: Path, write_list: WriteList, entry: Entry) -> None:
    path = write_list(
        training=[entry("01", label=LABEL, session="ses-6mo")], unlabeled=[entry("02", mask="none")]
    )
    found = read_datalist(path)
    images = (bids / "sub-01/anat/sub-01_T1w.nii.gz", bids / "sub-01/anat/sub-01_T2w.nii.gz")
    assert found.subjects["training"] == (Subject("01", images, bids / LABEL, session="6mo"),)
    assert found.subjects["unlabeled"][0].mask == "none"
    assert found.subjects["test"] == ()
    assert (found.contrasts, found.table) == (("T1w", "T2w"), None)


def test_contrasts_are_inferred_from_the_names(write_list: WriteList) -> None:
    path = write_list(unlabeled=[{"subject": "01", "image": "a_T1w.nii.gz"}])
    assert read_datalist(path).contrasts == ("T1w",)


def test_entry_that_lacks_a_contrast_gets_the_name_it_should_have(
    bids: Path, write_list: WriteList, entry: Entry
) -> None:
    lonely = {"subject": "03", "image": ["sub-03/anat/sub-03_T1w.nii.gz"]}
    found = read_datalist(write_list(unlabeled=[lonely, entry("01"), entry("02")]))
    assert found.contrasts == ("T1w", "T2w")
    assert found.subjects["unlabeled"][0].images[1] == bids / "sub-03/anat/sub-03_T2w.nii.gz"


def test_one_of_the_listed_contrasts_can_be_picked(write_list: WriteList) -> None:
    path = write_list(
        contrasts=["T1w", "T2w"], unlabeled=[{"subject": "01", "image": ["mprage.nii", "space.nii"]}]
    )
    assert [image.name for image in read_datalist(path, ("T2w",)).subjects["unlabeled"][0].images] == [
        "space.nii"
    ]


def test_contrast_that_cannot_be_told_is_refused(write_list: WriteList) -> None:
    path = write_list(unlabeled=[{"subject": "01", "image": ["mprage.nii"]}])
    with pytest.raises(
        DatalistError, match=r"unlabeled\[0\]: 'image' has 1 files for .*T1w.*for T1w, T2w.*'contrasts'"
    ):
        read_datalist(path, ("T1w", "T2w"))


def test_mask_none_for_all_spares_those_with_a_mask(write_list: WriteList, entry: Entry, bids: Path) -> None:
    found = read_datalist(write_list(mask="none", unlabeled=[entry("01", mask="m.nii"), entry("02")]))
    assert [subject.mask for subject in found.subjects["unlabeled"]] == [bids / "m.nii", "none"]


def test_label_rows_make_a_table(write_list: WriteList, entry: Entry) -> None:
    rows = [{"index": 1, "name": "anterior", "abbreviation": "ANT"}, {"index": 2, "name": "posterior"}]
    table = read_datalist(write_list(label_table="hippocampus", labels=rows, unlabeled=[entry("01")])).table
    assert table is not None
    assert (table.name, table.describe()) == ("hippocampus", "0 BG, 1 ANT, 2 posterior")


def test_decathlon_label_names_make_a_table(write_list: WriteList, entry: Entry) -> None:
    table = read_datalist(
        write_list(labels={"0": "background", "1": "Anterior"}, unlabeled=[entry("01")])
    ).table
    assert table is not None
    assert table.values == (0, 1)


def test_built_in_table_is_named(write_list: WriteList, entry: Entry) -> None:
    assert (
        read_datalist(write_list(label_table="braintissues", unlabeled=[entry("01")])).table == BRAIN_TISSUES
    )


def test_unknown_table_is_refused(write_list: WriteList, entry: Entry) -> None:
    with pytest.raises(LabelError, match="'tissues'"):
        read_datalist(write_list(label_table="tissues", unlabeled=[entry("01")]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"trainning": []}, r"datalist\.json: the key 'trainning' is unknown; did you mean 'training'"),
        (
            {"test": [{"subject": "1", "image": ["a_T1w.nii"], "lable": "b"}]},
            r"test\[0\]: the key 'lable'.*'label'",
        ),
        (
            {"training": [{"subject": "1", "image": ["a_T1w.nii"]}]},
            r"training\[0\]: 'label' is missing.*'unlabeled'",
        ),
        ({"test": [{"image": ["a_T1w.nii"]}]}, r"test\[0\]: 'subject' is missing"),
        ({"test": [{"subject": "1"}]}, r"test\[0\]: 'image' is missing"),
        (
            {"unlabeled": [{"subject": "1", "image": ["a"], "label": "b"}]},
            r"unlabeled\[0\]: .* has a label \(b\)",
        ),
        ({"training": {"subject": "1"}}, r"'training' is no list of objects"),
        ({"contrasts": []}, r"'contrasts' is \[\]; expected a list"),
        ({"contrasts": ["T1w", "T1w"]}, r"'contrasts' is .* different BIDS suffixes"),
        ({"contrasts": ["$print(1)", "T1w"]}, r"'contrasts' is .* different BIDS suffixes"),
        ({"mask": "brain.nii"}, r"'mask' for all subjects is 'brain\.nii'; expected \"none\""),
        (
            {"test": [{"subject": "1", "image": ["a_T1w.nii"], "encoding": "x"}]},
            r"'encoding' is 'x'",
        ),
    ],
)
def test_faulty_datalist_is_refused_with_its_place(
    write_list: WriteList, content: dict[str, object], message: str
) -> None:
    with pytest.raises(DatalistError, match=message):
        read_datalist(write_list(**content))


def test_list_instead_of_an_object_is_refused(bids: Path) -> None:
    (bids / "datalist.json").write_text("[]")
    with pytest.raises(DatalistError, match=r"datalist\.json holds a list; expected an object with training"):
        read_datalist(bids / "datalist.json")


def test_missing_datalist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read .*nowhere\.json"):
        read_datalist(tmp_path / "nowhere.json")


def test_keys_of_other_programs_may_stand_there(write_list: WriteList, entry: Entry) -> None:
    path = write_list(description="x", modality={"0": "MRI"}, unlabeled=[entry("01") | {"age_months": 6}])
    assert len(read_datalist(path).subjects["unlabeled"]) == 1


@pytest.mark.parametrize("table", ["braintissues", "parts"])
def test_written_datalist_reads_back_as_the_same_cohort(
    tmp_path: Path, write_list: WriteList, entry: Entry, table: str
) -> None:
    rows = {} if table == "braintissues" else {"labels": [{"index": 4, "name": "a part"}]}
    written = write_list(
        **rows,
        label_table=table,
        training=[entry("01", label=LABEL, session="6mo", encoding="iseg")],
        unlabeled=[entry("02", mask="none"), entry("03", mask="masks/03.nii")],
    )
    cohort = read_cohort(written)
    (tmp_path / "run").mkdir()
    write_datalist(tmp_path / "run/datalist.json", cohort)
    again = read_cohort(tmp_path / "run")
    assert (again.contrasts, again.table) == (cohort.contrasts, cohort.table)
    for one, other in zip(cohort.all(), again.all(), strict=True):
        assert (one.key, one.encoding) == (other.key, other.encoding)
        assert [path.resolve() for path in one.images] == [path.resolve() for path in other.images]
    assert again.training[0].label.resolve() == cohort.training[0].label.resolve()
    assert (again.unlabeled[0].mask, again.unlabeled[1].mask.resolve()) == (
        "none",
        cohort.unlabeled[1].mask.resolve(),
    )
    assert str(tmp_path) not in (tmp_path / "run/datalist.json").read_text()
