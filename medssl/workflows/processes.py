"""Jobs in worker processes of one thread each: results as they come, Ctrl-C left to the parent."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from medssl.cores import cores
from medssl.errors import RegistrationError

Result = TypeVar("Result")

SMALL = 1_000_000
"""Voxels to work on, of all jobs added up, below which starting processes takes longer than it spares."""


def workers_for(voxels: int, asked: int | None, sharing: int = 1) -> int:
    """Return how many processes to start.

    Args:
        voxels: Of all jobs added up.
        asked: By the user; None for one a core where that pays.
        sharing: Processes like this one that share the cores.
    """
    if asked is not None:
        return asked
    return max(1, cores() // sharing) if voxels > SMALL else 1


def in_processes(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[tuple[int, Result]]:
    """Yield the number and the result of each job, in any order.

    Args:
        function: Of a module, called with the parts of a job; runs in this process where one worker is enough.
        jobs: Arguments.
        workers: Processes at a time, never more than there are jobs.

    Raises:
        RegistrationError: A process died. Results that were yielded are kept by who took them.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        for number, job in enumerate(jobs):
            yield number, function(*job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interruptions) as pool:
        numbers = {pool.submit(function, *job): number for number, job in enumerate(jobs)}
        try:
            for done in as_completed(numbers):
                yield numbers.pop(done), done.result()
        except BrokenProcessPool as error:
            msg = "A process that registers or warps scans died; finished registrations are kept."
            raise RegistrationError(
                msg,
                "Is memory short? Close other programs and start again; in training, "
                "--set train#dataset#registered#processes=1 takes one pair at a time.",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _leave_interruptions() -> None:
    """Let the parent alone react to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
