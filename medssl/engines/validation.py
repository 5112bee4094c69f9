"""When to look at the held-out labeled scans, and when looking shows that training can stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import ValidationHandler
from torch import Tensor

logger = logging.getLogger(__name__)


class Validation(ValidationHandler):
    """Validate every ``interval`` epochs and after the last one; do nothing where no scan is held out."""

    def attach(self, engine: Engine) -> None:
        """Register the events of the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Run the evaluator where it is due."""
        due = engine.state.epoch % self.interval == 0 or engine.state.epoch == engine.state.max_epochs
        if due and self.validator is not None and self.validator.state.epoch_length:
            super().__call__(engine)


class EarlyStopping:
    """End training when the validation metric has not risen for some validations.

    Args:
        evaluator: Engine that validates.
        patience: Validations without a rise; 0 never stops.
        begin: Validations up to this step do not count, see `BestModelSaver`.
    """

    def __init__(self, evaluator: Engine, patience: int, begin: int = 0) -> None:
        self.patience, self.begin = patience, begin
        self.best: float | None = None
        self.waited = 0
        self._trainer: Engine | None = None
        evaluator.add_event_handler(Events.COMPLETED, self._validated)

    def attach(self, engine: Engine) -> None:
        """Register the end of an epoch of the trainer."""
        self._trainer = engine
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._stop_if_stuck)

    def state_dict(self) -> dict[str, Any]:
        """Return the best metric so far and the validations since."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the count of the run that is resumed."""
        self.best, self.waited = state["best"], state["waited"]

    def _validated(self, evaluator: Engine) -> None:
        if self._trainer is not None and self._trainer.state.iteration <= self.begin:
            return
        metric = float(evaluator.state.metrics[evaluator.state.key_metric_name])
        if self.best is None or (not math.isnan(metric) and metric > self.best):
            self.best, self.waited = metric, 0
        else:
            self.waited += 1

    def _stop_if_stuck(self, engine: Engine) -> None:
        if self.patience and self.waited >= self.patience and not engine.should_terminate:
            logger.info(
                "No better score in %d validations: stopped at step %d", self.waited, engine.state.iteration
            )
            engine.terminate()


def scores_and_labels(output: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the scores of images and their class numbers, as ignite's metrics want them.

    Shapes:
        return: ``(B, K)`` and ``(B,)``
    """
    return output["pred"], output["label"].flatten()
