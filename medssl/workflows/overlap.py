"""Three steps of a job at the same time, each on another item: read the next, work on this, write the last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import starmap
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    work: Callable[[Item, Read], Made],
    write: Callable[[Item, Made], None],
) -> Iterator[tuple[Item, Exception | None]]:
    """Yield each item when it is written, in their order, or with the exception of the step that failed.

    `read` and `write` run in a thread each, `work` in the caller's. At most one item is ahead of the one that is
    worked on and one behind, so that memory does not grow with their number. An interruption (Ctrl-C) lets
    the item that is being written finish.

    Args:
        items: What to do.
        read: First step of an item.
        work: Second step, with what was read.
        write: Last step, with what was made.
    """
    with ThreadPoolExecutor(1, "medssl-read") as reader, ThreadPoolExecutor(1, "medssl-write") as writer:
        behind: list[tuple[Item, Future[None] | Exception]] = []
        try:
            for item, reading in _read_ahead(items, read, reader):
                made, error = _tried(work, item, reading)
                yield from starmap(_outcome, behind)
                behind = [(item, writer.submit(write, item, made) if error is None else error)]
                del reading, made, error  # while the next item is worked on, the writer alone holds this one
            yield from starmap(_outcome, behind)
        finally:
            reader.shutdown(wait=False, cancel_futures=True)


def _read_ahead(
    items: Iterable[Item], read: Callable[[Item], Read], reader: ThreadPoolExecutor
) -> Iterator[tuple[Item, Future[Read]]]:
    """Yield each item with its reading; that of the next one has been asked for by then."""
    coming: list[tuple[Item, Future[Read]]] = []
    for item in items:
        coming.append((item, reader.submit(read, item)))
        if len(coming) > 1:
            yield coming.pop(0)
    yield from coming


def _tried(
    work: Callable[[Item, Read], Made], item: Item, reading: Future[Read]
) -> tuple[Made, None] | tuple[None, Exception]:
    """Do the second step here and now; an exception is returned, an interruption raised."""
    try:
        return work(item, reading.result()), None
    except Exception as error:  # noqa: BLE001 (it is told together with the item)
        return None, error


def _outcome(item: Item, writing: Future[None] | Exception) -> tuple[Item, Exception | None]:
    """Wait until an item is written."""
    error = writing if isinstance(writing, Exception) else writing.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return item, error
