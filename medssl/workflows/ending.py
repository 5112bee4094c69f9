"""How a process ends: when it is asked to, as by Ctrl-C; when it is done, at once."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def ended_cleanly() -> Iterator[None]:
    """Let SIGTERM, with which torchrun, Slurm and servers end a process, do what Ctrl-C does while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def end_at_once() -> None:
    """End this process, successfully, without taking apart the libraries it has loaded, a tenth of a short call.

    What was registered for the end of the process runs, and what Python holds of its output is flushed. Returns, and
    so leaves the end to Python, where another thread or a process of `multiprocessing` still works, where a profiler
    or debugger looks on, or where the output cannot be flushed.
    """
    main = threading.main_thread()
    others = [one for one in threading.enumerate() if one is not main and not one.daemon]
    if others or multiprocessing.active_children() or threading.current_thread() is not main:
        return
    if _is_watched():
        return
    atexit._run_exitfuncs()  # noqa: SLF001 (as Python itself does, once: none is left then)
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(0)


def _is_watched() -> bool:
    """Tell whether a profiler, debugger or measure of coverage wants to see Python's own end."""
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
    tools = range(6) if monitoring is not None else ()
    watched = any(monitoring.get_tool(tool) is not None for tool in tools)
    return watched or sys.gettrace() is not None or sys.getprofile() is not None
