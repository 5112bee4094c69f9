"""Ctrl-C and `kill` end training after the current step, with everything saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from ignite.engine import Engine, Events

from medssl.errors import MedsslError


class TrainingInterrupted(MedsslError):
    """Training was stopped by the user; it can go on from its resume point."""

    resumable = True


class Interruption:
    """Turn SIGINT and SIGTERM into a `TrainingInterrupted` at the end of the step that is running.

    Attach it after the handlers whose work belongs to a step, so that the step is whole.
    """

    def __init__(self) -> None:
        self._asked = False
        self._previous: dict[signal.Signals, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Register the events of the trainer."""
        engine.add_event_handler(Events.STARTED, self._listen)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._stop_within_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._stop_if_asked)
        engine.add_event_handler(Events.COMPLETED, self._restore)

    def _listen(self, engine: Engine) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            self._restore()
            raise KeyboardInterrupt
        self._asked = True

    def _stop_within_epoch(self, engine: Engine) -> None:
        if engine.state.iteration % engine.state.epoch_length != 0:
            self._stop_if_asked(engine)

    def _stop_if_asked(self, engine: Engine) -> None:
        if self._asked:
            self._restore()
            msg = (
                f"Training was stopped after step {engine.state.iteration}; everything up to there is saved."
            )
            raise TrainingInterrupted(msg)

    def _restore(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
