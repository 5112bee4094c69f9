"""How a step is taken: clipped gradients, a learning rate that falls to zero."""

from __future__ import annotations

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
        if getattr(engine, "amp", False) and engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)


def linear_decay(optimizer: Optimizer, steps: int) -> LambdaLR:
    """Return a schedule that takes the learning rate from its start to 0 in ``steps`` optimizer steps."""
    return LambdaLR(optimizer, lambda step: max(0.0, 1.0 - step / max(steps, 1)))
