"""The teachers of a distillation: which networks, and the weights that each begins with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from medssl.errors import ConfigError
from medssl.workflows.classification.given_weights import FOLDER
from medssl.workflows.classification.train import ClassifyOptions
from medssl.workflows.provenance import relative

RANDOM = "none"
"""Weights of a teacher that begins at random though the student does not."""


class Teacher(NamedTuple):
    """One teacher.

    Args:
        network: A name of the registry of networks.
        pretrained: As in `ClassifyOptions`.
    """

    network: str
    pretrained: str | None


def teachers_of(words: Sequence[str], student: ClassifyOptions) -> tuple[Teacher, ...]:
    """Return the teachers that words name.

    Args:
        words: "NETWORK", or "NETWORK=WEIGHTS" with a file, "cached" or `RANDOM`.
        student: Its weights are those of a teacher that names none: a file where the networks are the same, "cached"
            (each network's own) always.

    Raises:
        ConfigError: The student begins with a file, and nothing is said of a teacher of another network.
    """
    return tuple(_teacher(word, student) for word in words)


def _teacher(word: str, student: ClassifyOptions) -> Teacher:
    network, _, weights = word.partition("=")
    if weights:
        return Teacher(network, None if weights == RANDOM else weights)
    given = student.pretrained
    if given is not None and network != student.network and Path(given).is_file():
        msg = f"The weights in {Path(given).name} are for {student.network}; the teacher {network} has none."
        cure = f"Give --teacher {network}=FILE, {network}=cached, or {network}={RANDOM} for random weights."
        raise ConfigError(msg, cure)
    return Teacher(network, given)


def keep_teachers(words: Sequence[str], out: Path) -> tuple[str, ...]:
    """Copy the files that words name into a run folder; return the words as a plan keeps them."""
    kept = []
    for number, word in enumerate(words, 1):
        network, _, weights = word.partition("=")
        if weights and Path(weights).is_file():
            place = f"{FOLDER}/teacher-{number}/{Path(weights).name}"
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(weights, out / place)
            word = f"{network}={place}"  # noqa: PLW2901 (the same word, with the copy)
        kept.append(word)
    return tuple(kept)


def planned_teachers(words: Sequence[str], out: Path) -> tuple[str, ...]:
    """Return the words that a plan keeps, with the files where they lie now."""
    return _with_files(words, lambda file: str(out / file) if file.startswith(f"{FOLDER}/") else file)


def spoken_teachers(words: Sequence[str], out: Path) -> tuple[str, ...]:
    """Return the words as a command says them, files as seen from the folder that holds the run."""
    return _with_files(words, lambda file: relative(file, out.parent) if Path(file).is_file() else file)


def _with_files(words: Sequence[str], place: Callable[[str], str]) -> tuple[str, ...]:
    parts = (word.partition("=") for word in words)
    return tuple(f"{network}={place(weights)}" if weights else network for network, _, weights in parts)
