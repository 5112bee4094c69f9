"""What the ten tasks of the study share: trees and tables, counts, a split that is drawn, nothing half written."""

import runpy
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from image_trees import hash_of_tree, save_picture, write_tree

from medssl.io.image_cohort import read_image_cohort
from medssl.io.image_leaks import require_no_image_leaks

Script = Callable[..., None]
SCRIPTS = Path(__file__).parents[2] / "data_scripts"
TASKS = {
    "aptos": 5,
    "chest_xray": 2,
    "fungi": 4,
    "ham10000": 7,
    "isic": 7,
    "kvasir": 8,
    "open_sprayer": 2,
    "plant_seedlings": 12,
    "retinal_oct": 4,
    "tobacco": 10,
}
"""The ten data sets of the study and their classes."""


@pytest.mark.parametrize("name", TASKS)
def test_each_task_converts_folders_and_knows_its_counts(
    script: Script, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_tree(tmp_path / "source", {f"class {number}": 4 for number in range(TASKS[name])})
    script(name, source, tmp_path / "out", "--partial")
    cohort = read_image_cohort(tmp_path / "out")
    assert len(cohort.classes) == TASKS[name]
    assert {item.label for item in cohort.test} == set(cohort.classes)
    require_no_image_leaks(cohort)
    with pytest.raises(
        SystemExit, match=r"error: The source is not the published data set: images \d+ instead of"
    ):
        script(name, source, tmp_path / "other")
    assert f"images {4 * TASKS[name]}, classes {TASKS[name]}, train" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem != "common"))
