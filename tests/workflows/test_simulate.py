"""The cohort on disk: BIDS, deterministic for any number of processes, all or nothing."""

import json
from itertools import chain
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medssl.errors import ConfigError, OutputError
from medssl.io.cohort import read_cohort
from medssl.workflows import simulate
from medssl.workflows.simulate import simulate_cohort, split


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "cohort"
    return simulate_cohort(out, 2, labeled=1, unlabeled=0, seed=5, spacing=8.0, processes=1)


def _row_only(_root: Path, _settings: object, _number: int, name: str) -> dict[str, object]:
    return {"participant_id": name}


def _contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_folder_is_read_as_a_cohort(simulated: Path) -> None:
    cohort = read_cohort(simulated)
    counts = [len(part) for part in (cohort.training, cohort.validation, cohort.unlabeled, cohort.test)]
    assert counts == [1, 0, 0, 1]
    assert cohort.contrasts == ("T1w", "T2w")
    for subject in cohort.all():
        assert subject.label is not None
        assert all(path.is_file() for path in (*subject.images, subject.label))


def test_every_subject_has_its_truth_and_a_table_beside_it(simulated: Path) -> None:
    truth = simulated / "derivatives" / "simulation"
    for number in (1, 2):
        path = truth / f"sub-0{number}" / "anat" / f"sub-0{number}_seg-braintissues_dseg.nii.gz"
        assert nib.load(path).get_data_dtype() == np.uint8
    header = (truth / "dseg.tsv").read_text().splitlines()[0]
    assert header == "index\tname\tabbreviation\tcolor"


def test_images_are_int16_on_one_grid_with_both_transforms(simulated: Path) -> None:
    first, second = (nib.load(simulated / f"sub-01/anat/sub-01_{name}.nii.gz") for name in ("T1w", "T2w"))
    assert first.get_data_dtype() == np.int16
    np.testing.assert_array_equal(first.affine, second.affine)
    assert nib.aff2axcodes(first.affine) == ("R", "A", "S")
    assert int(first.header["qform_code"]) == int(first.header["sform_code"]) == 1


def test_descriptions_hold_no_path(simulated: Path) -> None:
    for path in simulated.rglob("*.json"):
        assert str(simulated.parent) not in path.read_text()
    description = json.loads((simulated / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Name"] == "medssl simulate"


def test_participants_table_has_a_described_row_for_each_subject(simulated: Path) -> None:
    header, *rows = (simulated / "participants.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == ["sub-01", "sub-02"]
    assert set(header.split("\t")) == set(json.loads((simulated / "participants.json").read_text()))


def test_two_processes_write_the_same_bytes_as_one(simulated: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    again = simulate_cohort(
        tmp_path / "again",
        2,
        1,
        0,
        seed=5,
        spacing=8.0,
        processes=2,
        progress=lambda *news: told.append(news),
    )
    assert _contents(again) == _contents(simulated)
    assert sorted(name for name, _, _ in told) == ["sub-01", "sub-02"]
    assert [news[1:] for news in told] == [(1, 2), (2, 2)]


def test_split_deals_every_subject_once() -> None:
    sections = split(9, {"training": 3, "validation": 1, "unlabeled": 2}, seed=1)
    assert [len(sections[name]) for name in ("training", "validation", "unlabeled", "test")] == [3, 1, 2, 3]
    assert sorted(chain.from_iterable(sections.values())) == list(range(1, 10))
    assert sections != split(9, {"training": 3, "validation": 1, "unlabeled": 2}, seed=2)


def test_unlabeled_subjects_stand_in_the_datalist_without_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate, "_write_subject", _row_only)
    simulate_cohort(tmp_path / "out", 12, 3, 5, seed=0, validation=1, processes=1)
    datalist = json.loads((tmp_path / "out" / "datalist.json").read_text())
    counts = {name: len(datalist[name]) for name in ("training", "validation", "unlabeled", "test")}
    assert counts == {"training": 3, "validation": 1, "unlabeled": 5, "test": 3}
    assert not any("label" in entry for entry in datalist["unlabeled"])
    for name in ("training", "validation", "test"):
        assert all("label" in entry for entry in datalist[name])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labeled": 3, "unlabeled": 2}, ConfigError, "make 5 subjects, but only 4"),
        ({"labeled": -1}, ConfigError, "number of training is too small"),
        ({"subjects": 0, "labeled": 0, "unlabeled": 0}, ConfigError, "number of subjects is too small"),
        ({"spacing": 0.0}, ConfigError, "spacing is 0"),
        ({"site": "C"}, ConfigError, "no simulated site 'C'"),
        ({"age_months": 99.0}, ConfigError, "age_months is 99"),
        ({"seed": -1}, ConfigError, "seed is -1"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(
    tmp_path: Path, arguments: dict, error: type[Exception], message: str
) -> None:
    settings = {
        "subjects": 4,
        "labeled": 1,
        "unlabeled": 1,
        "seed": 0,
        "spacing": 8.0,
        "processes": 1,
    } | arguments
    with pytest.raises(error, match=message):
        simulate_cohort(tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        simulate_cohort(tmp_path, 1, 1, 0, seed=0, spacing=8.0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "_write_subject", _row_only)
    out = tmp_path / "empty"
    out.mkdir()
    simulate_cohort(out, 1, 1, 0, seed=0, spacing=8.0, processes=1)
    assert (out / "datalist.json").is_file()


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> dict[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate, "_write_subject", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate_cohort(tmp_path / "out", 2, 1, 0, seed=0, spacing=8.0, processes=1)
    assert list(tmp_path.iterdir()) == []
