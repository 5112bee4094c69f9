"""One cohort over several processes or machines: who does which subjects, and who may write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import ConfigError
from medssl.io.lock import holder_of, locked, refusal
from medssl.io.subjects import Subject

TABLES_PATIENCE_S = 60.0
"""How long a shard waits for another one that writes the cohort's tables; that takes milliseconds."""

_LOCK = ".medssl-shard-{number}-of-{count}.lock"
_TABLES_LOCK = ".medssl-tables.lock"


@dataclass(frozen=True)
class Shard:
    """One of several parts of a cohort.

    Args:
        number: Which, from 1.
        count: Of how many.

    Raises:
        ConfigError: There is no such part.
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            msg = f"There is no shard {self}; expected I/N with I from 1 to N, such as 1/3."
            raise ConfigError(msg)

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, subjects: Sequence[Subject]) -> tuple[Subject, ...]:
        """Return the subjects of this part: every ``count``-th by name, so that no order of files matters."""
        names = sorted(subject.key for subject in subjects)
        mine = set(names[self.number - 1 :: self.count])
        return tuple(subject for subject in subjects if subject.key in mine)

    def divided(self, rank: int, ranks: int) -> Shard:
        """Return the part of this part that one of several processes does.

        Args:
            rank: Number of the process, from 0.
            ranks: How many there are.

        Raises:
            ConfigError: There is no such process.
        """
        if not 0 <= rank < ranks:
            msg = f"There is no process with RANK {rank} where WORLD_SIZE is {ranks}; expected 0 to {ranks - 1}."
            raise ConfigError(msg, "Unset both, or start the processes with torchrun.")
        return Shard((self.number - 1) * ranks + rank + 1, self.count * ranks)


def shard_of_text(text: str) -> Shard:
    """Read "1/3".

    Raises:
        ConfigError: It is no shard.
    """
    number, _, count = text.partition("/")
    if not (number.strip().isdecimal() and count.strip().isdecimal()):
        msg = f"'{text}' is no shard; expected I/N with I from 1 to N, such as 1/3."
        raise ConfigError(msg)
    return Shard(int(number), int(count))


@contextmanager
def only_writer(out: Path, shard: Shard) -> Iterator[None]:
    """Keep other processes from writing the same subjects while the block runs.

    Shards of one division work side by side; a process that divides the cohort otherwise, or not at all, has
    subjects in common with them and is refused.

    Raises:
        OutputError: Another process writes this shard, or divides the cohort otherwise.
    """
    lock = out / _LOCK.format(number=shard.number, count=shard.count)
    with locked(lock, _what(shard.number, shard.count, out)):
        for other in sorted(out.glob(_LOCK.format(number="*", count="*"))):
            number, count = (int(word) for word in other.stem.split("-") if word.isdecimal())
            holder = holder_of(other) if count != shard.count else None
            if holder is not None:
                raise refusal(_what(number, count, out), holder, other)
        yield


@contextmanager
def only_writer_of_tables(out: Path) -> Iterator[None]:
    """Let one shard at a time read all subjects' results and write the cohort's tables from them.

    So the last one to finish sees all of them.

    Raises:
        OutputError: Another process keeps it for a minute.
    """
    with locked(out / _TABLES_LOCK, f"The tables in {out}", TABLES_PATIENCE_S):
        yield


def _what(number: int, count: int, out: Path) -> str:
    return f"The folder {out}" if count == 1 else f"Shard {number}/{count} in {out}"