def test_every_script_explains_itself(script: Script, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        script(name, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"python data_scripts/{name}.py" in text
    assert "--partial" in text


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "source", {"cat": 8, "dog": 12})


def test_the_source_stays_as_it_is_and_nothing_is_left_of_a_refusal(
    script: Script, tmp_path: Path, source: Path
) -> None:
    """D7."""
    before = hash_of_tree(source)
    with pytest.raises(SystemExit, match="images 20 instead of 1204, classes 2 instead of 4"):
        script("fungi", source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    script("fungi", source, tmp_path / "out", "--partial")
    assert hash_of_tree(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_an_image_that_cannot_be_read_stops_the_script(script: Script, tmp_path: Path, source: Path) -> None:
    (source / "dog/12.png").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"12\.png is empty"):
        script("fungi", source, tmp_path / "out", "--partial")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_into_the_source_or_over_something(
    script: Script, tmp_path: Path, source: Path
) -> None:
    with pytest.raises(SystemExit, match="lies inside the input folder"):
        script("fungi", source, source / "out", "--partial")
    (tmp_path / "out").mkdir()
    with pytest.raises(SystemExit, match="out is there already"):
        script("fungi", source, tmp_path / "out", "--partial")


def test_the_drawn_split_hangs_on_the_seed(script: Script, tmp_path: Path, source: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        script("fungi", source, tmp_path / name, "--partial", "--seed", seed, "--test-share", 0.25)
    texts = [(tmp_path / name / "images.csv").read_text() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]
    test = read_image_cohort(tmp_path / "a").test
    assert Counter(item.label for item in test) == {"cat": 2, "dog": 3}


def test_as_many_are_drawn_for_testing_as_the_study_had(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plant seedlings: 1,053 of 5,500 images, here a fiftieth of both."""
    monkeypatch.syspath_prepend(SCRIPTS)
    task = runpy.run_path(str(SCRIPTS / "plant_seedlings.py"))["TASK"]
    source = write_tree(tmp_path / "source", {"oat": task.counts["images"] // 100, "rye": 55})
    script("plant_seedlings", source, tmp_path / "out", "--partial")
    assert len(read_image_cohort(tmp_path / "out").test) == pytest.approx(task.tested / 50, abs=1)
    assert "the study tested on 1053" in capsys.readouterr().out
    assert task.test_share == pytest.approx(0.1915, abs=1e-4)


def test_copies_stay_on_one_side_of_a_drawn_split(script: Script, tmp_path: Path) -> None:
    for number in range(20):
        save_picture(tmp_path / "source" / "ab"[number % 2] / f"{number}.png", number % 10)
    script("fungi", tmp_path / "source", tmp_path / "out", "--partial", "--test-share", 0.4)
    cohort = read_image_cohort(tmp_path / "out")
    assert {leak.kind for leak in require_no_image_leaks(cohort)} == {"same pixels"}


def test_the_splits_of_the_source_are_kept(script: Script, tmp_path: Path) -> None:
    counts = {"train/NORMAL": 2, "train/PNEUMONIA": 3, "test/NORMAL": 1, "test/PNEUMONIA": 1}
    script("chest_xray", write_tree(tmp_path / "source", counts), tmp_path / "out", "--partial")
    cohort = read_image_cohort(tmp_path / "out")
    assert (len(cohort.training), len(cohort.test)) == (5, 2)


def test_published_counts_are_compared_split_by_split(script: Script, tmp_path: Path) -> None:
    counts = {"train/NORMAL": 1, "train/PNEUMONIA": 1, "test/NORMAL": 1, "test/PNEUMONIA": 1}
    with pytest.raises(SystemExit, match="test/NORMAL 1 instead of 234, test/PNEUMONIA 1 instead of 390"):
        script("chest_xray", write_tree(tmp_path / "source", counts), tmp_path / "out")


def _table(tmp_path: Path, *lines: str) -> Path:
    write_tree(tmp_path / "source", {"part_1": 4})
    for number in range(1, 9):
        save_picture(tmp_path / f"source/part_2/x.{number}.png", 100 + number)
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_table_says_class_and_lesion(script: Script, tmp_path: Path) -> None:
    lines = [f"x.{number},{'ab'[number % 2]},lesion{number % 4}" for number in range(1, 9)]
    table = _table(tmp_path, "image_id,dx,lesion_id", *lines)
    script(
        "ham10000", tmp_path / "source", tmp_path / "out", "--table", table, "--partial", "--test-share", 0.5
    )
    cohort = read_image_cohort(tmp_path / "out")
    assert (len(cohort.training), len(cohort.test)) == (4, 4)
    assert not {item.group for item in cohort.training} & {item.group for item in cohort.test}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["id,dx,lesion_id", "x.1,a,l"], "has no column image_id; it has id, dx, lesion_id"),
        (["image_id,dx,lesion_id"], "it has no line"),
        (["image_id,dx,lesion_id", "y.1,a,l"], r"names the image 'y\.1', which is not below"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    script: Script, tmp_path: Path, lines: list[str], words: str
) -> None:
    table = _table(tmp_path, *lines)
    with pytest.raises(SystemExit, match=words):
        script("ham10000", tmp_path / "source", tmp_path / "out", "--table", table, "--partial")


@pytest.mark.parametrize("again", ["part_3/x.1.png", "part_2/x.1.bmp"])
def test_a_table_names_one_image_a_line(script: Script, tmp_path: Path, again: str) -> None:
    """Of two files of one name the last would have won."""
    table = _table(tmp_path, "image_id,dx,lesion_id", "x.1,a,l", "x.2,b,m")
    save_picture(tmp_path / "source" / again, 999)
    with pytest.raises(
        SystemExit, match=rf"names the image 'x\.1', and there are .*{again}.*x\.1|x\.1.*{again}"
    ):
        script("ham10000", tmp_path / "source", tmp_path / "out", "--table", table, "--partial")
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_not_there_is_refused(script: Script, tmp_path: Path, source: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: Cannot read .*never\.csv"):
        script("aptos", source, tmp_path / "out", "--table", tmp_path / "never.csv")


def test_scripts_do_nothing_when_they_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.delitem(sys.modules, "common", raising=False)
    for path in SCRIPTS.glob("*.py"):
        assert runpy.run_path(str(path))["__doc__"]
