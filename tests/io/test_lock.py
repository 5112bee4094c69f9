import json
import os
import socket
import subprocess
import sys
import threading
import time

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


TAKE = """
import sys, time
from pathlib import Path
from medssl.errors import OutputError
from medssl.io.lock import locked
while not Path(sys.argv[2]).exists():
    pass
try:
    with locked(Path(sys.argv[1]), "The folder out"):
        print("mine", flush=True)
        time.sleep(1)
except OutputError:
    print("refused")
"""


def test_of_several_that_find_a_dead_lock_one_takes_it(path, dead, tmp_path):
    leave(path, dead)
    command = [sys.executable, "-c", TAKE, str(path), str(tmp_path / "go")]
    some = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    time.sleep(1)
    (tmp_path / "go").touch()
    assert sorted(process.communicate()[0].strip() for process in some) == ["mine", *["refused"] * 3]


def test_that_of_an_earlier_process_with_this_number_is_taken_over(path):
    leave(path, os.getpid())
    assert holder_of(path) is None
    assert not path.exists()


def test_of_another_machine_nobody_knows_whether_it_runs(path, dead):
    leave(path, dead, host="elsewhere")
    with pytest.raises(OutputError, match=f"process {dead} on elsewhere"), locked(path, "The folder out"):
        pytest.fail("it was taken from another machine")


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
