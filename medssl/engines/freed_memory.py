"""Memory that a training step frees stays with the process, so that the next step need not fetch it again."""

from __future__ import annotations

import ctypes
import platform

from ignite.engine import Engine, Events

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt`, as malloc.h numbers them."""

KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
GIVEN_BACK = {_MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _MMAP_MAX: 65536}
"""What glibc itself comes to after it has freed blocks of 32 MiB; with its first values it would be slower."""


class KeepFreedMemory:
    """Keep what is freed while an epoch runs, and give it back to the system before it is validated.

    glibc returns large blocks to the system as soon as they are freed, and every step of a training on a CPU asks for
    the same maps again: each page of them is then zeroed and mapped anew, which takes up to a fifth of a step (see
    ``benchmarks/freed_memory.py``). Results do not change. Validation measures what is free to choose its tiles; attach
    this before it. Where there is no glibc nothing happens.
    """

    def __init__(self) -> None:
        self._library = _glibc()

    def attach(self, engine: Engine) -> None:
        """Register around each epoch; one that is stopped within ends with the run."""
        if self._library is not None:
            engine.add_event_handler(Events.EPOCH_STARTED, self._keep)
            engine.add_event_handler(Events.EPOCH_COMPLETED | Events.COMPLETED, self._give_back)

    def _keep(self) -> None:
        self._set(KEPT)

    def _give_back(self) -> None:
        self._set(GIVEN_BACK)
        self._library.malloc_trim(0)

    def _set(self, values: dict[int, int]) -> None:
        for parameter, value in values.items():
            self._library.mallopt(parameter, value)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library of this process, or None where it is another one."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
