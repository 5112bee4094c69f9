"""`medssl segment` as one of several processes: --shard, torchrun, and how it is ended."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from string import ascii_lowercase

import pytest
import torch
from click.testing import CliRunner
from phantoms import TINY, write_subject

from medssl.cli import main
from medssl.cli.ranks import Ranks, job_of_environment, ranks_of_environment
from medssl.workflows.ending import ended_cleanly
from medssl.workflows.train import TrainOptions, train

OPTIONS = ["--backend", "torch", "--precision", "float32", "--no-pictures", "--device", "cpu"]


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """An environment without a launcher."""
    monkeypatch.setenv("MEDSSL_CACHE", str(tmp_path / "cache"))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    write_subject(root / "cohort", "01", 1)
    write_subject(root / "cohort", "02", 2)
    settings = {**TINY, "epochs": 1, "steps_per_epoch": 1}
    train(root / "cohort", root / "run", TrainOptions(budget="quick", device="cpu", settings=settings))
    return root / "run"


@pytest.fixture
def scans(tmp_path) -> Path:
    for seed, name in enumerate("abc"):
        write_subject(tmp_path / "scans", name, seed, labeled=False)
    return tmp_path / "scans"


def maps(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.rglob("*_dseg.nii.gz")}


@pytest.mark.parametrize("shard", ["0/3", "4/3", "a/b", "3"])
def test_what_is_no_shard_is_wrong_usage(shard, tmp_path):
    result = call("segment", tmp_path, "--out", tmp_path / "out", "--shard", shard)
    assert result.exit_code == 2
    assert "is no shard" in result.output
    assert "such as 1/3" in " ".join(result.output.split())


def test_a_shard_says_which_it_is(run, scans, tmp_path):
    result = call("segment", scans, "--out", tmp_path / "out", "--model", run, "--shard", "2/2", *OPTIONS)
    assert result.exit_code == 0, result.output
    assert "Shard 2/2: 1 segmented, 0 finished before, 0 failed." in result.output
    assert list(maps(tmp_path / "out")) == ["sub-b_seg-braintissues_dseg.nii.gz"]


def test_a_rank_takes_its_shard_and_leaves_the_screen_to_the_first(run, scans, tmp_path, environment):
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        environment.setenv(name, str(value))
    result = call("segment", scans, "--out", tmp_path / "out", "--model", run, *OPTIONS)
    assert result.exit_code == 0, result.output
    assert list(maps(tmp_path / "out")) == ["sub-b_seg-braintissues_dseg.nii.gz"]
    assert result.stdout == ""
    assert result.stderr.strip() == (
        "Shard 2/2: 1 segmented, 0 finished before, 0 failed. Network run by torch, float32."
    )


@pytest.mark.parametrize(
    ("rank", "world", "told"),
    [("a", "2", "RANK is 'a'"), ("0", "", "WORLD_SIZE is ''"), ("2", "2", "RANK 2")],
)
def test_an_environment_that_makes_no_sense_is_refused(tmp_path, environment, rank, world, told):
    environment.setenv("RANK", rank)
    environment.setenv("WORLD_SIZE", world)
    result = call("segment", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert told in " ".join(result.output.split())


def test_the_environment_of_torchrun_is_read(environment):
    told = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in {**told, "TORCHELASTIC_RUN_ID": "x"}.items():
        environment.setenv(name, value)
    assert ranks_of_environment() == Ranks(5, 8, 1, 4, torchrun=True)


def test_slurm_calls_a_job_that_it_starts_again_the_same(environment):
    for name in ("SLURM_CLUSTER_NAME", "SLURM_STEP_ID", "SLURM_JOB_ID"):
        environment.delenv(name, raising=False)
    assert not job_of_environment()
    for name, value in {"SLURM_JOB_ID": "12", "SLURM_PROCID": "3", "SLURM_RESTART_COUNT": "0"}.items():
        environment.setenv(name, value)
    before = job_of_environment()
    environment.setenv("SLURM_RESTART_COUNT", "1")
    assert job_of_environment() == before
    environment.setenv("SLURM_JOB_ID", "13")
    assert job_of_environment() != before


@pytest.mark.parametrize("names", [[], ["RANK"], ["WORLD_SIZE"]])
def test_without_a_launcher_there_is_one_process(environment, names):
    for name in names:
        environment.setenv(name, "1")
    assert ranks_of_environment() == Ranks()


def test_being_ended_is_an_interruption_and_only_meanwhile():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(KeyboardInterrupt), ended_cleanly():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_each_waits_until_all_are_there(environment):
    from torch.distributed import TCPStore

    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)}
    for name, value in {**place, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        environment.setenv(name, value)
    come = []
    threads = [
        threading.Thread(
            target=lambda rank=rank: come.append(Ranks(rank, 2, torchrun=True).wait_for_the_others())
        )
        for rank in range(2)
    ]
    threads[0].start()
    threads[0].join(2)
    assert come == []
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert come == [None, None]


def test_nobody_is_waited_for_where_nobody_can_be_reached(environment, caplog):
    environment.delenv("MASTER_ADDR", raising=False)
    caplog.set_level("INFO")
    Ranks(0, 2, torchrun=True).wait_for_the_others()
    assert "not waited for" in caplog.text


@pytest.mark.slow
def test_torchrun_does_what_one_process_does_and_bad_scans_stop_nobody(run, tmp_path):
    """All scans of the second process are bad: it has failed long before the first, which draws pictures, is ready."""
    scans, one, two = tmp_path / "scans", tmp_path / "one", tmp_path / "two"
    for seed, name in enumerate(ascii_lowercase[:20]):
        write_subject(scans, name, seed, labeled=False)
    for name in ascii_lowercase[1:20:2]:
        (scans / f"sub-{name}" / "anat" / f"sub-{name}_T2w.nii.gz").write_bytes(b"no image")
    call("segment", scans, "--out", one, "--model", run, *OPTIONS, "--pictures")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [
        *launch,
        "-m",
        "medssl",
        "segment",
        scans,
        "--out",
        two,
        "--model",
        run,
        *OPTIONS,
        "--pictures",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert "Shard 1/2: 10 segmented" in done.stderr, done.stderr
    assert "Shard 2/2: 0 segmented, 0 finished before, 10 failed." in done.stderr
    assert done.stdout.split() == [str(two)]
    assert len(maps(one)) == 10
    assert maps(one) == maps(two)
    told = [json.loads((out / "run.json").read_text()) for out in (one, two)]
    assert told[0]["failed"] == told[1]["failed"]
    assert (two / "volumes.tsv").read_text() == (one / "volumes.tsv").read_text()
    assert not list(two.rglob(".*"))
