import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from medssl.errors import OutputError
from medssl.io import lock
from medssl.io.lock import holder_of, locked


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / ".some.lock"


def leave(path, process, host=None):
    """Write the lock of another process."""
    path.parent.mkdir(exist_ok=True)
    told = {"process": process, "host": host or socket.gethostname(), "since": "2026-11-22T01:02:03.5+00:00"}
    path.write_text(json.dumps(told))


@pytest.fixture
def no_job():
    """Forget the job at the end."""
    before = lock.JOB.set("")
    yield
    lock.JOB.reset(before)


@pytest.fixture
def dead():
    """The number of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_file_is_there_while_the_block_runs_and_says_who(path):
    with locked(path, "The folder out"):
        told = json.loads(path.read_text())
    assert (told["process"], told["host"]) == (os.getpid(), socket.gethostname())
    assert not path.exists()


def test_it_is_removed_where_the_block_fails(path):
    with pytest.raises(KeyboardInterrupt), locked(path, "The folder out"):
        raise KeyboardInterrupt
    assert not list(path.parent.iterdir())


def test_a_running_process_keeps_it_and_is_named_with_the_cure(path):
    leave(path, os.getppid())
    told = rf"The folder out is being written by process {os.getppid()} on .* since 2026-11-22 01:02:03"
    with pytest.raises(OutputError, match=told) as refused, locked(path, "The folder out"):
        pytest.fail("it was taken from a running process")
    assert f"delete {path}" in refused.value.cure
    assert path.exists()


def test_that_of_a_dead_process_of_this_machine_is_taken_over(path, dead, caplog):
    leave(path, dead)
    with locked(path, "The folder out"):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert f"process {dead}" in caplog.text


def test_one_that_was_taken_over_meanwhile_is_left_to_who_did(path, dead, monkeypatch):
    leave(path, dead)
    known = path.read_text()
    taken = []

    def somebody_is_faster(_):
        if not taken:
            taken.append(path.unlink())
            leave(path, os.getppid())

    monkeypatch.setattr(lock, "_queue_for", somebody_is_faster)
    assert holder_of(path) is None  # of the one it saw
    assert path.read_text() != known
    with pytest.raises(OutputError, match=f"process {os.getppid()}"), locked(path, "The folder out"):
        pytest.fail("it was taken from a running process")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_dead_one_in_a_folder_that_cannot_be_written_to_is_refused(path, dead):
    leave(path, dead)
    path.parent.chmod(0o555)
    try:
        with pytest.raises(OutputError, match=f"process {dead}"), locked(path, "The folder out"):
            pytest.fail("it was taken")
    finally:
        path.parent.chmod(0o755)


def test_a_dead_one_that_cannot_be_removed_is_refused(path, dead, monkeypatch):
    leave(path, dead)

    def fail(*_, **__):
        raise PermissionError(13, "not permitted")

    monkeypatch.setattr(type(path), "unlink", fail)
    with pytest.raises(OutputError, match=f"process {dead}"), locked(path, "The folder out"):
        pytest.fail("it was taken")


def test_without_flock_a_dead_one_is_taken_over_too(path, dead, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def fail(*_):
        raise OSError(9, "no such lock here")

    monkeypatch.setattr(fcntl, "flock", fail)
    leave(path, dead)
    with locked(path, "The folder out"):
        assert json.loads(path.read_text())["process"] == os.getpid()


TAKE = """
import sys
from pathlib import Path
from medssl.errors import OutputError
from medssl.io.lock import locked
print("ready", flush=True)
sys.stdin.readline()
try:
    with locked(Path(sys.argv[1]), "The folder out"):
        print("mine", flush=True)
        sys.stdin.readline()
except OutputError:
    print("refused", flush=True)
"""


def test_of_several_that_find_a_dead_lock_one_takes_it(path, dead):
    leave(path, dead)
    command = [sys.executable, "-c", TAKE, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    some = [subprocess.Popen(command, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in some] == ["ready\n"] * 4
    for process in some:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.stdout.readline().strip() for process in some]
    for process in some:  # the lock is held until all have answered
        process.communicate("done\n")
    assert sorted(told) == ["mine", *["refused"] * 3]


def test_that_of_an_earlier_process_with_this_number_is_taken_over(path):
    leave(path, os.getpid())
    assert holder_of(path) is None
    assert not path.exists()


def test_of_another_machine_nobody_knows_whether_it_runs(path, dead):
    leave(path, dead, host="elsewhere")
    with pytest.raises(OutputError, match=f"process {dead} on elsewhere"), locked(path, "The folder out"):
        pytest.fail("it was taken from another machine")


@pytest.mark.parametrize(("job", "taken"), [("12 0", True), ("13 0", False), ("", False)])
def test_a_job_that_is_started_again_elsewhere_takes_its_own_lock_over(path, monkeypatch, job, taken, no_job):
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "node-1")
    lock.JOB.set("12 0")
    with locked(path, "The folder out"):
        left = path.read_text()
    path.write_text(left)
    monkeypatch.setattr(lock.socket, "gethostname", lambda: "node-2")
    lock.JOB.set(job)
    if taken:
        with locked(path, "The folder out"):
            assert json.loads(path.read_text())["host"] == "node-2"
    else:
        with pytest.raises(OutputError, match="on node-1"), locked(path, "The folder out"):
            pytest.fail("it was taken from another job")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": "x"}'])
def test_one_that_was_cut_off_is_kept(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(OutputError, match="an unknown process since 20"), locked(path, "The folder out"):
        pytest.fail("it was taken from somebody")


def test_patience_waits_until_it_is_free(path):
    leave(path, os.getppid())
    timer = threading.Timer(0.2, path.unlink)
    timer.start()
    with locked(path, "The tables", patience_s=30):
        assert json.loads(path.read_text())["process"] == os.getpid()


def test_the_lock_of_somebody_else_is_not_removed(path):
    with locked(path, "The folder out"):
        leave(path, os.getppid())
    assert path.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write to"), locked(tmp_path / "file" / "a.lock", "x"):
        pytest.fail("it was written into a file")
