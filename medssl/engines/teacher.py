"""The teacher: a moving average of the student's weights that predicts without a gradient."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from medssl.functional.averaging import update_average
from medssl.functional.schedules import warmed_decay


class Teacher:
    """Average the weights and the batch-norm statistics of a network over the steps.

    Args:
        network: The student.
        decay: Share of the average that a step keeps; less in the first steps (`warmed_decay`).

    Notes:
        It predicts in evaluation mode: with averaged batch-norm statistics and without dropout.

    Source:
        Tarvainen, Valpola: Mean teachers are better role models, NeurIPS 2017.
    """

    def __init__(self, network: nn.Module, decay: float = 0.99) -> None:
        self.student = getattr(network, "module", network)
        self.decay = decay
        self.network = copy.deepcopy(self.student).eval().requires_grad_(False)
        self._tensors: list[list[Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Register the events of the trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._follow)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Return the scores of the averaged network."""
        scores: Tensor = self.network(image)
        return scores

    def state_dict(self) -> Mapping[str, Any]:
        """Return the averaged weights."""
        return self.network.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over averaged weights."""
        self.network.load_state_dict(state)

    def copy_student(self) -> None:
        """Forget the average and start from the student as it is."""
        self.network.load_state_dict(self.student.state_dict())

    def _start(self, engine: Engine) -> None:
        self._tensors = []
        if engine.state.iteration == 0:
            self.copy_student()

    def _follow(self, engine: Engine) -> None:
        if not self._tensors:  # once a run: listing those of a deep network takes longer than averaging them
            self._tensors = [list(part.state_dict().values()) for part in (self.network, self.student)]
        average, current = self._tensors
        update_average(average, current, warmed_decay(self.decay, engine.state.iteration))
