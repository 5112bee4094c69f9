"""How a process ends that has done its work."""

import os
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
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=buffered)


def test_it_ends_at_once_and_does_what_was_registered_and_printed():
    done = ended("print('printed', end='')")
    assert (done.returncode, done.stdout) == (0, "printedregistered\n")


@pytest.mark.parametrize(
    "at_work",
    [
        "threading.Thread(target=time.sleep, args=(2,)).start()",
        "get_context('fork').Process(target=time.sleep, args=(9,), daemon=True).start()",
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


BROKEN = """
class Stream:
    def __init__(self, stream):
        self.stream, self.tries = stream, 0
    def __getattr__(self, name):
        return getattr(self.stream, name)
    def flush(self):
        self.tries += 1
        if self.tries == 1:
            raise {error}
        self.stream.flush()
sys.stdout = Stream(sys.stdout)
"""


@pytest.mark.parametrize("error", ["OSError('full')", "ValueError('closed')"])
def test_what_cannot_be_flushed_is_left_to_python(error):
    done = ended(BROKEN.format(error=error))
    assert done.stdout.splitlines() == ["registered", "still here", "taken apart"]


def test_streams_that_are_not_there_are_no_error():
    done = ended("print('printed', flush=True); sys.stdout = sys.stderr = None")
    assert (done.returncode, done.stdout) == (0, "printed\n")


def test_a_profiler_sees_the_end():
    done = ended("sys.setprofile(lambda *event: None)")
    assert done.stdout.splitlines()[:1] == ["still here"]


def test_daemons_are_not_waited_for():
    done = ended("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()")
    assert (done.returncode, done.stdout) == (0, "registered\n")
