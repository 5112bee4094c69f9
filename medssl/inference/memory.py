"""How much memory a process may still take: the machine's own count and the limits of its cgroups."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

logger = logging.getLogger(__name__)

CONTROLLER_FILES = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}
"""By name in `/proc/self/cgroup` (version 2 has none): folder, limit, usage, and the droppable part of it."""


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that can be taken without swapping or being killed.

    Args:
        root: Where `proc` and `sys` lie; another folder in tests.

    Notes:
        The smallest of what `/proc/meminfo` calls available and what each cgroup above the process (version
        1 or 2) leaves, file cache that can be dropped counted as free. Without `/proc` (macOS, Windows) half
        of the physical memory is assumed free.
    """
    meminfo = _meminfo(root / "proc/meminfo")
    if meminfo is None:
        return _physical_memory() // 2
    return max(0, min([meminfo, *_cgroup_memory(root)]))


def _meminfo(path: Path) -> int | None:
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _physical_memory() -> int:
    if not hasattr(os, "sysconf"):
        return 8 * 2**30
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_memory(root: Path) -> Iterator[int]:
    """Yield what each cgroup from the process up to the mount leaves."""
    listing = root / "proc/self/cgroup"
    if not listing.is_file():
        return
    for line in listing.read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in CONTROLLER_FILES:
                yield from _walk_up(root, PurePosixPath(place), *CONTROLLER_FILES[controller])


def _walk_up(
    root: Path, place: PurePosixPath, mount: str, limit: str, usage: str, cache: str
) -> Iterator[int]:
    relative = place.relative_to("/") if place.is_absolute() else place
    for group in (relative, *relative.parents):
        folder = root / mount / group
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None:
            yield most - used + _statistic(folder / "memory.stat", cache)


def _number(path: Path) -> int | None:
    """Read a file that holds one number; None where there is none or it says `max`."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)
