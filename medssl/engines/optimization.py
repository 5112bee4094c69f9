"""How a step is taken: clipped gradients, a learning rate that falls to zero."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class GradientClipping:
    """Bound the norm of the gradient before each optimizer step.

    Args:
        network: Network whose gradients are clipped.
        max_norm: Largest norm over all parameters.
    """

    def __init__(self, network: torch.nn.Module, max_norm: float) -> None:
        self.network = network
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Register the end of the backward pass."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, engine: Engine) -> None:
        if getattr(engine, "scaler", None) is not None:
            engine.scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)


def linear_decay(optimizer: Optimizer, steps: int, ends: Sequence[int] = ()) -> LambdaLR:
    """Return a schedule that takes the learning rate from its start to 0 in ``steps`` optimizer steps.

    Args:
        optimizer: Whose learning rate.
        steps: Of the whole training.
        ends: Steps at which stages end; each stage has a fall of its own, from the full rate.
    """
    bounds = [0, *(ends or [steps])]

    def factor(step: int) -> float:
        stage = min(bisect.bisect_right(bounds, step), len(bounds) - 1)
        begin, end = bounds[stage - 1], bounds[stage]
        return max(0.0, 1.0 - (step - begin) / max(end - begin, 1))

    return LambdaLR(optimizer, factor)
