"""How a process ends that has done its work."""

import subprocess
import sys

import pytest


def ended(code):
    """Run code and `end_at_once` in a fresh process, something said behind it."""
    script = f"""
import atexit, sys, threading, time
from multiprocessing import get_context
from medssl.workflows.ending import end_at_once
class Slow:
    def __del__(self):
        print("taken apart")
kept = Slow()
atexit.register(print, "registered")
{code}
end_at_once()
print("still here")
"""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_it_ends_at_once_and_does_what_was_registered_and_printed():
    done = ended("print('printed', end='')")
    assert (done.returncode, done.stdout) == (0, "printedregistered\n")


@pytest.mark.parametrize(
    "at_work",
    [
        "threading.Thread(target=time.sleep, args=(0.2,)).start()",
        "get_context('fork').Process(target=time.sleep, args=(5,), daemon=True).start()",
    ],
    ids=["thread", "process"],
)
def test_where_something_is_at_work_python_ends_the_process(at_work):
    done = ended(at_work)
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["still here", "registered", "taken apart"]


def test_another_thread_than_the_main_one_ends_nothing():
    done = ended(
        "inner = threading.Thread(target=end_at_once, daemon=True); inner.start(); inner.join(); print(1)"
    )
    assert done.stdout == "1\nregistered\n"


def test_what_cannot_be_flushed_is_left_to_python():
    done = ended("sys.stdout.flush = lambda: (_ for _ in ()).throw(OSError('full'))")
    assert "still here" in done.stdout


def test_daemons_are_not_waited_for():
    assert (
        "still here"
        not in ended("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()").stdout
    )
