"""A file that says who is writing here, so that two processes do not write the same results."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from medssl.errors import OutputError

logger = logging.getLogger(__name__)

_POLL_S = 0.1

JOB: ContextVar[str] = ContextVar("job", default="")
"""What a batch system calls this process, also when it starts it again elsewhere after a machine failed."""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock.

    Args:
        process: Its number; 0 where the file does not say.
        host: The machine it runs on.
        since: When it took the lock.
        job: The batch system's name of its job; empty where there is none.
    """

    process: int
    host: str
    since: str
    job: str = ""

    def __str__(self) -> str:
        process = f"process {self.process} on {self.host}" if self.process else "an unknown process"
        return f"{process} since {self.since}"

    def is_gone(self) -> bool:
        """Tell whether it ran on this machine and is no more, or was an earlier start of this very job.

        Of other jobs on other machines nobody knows.
        """
        if self.host != socket.gethostname():
            return bool(self.job) and self.job == JOB.get()
        return self.process > 0 and not _runs(self.process)


@contextmanager
def locked(path: Path, what: str, patience_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file while the block runs; it is removed at the end, whatever happens.

    The lock of a process of this machine that is gone is taken over, and that of an earlier start of the same job.

    Args:
        path: The file; missing folders are made.
        what: Start of the message, such as "The folder out".
        patience_s: How long to wait for another holder.

    Raises:
        OutputError: Another process holds it, or the folder cannot be written to.
    """
    mine = _mine()
    end = time.monotonic() + patience_s
    while not _taken(path, mine):
        holder = holder_of(path)
        if holder is not None and time.monotonic() >= end:
            raise refusal(what, holder, path)
        if holder is not None:
            time.sleep(_POLL_S)
    try:
        yield
    finally:
        if _text(path) == mine:
            path.unlink(missing_ok=True)


def holder_of(path: Path) -> Holder | None:
    """Return who holds a lock; a file whose process is gone is removed.

    Returns:
        None where nobody holds it, or somebody else has just taken it over: look again.
    """
    text = _text(path)
    if text is None:
        return None
    holder = _holder(text, path)
    if not holder.is_gone():
        return holder
    if _removed(path, text):
        logger.warning("%s was left by %s, which is gone; it is taken over.", path.name, holder)
        return None
    return holder if _text(path) == text else None  # the former: it cannot be removed


def _removed(path: Path, text: str) -> bool:
    """Remove a lock of a process that is gone, unless somebody took it over meanwhile; tell whether this did it.

    Of all who see the same file, one at a time looks whether it is still there. An open file's number is not
    given to another one, so what somebody else wrote since is known by its number.
    """
    try:
        with path.open("r+", encoding="utf-8") as stream:  # NFS wants it open for writing
            _queue_for(stream)
            mine = os.path.samestat(os.fstat(stream.fileno()), path.stat()) and stream.read() == text
            if mine:
                path.unlink()
            return mine
    except OSError:  # gone, or somebody else's
        return False


def _queue_for(stream: IO[str]) -> None:
    """Wait until no other process holds this open file, which its close ends; not at all where there is no flock."""
    try:
        import fcntl  # noqa: PLC0415 (not on Windows)

        fcntl.flock(stream, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return


def refusal(what: str, holder: Holder, path: Path) -> OutputError:
    """Return the error for a lock that somebody else holds."""
    msg = f"{what} is being written by {holder}."
    cure = f"Wait for it, or choose another --out. If no such process runs any more, delete {path}."
    return OutputError(msg, cure)


def _mine() -> str:
    now = datetime.now().astimezone().isoformat(timespec="microseconds")
    told = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
    return json.dumps(told | ({"job": JOB.get()} if JOB.get() else {}))


def _taken(path: Path, mine: str) -> bool:
    """Write the lock file; tell whether there was none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path.parent, error) from error
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(mine)
    except FileExistsError:
        return False
    except OSError as error:
        raise _not_writable(path.parent, error) from error
    return True


def _not_writable(folder: Path, error: OSError) -> OutputError:
    msg = f"Cannot write to {folder}: {error.strerror or error}."
    return OutputError(msg, "Choose another folder, free some space, or change its permissions.")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except OSError:
        return ""  # it is there, and somebody else's


def _holder(text: str, path: Path) -> Holder:
    """Read a lock file; of one that was cut off only its age is known."""
    try:
        told = json.loads(text)
        since = str(told["since"])[:19].replace("T", " ")
        return Holder(int(told["process"]), str(told["host"]), since, str(told.get("job", "")))
    except (ValueError, TypeError, KeyError):
        seconds = path.stat().st_mtime if path.exists() else time.time()
        return Holder(0, "", f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}")


def _runs(process: int) -> bool:
    """Tell whether a process of this machine runs.

    This one does not count: a lock with its number is that of an earlier process, as in containers, where
    numbers start anew.
    """
    if process == os.getpid():
        return False
    if os.name == "nt":  # there, signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
