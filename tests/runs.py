"""What tests look at in a run folder, and how they stop a run."""

from __future__ import annotations

import csv
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medssl.workflows.watching import Watcher


def weights(run: Path) -> dict[str, Any]:
    """Return the weights of a run folder."""
    return torch.load(run / "models" / "model.pt", weights_only=True)


def same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Tell whether two sets of weights are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a TSV without what depends on the clock."""
    with path.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [{name: value for name, value in row.items() if name != "elapsed_s"} for row in rows]


def texts(run: Path) -> list[Path]:
    """Return the text files of a run folder."""
    return [path for path in run.rglob("*") if path.suffix in {".json", ".yaml", ".tsv", ".conf"}]


class StopAfter(Watcher):
    """Press Ctrl-C in some step, those of all trainings counted.

    Training stops with the step that follows, or with this one where it ends an epoch.
    """

    def __init__(self, step: int) -> None:
        self.left = step

    def step(self, step: int, loss: float) -> None:
        """Count down."""
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
