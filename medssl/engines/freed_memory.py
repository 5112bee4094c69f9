"""Memory that a training step frees stays with the process, so that the next step need not fetch it again."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping
from functools import cache

from ignite.engine import Engine, Events

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt`, as malloc.h numbers them."""

KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
GIVEN_BACK = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _MMAP_MAX: 65536}
"""What glibc itself comes to after it has freed blocks of 32 MiB; with its first values it would be slower."""


class KeepFreedMemory:
    """Keep what is freed while an engine runs, and give it back to the system while its validator runs and afterwards.

    glibc returns large blocks to the system as soon as they are freed, and every step of a training on a CPU asks for
    the same maps again: each page of them is then zeroed and mapped anew, which takes up to a fifth of a step (see
    ``benchmarks/freed_memory.py``). Results do not change. Validation measures what is free to choose its tiles. Where
    there is no glibc nothing happens.

    Args:
        validator: Engine that runs within the other one, or None.

    Notes:
        A run that ends by an exception keeps its memory: whoever catches it calls `give_back_memory`.
    """

    def __init__(self, validator: Engine | None = None) -> None:
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Register at the beginning and the end of both."""
        engine.add_event_handler(Events.STARTED, keep_freed_memory)
        engine.add_event_handler(Events.COMPLETED, give_back_memory)
        if self.validator is not None:
            self.validator.add_event_handler(Events.STARTED, give_back_memory)
            self.validator.add_event_handler(Events.COMPLETED, keep_freed_memory)


def keep_freed_memory() -> None:
    """Let this process keep what it frees, until `give_back_memory`."""
    _set(KEPT)


def give_back_memory() -> None:
    """Return what this process has freed to the system, now and from now on."""
    if (library := _set(GIVEN_BACK)) is not None:
        library.malloc_trim(0)


def _set(values: Mapping[int, int]) -> ctypes.CDLL | None:
    library = _glibc()
    if library is not None:
        for parameter, value in values.items():
            library.mallopt(parameter, value)
    return library


@cache
def _glibc() -> ctypes.CDLL | None:
    """Return the C library of this process, or None where it is another one."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
