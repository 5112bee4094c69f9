"""How many processors there are for us, without torch: processes that ask must start fast."""

from __future__ import annotations

import os


def cores() -> int:
    """Return how many cores the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
