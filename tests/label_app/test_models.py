import os

import pytest

from medssl.io.files import write_json
from medssl.label_app.checks import NotThere
from medssl.label_app.models import INITIAL, ModelStore, next_name
from medssl.label_app.progress import FILE, ProgressFile, progress_of


def finished(folder, name, when, done=True):
    (folder / name / "models").mkdir(parents=True)
    (folder / name / "models" / "model.pt").touch()
    write_json(folder / name / "run.json", {"finished": done})
    os.utime(folder / name / "run.json", (when, when))


def test_finished_trainings_come_newest_first_and_the_initial_weights_last(tmp_path):
    finished(tmp_path, "ssldec-001", 100)
    finished(tmp_path, "supervised-001", 300)
    finished(tmp_path, "ssldec-002", 200, done=False)
    (tmp_path / "other").mkdir()
    store = ModelStore(None, tmp_path, None, "cpu")
    assert store.names() == ["supervised-001", "ssldec-001", INITIAL]
    assert store.place(None) == tmp_path / "supervised-001"
    assert store.place(INITIAL) is None
    with pytest.raises(NotThere):
        store.place("ssldec-002")


def test_run_folders_are_counted_and_never_used_twice():
    assert next_name([], "ssldec") == "ssldec-001"
    assert next_name(["ssldec-001", "ssldec-009", "supervised-020", "ssldec-x"], "ssldec") == "ssldec-010"


def test_networks_are_kept_and_the_oldest_is_dropped(tmp_path, tiny_run):
    for number in (1, 2, 3):
        (tmp_path / f"supervised-00{number}").symlink_to(tiny_run)
    store = ModelStore(tiny_run, tmp_path, None, "cpu")
    with store.used(INITIAL) as (name, first, _):
        assert name == INITIAL
    with store.used(INITIAL) as (_, again, _):
        assert again is first
    for number in (1, 2):
        with store.used(f"supervised-00{number}"):
            pass
    with store.used(INITIAL) as (_, anew, _):
        assert anew is not first
        assert anew.weights_sha256 == first.weights_sha256


def test_progress_is_written_for_those_who_watch(tmp_path):
    watcher = ProgressFile(tmp_path / FILE, 3, {"asked": {"seed": 1}})
    watcher.started(0, 6)
    watcher.step(3, 0.5)
    watcher.validated(3, 0.7)
    watcher.validated(6, 0.6)
    told = progress_of(tmp_path)
    assert told["asked"] == {"seed": 1}
    assert (told["epoch"], told["total_epochs"], told["total_steps"]) == (1, 2, 6)
    assert told["best_metric"] == 0.7
    assert told["eval"] == {"val_mean_dice": 0.6}
    assert progress_of(tmp_path / "nothing") == {}
    (tmp_path / FILE).write_text("{")
    assert progress_of(tmp_path) == {}
