import threading
import time
import weakref
from contextlib import closing

import pytest

from medssl.workflows.overlap import overlapped

PATIENCE_S = 10


class Thing:
    """Something that can be counted while it lives."""


def nothing(*_):
    return None


def test_items_come_in_their_order_with_what_was_made():
    written = []
    steps = overlapped(
        "abc", str.upper, lambda item, read: item + read, lambda item, made: written.append(made)
    )
    assert list(steps) == [("a", None), ("b", None), ("c", None)]
    assert written == ["aA", "bB", "cC"]


def test_the_next_is_read_and_the_last_is_written_while_one_is_worked_on():
    together = threading.Barrier(3, timeout=PATIENCE_S)

    def meet(number):
        return lambda item, *_: together.wait() if item == number else None

    found = dict(overlapped([1, 2, 3], meet(3), meet(2), meet(1)))
    assert found == {1: None, 2: None, 3: None}


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_step_that_fails_is_told_and_the_others_are_done(step):
    def fails(item, *_):
        if item == "b":
            raise ValueError(item)

    steps = [nothing, nothing, nothing]
    steps[step] = fails
    found = dict(overlapped("abc", *steps))
    assert (found["a"], found["c"]) == (None, None)
    assert isinstance(found["b"], ValueError)


def test_one_item_ahead_and_one_behind_at_most():
    alive, most = weakref.WeakSet(), []

    def read(item):
        thing = Thing()
        alive.add(thing)
        return thing

    def work(item, thing):
        most.append(len(alive))
        return thing

    assert len(list(overlapped(range(20), read, work, nothing))) == 20
    assert max(most) <= 3


def test_an_item_that_is_written_is_let_go_of_while_the_next_is_worked_on():
    things, gone = [], []

    def read(item):
        thing = Thing()
        things.append(weakref.ref(thing))
        return thing

    def work(item, thing):
        end = time.monotonic() + PATIENCE_S
        while item == 1 and things[0]() is not None and time.monotonic() < end:
            time.sleep(0.01)
        gone.append(things[0]() is None)
        return thing

    list(overlapped(range(2), read, work, nothing))
    assert gone == [False, True]


def test_reading_does_not_run_away():
    read, worked = [], []
    step = overlapped(range(9), read.append, lambda item, _: worked.append(len(read)), nothing)
    list(step)
    assert all(count <= number + 2 for number, count in enumerate(worked))


def test_an_interruption_lets_what_is_being_written_finish():
    begun, written = threading.Event(), []

    def work(item, _):
        if item == "b":
            assert begun.wait(PATIENCE_S)
            raise KeyboardInterrupt

    def write(item, _):
        begun.set()
        threading.Event().wait(0.3)
        written.append(item)

    with pytest.raises(KeyboardInterrupt):
        list(overlapped("abc", nothing, work, write))
    assert written == ["a"]


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_interruption_in_any_step_is_raised(step):
    def interrupted(*_):
        raise KeyboardInterrupt

    steps = [nothing, nothing, nothing]
    steps[step] = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(overlapped("ab", *steps))


def test_nothing_runs_any_more_once_it_is_closed():
    read = []
    with closing(overlapped(range(9), read.append, nothing, nothing)) as steps:
        next(steps)
    seen = len(read)
    assert seen < 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("medssl-")]
