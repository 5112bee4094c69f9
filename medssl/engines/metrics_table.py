"""The learning curve as a TSV that people can open: one row an epoch."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from medssl.engines.checkpoints import torch_rank
from medssl.engines.watching import COUNTS, PARTS, scalars
from medssl.io.subjects import TRANSDUCTIVE


def measured(rows: Iterable[Mapping[str, str]], column: str) -> list[float]:
    """Return what was measured of a column of a curve, in its order."""
    return [float(row[column]) for row in rows if row.get(column, "") not in ("", "n/a")]


class MetricsTable:
    """Append loss, learning rate and validation score to a table, one row an epoch.

    Parts of the loss are means over the steps that had them; the voxels or images these ran over are added up. Cells of
    what was not measured stay empty. A resumed run cuts the rows after its resume point.

    Args:
        path: The table.
        evaluator: Engine that validates; its key metric goes into ``val_<score>``.
        optimizer: Its learning rate is recorded.
        classes: Abbreviations of the labels, for ``val_<score>_<class>``: the metric ``val_<score>_per_class``.
        score: Name of the key metric.
        further: Metrics of the evaluator that get a column of their name.
        transductive: Whether held-out scans may be among the unlabeled; a column then says so in every row.
    """

    def __init__(
        self,
        path: str,
        evaluator: Engine,
        optimizer: Any,
        classes: Sequence[str],
        score: str = "dice",
        *,
        further: Sequence[str] = (),
        transductive: bool = False,
    ) -> None:
        self.path = Path(path)
        self.evaluator = evaluator
        self.optimizer = optimizer
        self.classes = tuple(classes)
        self.score = f"val_{score}"
        self.further = tuple(further)
        self.stamp = TRANSDUCTIVE if transductive else {}
        self.columns = [
            "step",
            "epoch",
            "loss",
            *PARTS,
            *COUNTS,
            self.score,
            *[f"{self.score}_{name}" for name in self.classes],
            *self.further,
            "learning_rate",
            "skipped_steps",
            "elapsed_s",
            *self.stamp,
        ]
        self._parts: dict[str, list[float]] = {}
        self._losses: list[float] = []
        self._validation: dict[str, float] = {}
        self._started = 0.0
        self._earlier = 0.0
        evaluator.add_event_handler(Events.COMPLETED, self._validated)

    def attach(self, engine: Engine) -> None:
        """Register the events of the trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write_row)

    def state_dict(self) -> dict[str, Any]:
        """Return the losses of the epoch that is running."""
        return {"losses": list(self._losses), "parts": self._parts, "elapsed_s": self._elapsed()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of an epoch."""
        self._losses = list(state["losses"])
        self._parts = {name: list(values) for name, values in state["parts"].items()}
        self._earlier = float(state["elapsed_s"])

    def _start(self, engine: Engine) -> None:
        if self._started:
            self._earlier = self._elapsed()
        self._started = time.monotonic()
        if torch_rank() != 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in self._rows() if int(row["step"]) <= engine.state.iteration]
        with self.path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, delimiter="\t", lineterminator="\n", restval="")
            writer.writeheader()
            writer.writerows(kept)

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.is_file():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        return [{name: row.get(name) or "" for name in self.columns} for row in rows]

    def _collect(self, engine: Engine) -> None:
        output = engine.state.output
        self._losses.append(float((output[0] if isinstance(output, list) else output)["loss"].detach()))
        for name, value in scalars(output).items():
            self._parts.setdefault(name, []).append(value)

    def _validated(self, evaluator: Engine) -> None:
        metrics = {self.score: float(evaluator.state.metrics[evaluator.state.key_metric_name])}
        per_class = evaluator.state.metrics.get(f"{self.score}_per_class")
        if per_class is not None:
            metrics |= {
                f"{self.score}_{name}": float(one) for name, one in zip(self.classes, per_class, strict=True)
            }
        metrics |= {
            name: float(evaluator.state.metrics[name])
            for name in self.further
            if name in evaluator.state.metrics
        }
        self._validation = {name: value for name, value in metrics.items() if not math.isnan(value)}

    def _write_row(self, engine: Engine) -> None:
        if torch_rank() != 0:
            self._losses, self._parts, self._validation = [], {}, {}
            return
        row = {
            "step": engine.state.iteration,
            "epoch": engine.state.epoch,
            "loss": f"{sum(self._losses) / max(len(self._losses), 1):.5f}",
            **{name: _of_epoch(name, values) for name, values in self._parts.items()},
            **{name: f"{value:.5f}" for name, value in self._validation.items()},
            "learning_rate": f"{self.optimizer.param_groups[0]['lr']:.3e}",
            "skipped_steps": getattr(engine, "skipped_steps", 0),
            "elapsed_s": f"{self._elapsed():.1f}",
            **self.stamp,
        }
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns, delimiter="\t", lineterminator="\n", restval="").writerow(row)
        self._losses, self._parts, self._validation = [], {}, {}

    def _elapsed(self) -> float:
        return self._earlier + time.monotonic() - self._started


def _of_epoch(name: str, values: Sequence[float]) -> str:
    """Sum up what the steps of an epoch had: counts are added, all else is averaged."""
    return f"{sum(values):.0f}" if name in COUNTS else f"{sum(values) / len(values):.5f}"
