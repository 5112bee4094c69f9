"""`segment` over many scans: steps side by side, shards, interruptions, and two processes in one folder."""

import json
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from phantoms import TINY, write_subject

from medssl.errors import InputError, OutputError
from medssl.io.nifti import _voxels
from medssl.workflows import prediction
from medssl.workflows.devices import choose_device
from medssl.workflows.segment import Options, segment
from medssl.workflows.shards import Shard
from medssl.workflows.train import TrainOptions, train

FAST = Options(pictures=False, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A network after one step: its labels are near ties, so that every difference shows."""
    root = tmp_path_factory.mktemp("trained")
    for name in ("01", "02"):
        write_subject(root / "cohort", name, int(name))
    settings = {**TINY, "epochs": 1, "steps_per_epoch": 1}
    train(root / "cohort", root / "run", TrainOptions(budget="quick", device="cpu", settings=settings))
    return root / "run"


@pytest.fixture
def scans(tmp_path) -> Path:
    """Three unlabeled phantoms."""
    root = tmp_path / "scans"
    for seed, name in enumerate("abc"):
        write_subject(root, name, seed, labeled=False)
    return root


def shard(number: int, count: int, **changes) -> Options:
    return replace(FAST, shard=Shard(number, count), **changes)


def contents(out: Path) -> dict[str, object]:
    """All files of a folder by their place, without how long they took to make."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    told = {name: json.loads(content) for name, content in found.items() if name.endswith(".json")}
    for record in told.values():
        record.pop("Seconds", None)
        record.pop("seconds", None)
    return {**found, **told}


def times(out: Path) -> dict[str, int]:
    """When each label map was written."""
    return {path.name[:5]: path.stat().st_mtime_ns for path in out.rglob("*_dseg.nii.gz")}


def table(out: Path) -> list[str]:
    return [row.split("\t")[0] for row in (out / "volumes.tsv").read_text().splitlines()[1:]]


def held_by_another(out: Path, number: int, count: int) -> Path:
    """Leave the lock of a process that runs."""
    out.mkdir(exist_ok=True)
    lock = out / f".medssl-shard-{number}-of-{count}.lock"
    lock.write_text(
        json.dumps({"process": os.getppid(), "host": socket.gethostname(), "since": "2026-11-22"})
    )
    return lock


def test_shards_together_write_what_one_process_writes(run, scans, tmp_path):
    segment(scans, tmp_path / "one" / "out", run, replace(FAST, probabilities=True))
    for number in (2, 1):
        segment(scans, tmp_path / "two" / "out", run, shard(number, 2, probabilities=True))
    one, two = contents(tmp_path / "one" / "out"), contents(tmp_path / "two" / "out")
    assert len([name for name in one if name.endswith("_dseg.nii.gz")]) == 3
    assert one == two


def test_a_shard_does_its_part_and_the_tables_grow(run, scans, tmp_path):
    out = tmp_path / "out"
    assert segment(scans, out, run, shard(2, 2)).done == ["sub-b"]
    assert table(out) == ["sub-b"]
    assert segment(scans, out, run, shard(1, 2)).done == ["sub-a", "sub-c"]
    assert table(out) == ["sub-a", "sub-b", "sub-c"]


def test_a_shard_without_subjects_does_nothing(run, scans, tmp_path):
    result = segment(scans, tmp_path / "out", run, shard(4, 4))
    assert [result.done, result.skipped, result.failed] == [[], [], {}]
    assert not list((tmp_path / "out").iterdir())


def test_a_shard_that_was_interrupted_goes_on_where_it_stopped(run, scans, tmp_path):
    def stop_at_the_last(what, done, total):
        if what == "sub-c":
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        segment(scans, out, run, shard(1, 1), stop_at_the_last)
    before = times(out)
    assert set(before) == {"sub-a", "sub-b"}
    assert not list(out.rglob(".*"))
    result = segment(scans, out, run, shard(1, 1))
    assert (result.skipped, result.done) == (["sub-a", "sub-b"], ["sub-c"])
    assert {name: when for name, when in times(out).items() if name != "sub-c"} == before


def test_what_another_shard_could_not_do_stays_known_until_it_is_done(run, scans, tmp_path):
    out, path = tmp_path / "out", scans / "sub-b" / "anat" / "sub-b_T2w.nii.gz"
    scan = path.read_bytes()
    path.unlink()
    segment(scans, out, run, shard(2, 2))
    segment(scans, out, run, shard(1, 2))
    assert set(json.loads((out / "run.json").read_text())["failed"]) == {"sub-b"}
    path.write_bytes(scan)
    segment(scans, out, run, shard(2, 2))
    assert json.loads((out / "run.json").read_text())["failed"] == {}


@pytest.mark.parametrize("mine", [Shard(), Shard(1, 3), Shard(2, 2)])
def test_a_folder_that_another_process_writes_is_left_alone(run, scans, tmp_path, mine):
    out = tmp_path / "out"
    lock = held_by_another(out, 2, 2)
    with pytest.raises(OutputError, match=rf"is being written by process {os.getppid()} on .* since 2026"):
        segment(scans, out, run, replace(FAST, shard=mine))
    assert list(out.iterdir()) == [lock]


def test_another_shard_may_be_at_work(run, scans, tmp_path):
    lock = held_by_another(tmp_path / "out", 2, 2)
    assert segment(scans, tmp_path / "out", run, shard(1, 2)).done == ["sub-a", "sub-c"]
    assert list((tmp_path / "out").glob(".*")) == [lock]


def test_no_lock_stays_behind_a_failure(run, scans, tmp_path, monkeypatch):
    def fails(*_):
        msg = "the tables"
        raise OutputError(msg)

    monkeypatch.setattr("medssl.workflows.segment._Job.write_tables", fails)
    with pytest.raises(OutputError, match="the tables"):
        segment(scans, tmp_path / "out", run, FAST)
    assert not list((tmp_path / "out").glob(".*"))


def test_the_next_scan_is_read_and_the_last_one_written_while_the_network_runs(
    run, scans, tmp_path, monkeypatch
):
    together = threading.Barrier(3, timeout=60)

    def meeting(step, key):
        def meet(*args, **kwargs):
            subject = next(one.sample["subject"] if hasattr(one, "sample") else one.key for one in args)
            if subject == key:
                together.wait()
            return step(*args, **kwargs)

        return meet

    for name, key in (("prepare", "sub-c"), ("predict", "sub-b"), ("bring_back", "sub-a")):
        monkeypatch.setattr(f"medssl.workflows.segment.{name}", meeting(getattr(prediction, name), key))
    assert segment(scans, tmp_path / "out", run, FAST).done == ["sub-a", "sub-b", "sub-c"]


def test_progress_tells_the_scan_the_network_runs_on_and_how_many_are_finished(run, scans, tmp_path):
    segment(scans, tmp_path / "out", run, shard(2, 3))
    told = []
    segment(scans, tmp_path / "out", run, FAST, lambda *news: told.append(news))
    assert told == [("sub-a", 1, 3), ("sub-c", 1, 3), ("", 3, 3)]


def test_a_scan_is_read_once(run, scans, tmp_path, monkeypatch):
    read = []

    def voxels(image, path, subject):
        read.append(path.name)
        return _voxels(image, path, subject)

    monkeypatch.setattr("medssl.io.nifti._voxels", voxels)
    monkeypatch.setattr("monai.data.NibabelReader.read", lambda *_: pytest.fail("read by MONAI"))
    assert segment(scans, tmp_path / "out", run, replace(FAST, pictures=True)).done
    assert sorted(read) == [f"sub-{name}_{contrast}.nii.gz" for name in "abc" for contrast in ("T1w", "T2w")]


def test_a_failure_in_any_step_stops_no_other_scan(run, scans, tmp_path, monkeypatch):
    (scans / "sub-a" / "anat" / "sub-a_T2w.nii.gz").unlink()

    def fails_on_b(prepared, *args):
        if prepared.sample["subject"] == "sub-b":
            raise MemoryError
        return prediction.bring_back(prepared, *args)

    monkeypatch.setattr("medssl.workflows.segment.bring_back", fails_on_b)
    result = segment(scans, tmp_path / "out", run, FAST)
    assert result.done == ["sub-c"]
    assert "T2w" in result.failed["sub-a"]
    assert "--memory-limit" in result.failed["sub-b"]


def test_processes_of_one_machine_share_its_memory(run, scans, tmp_path, monkeypatch):
    monkeypatch.setattr("medssl.workflows.segment.available_memory", lambda: 100 * 2**20)
    options = replace(FAST, local_ranks=10_000)
    reason = segment(scans, tmp_path / "out", run, options).failed["sub-a"]
    assert "memory limit is too small" in reason
    assert segment(scans, tmp_path / "out", run, replace(FAST, local_ranks=2)).done


def test_processes_of_one_machine_take_a_gpu_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_device("auto", rank) for rank in range(4)] == ["cuda", "cuda:1", "cuda:0", "cuda:1"]
    assert choose_device("cpu", 1) == "cpu"


def test_nothing_to_segment_is_said_before_a_lock_is_made(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is empty"):
        segment(tmp_path / "empty", tmp_path / "out", run, FAST)
    assert not (tmp_path / "out").exists()
