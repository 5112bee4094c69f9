"""What a step frees is there for the next one, and the system's again after the run."""

import platform
import subprocess
import sys

import pytest
from ignite.engine import Engine, Events

from medssl.engines import freed_memory
from medssl.engines.freed_memory import GIVEN_BACK, KEPT, KeepFreedMemory

STEPS = """
import resource
import torch
from ignite.engine import Engine
from medssl.engines.freed_memory import KeepFreedMemory

block, found = 64 << 20, []  # bytes: more than glibc keeps by itself

def step(engine, batch):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(block // 4)
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

engine = Engine(step)
KeepFreedMemory().attach(engine)
engine.run([0] * 12)
print(sum(found) * resource.getpagesize() / block)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_steps_fetch_no_memory_that_a_step_before_freed():
    """Without the handler all twelve fetch theirs; the first few may, where a block lies is the library's business.

    A process of its own: how many do hangs on what the heap held before, which the tests before this one decide.
    """
    fetched = subprocess.run([sys.executable, "-c", STEPS], check=True, capture_output=True, text=True).stdout
    assert float(fetched) <= 4


class Library:
    """Write down what the C library is told."""

    def __init__(self) -> None:
        self.told = []

    def mallopt(self, parameter, value):
        self.told.append((parameter, value))

    def malloc_trim(self, pad):
        self.told.append("trim")


@pytest.fixture
def library(monkeypatch):
    found = Library()
    monkeypatch.setattr("medssl.engines.freed_memory._glibc", lambda: found)
    return found


def test_memory_is_kept_during_steps_and_given_back_to_validation(library):
    back = [*GIVEN_BACK.items(), "trim"]
    told = {"step": [], "validation": []}
    validator = Engine(lambda engine, batch: told["validation"].append(library.told[-len(back) :]))
    engine = Engine(lambda engine, batch: told["step"].append(library.told[-len(KEPT) :]))
    KeepFreedMemory(validator).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED(every=2), lambda: validator.run([0]))
    engine.run([0], max_epochs=5)
    assert told["step"] == 5 * [list(KEPT.items())]
    assert told["validation"] == 2 * [back]
    assert library.told.count("trim") == 3, "twice for validation, and at the end: not once an epoch"
    assert library.told[-len(back) :] == back


def test_memory_is_given_back_after_a_run_that_is_stopped(library):
    engine = Engine(lambda engine, batch: engine.terminate())
    KeepFreedMemory().attach(engine)
    engine.run([0, 0])
    assert library.told == [*KEPT.items(), *GIVEN_BACK.items(), "trim"]


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("was asked for"))
    freed_memory._glibc.cache_clear()
    engine = Engine(lambda engine, batch: None)
    KeepFreedMemory().attach(engine)
    assert engine.run([0]).iteration == 1
    freed_memory._glibc.cache_clear()
