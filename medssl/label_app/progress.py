"""The progress of a training, kept in its run folder: the server reads it while another process trains."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssl.errors import MedsslError
from medssl.io.files import read_json, write_json
from medssl.workflows.watching import Watcher

logger = logging.getLogger(__name__)

FILE = "progress.json"
_LEAST_SECONDS = 1.0


class ProgressFile(Watcher):
    """Write what happens into a file, and into the log of the training.

    Args:
        path: The file.
        per_epoch: Steps of an epoch, in which viewers count.
        facts: Written along, so that a stopped training is known again.
    """

    def __init__(self, path: Path, per_epoch: int, facts: Mapping[str, Any]) -> None:
        self.path, self.per_epoch = path, per_epoch
        before = progress_of(path.parent)  # of a training that goes on
        best = {"best_metric": before["best_metric"]} if "best_metric" in before else {}
        self.told: dict[str, Any] = {**facts, **best, "epoch": 0, "step": 0}
        self._written = 0.0
        self._began = time.monotonic()

    def registered(self, done: int, pairs: int) -> None:
        """Labeled scans are laid over the unlabeled ones."""
        logger.info("Registering: %d of %d pairs", done, pairs)
        self._tell(registered=done, pairs=pairs)

    def started(self, step: int, steps: int) -> None:
        """Training begins or goes on."""
        logger.info("Training begins after step %d of %d", step, steps)
        self._tell(step=step, total_steps=steps, total_epochs=steps // self.per_epoch, now=True)

    def step(self, step: int, loss: float) -> None:
        """Note a step."""
        self.told |= {"step": step, "epoch": step // self.per_epoch, "loss": round(loss, 5)}
        if step % self.per_epoch == 0:
            logger.info("Step %d of %s, loss %.4f", step, self.told.get("total_steps", "?"), loss)
        self._tell(now=step % self.per_epoch == 0)

    def validated(self, step: int, score: float) -> None:
        """Note the Dice of the held-out scans."""
        best = max(score, self.told.get("best_metric", 0.0))
        logger.info("Step %d: Dice of the validation scans %.4f, best %.4f", step, score, best)
        self._tell(best_metric=round(best, 5), eval={"val_mean_dice": round(score, 5)}, now=True)

    def _tell(self, *, now: bool = False, **facts: Any) -> None:
        self.told |= facts
        if now or time.monotonic() - self._written >= _LEAST_SECONDS:
            self._written = time.monotonic()
            # Not "total_time": by that name 3D Slicer knows a training that has ended.
            self.told |= {"seconds": round(self._written - self._began, 1), "updated": time.time()}
            write_json(self.path, self.told)


def progress_of(run: Path) -> dict[str, Any]:
    """Return what was written last about a run; nothing where there is none."""
    try:
        return dict(read_json(run / FILE)) if (run / FILE).is_file() else {}
    except MedsslError:
        return {}
