"""How a step is taken: clipped gradients, a learning rate that ends at zero."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from medssl.errors import ConfigError


class GradientClipping:
    """Bound the norm of the gradient before each optimizer step.

    Args:
        network: The trainer's, whose gradients are clipped.
        max_norm: Largest norm over all parameters.
    """

    def __init__(self, network: torch.nn.Module, max_norm: float) -> None:
        self.network = network
        self.max_norm = max_norm
        self._parameters: list[torch.nn.Parameter] = []

    def attach(self, engine: Engine) -> None:
        """Register the events of the trainer."""
        engine.add_event_handler(Events.STARTED, self._parameters.clear)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, engine: Engine) -> None:
        """Clip, and leave the norm that was found for the trainer, which takes no step where it is not finite."""
        if not self._parameters:  # once a run: listing those of a deep network takes longer than their norm
            self._parameters.extend(self.network.parameters())
        if getattr(engine, "scaler", None) is not None:
            engine.scaler.unscale_(engine.optimizer)
        engine.state.gradient_norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.max_norm)


def linear_decay(optimizer: Optimizer, steps: int, ends: Sequence[int] = ()) -> LambdaLR:
    """Return a schedule that takes the learning rate from its start to 0 in ``steps`` optimizer steps.

    Args:
        optimizer: Whose learning rate.
        steps: Of the whole training.
        ends: Steps at which stages end; each stage has a fall of its own, from the full rate.
    """
    return _staged(optimizer, steps, ends, lambda done: 1.0 - done)


def one_cycle(
    optimizer: Optimizer, steps: int, ends: Sequence[int] = (), *, rising: float = 0.3, begin: float = 0.2
) -> LambdaLR:
    r"""Return a schedule that rises along a cosine to the learning rate, then falls to 0 along another.

    .. math:: \frac{\eta}{\eta_\mathrm{max}} = \begin{cases}
              b + (1 - b)\,\frac{1 - \cos(\pi u / r)}{2} & u < r \\
              \frac{1 + \cos(\pi (u - r) / (1 - r))}{2} & u \ge r \end{cases}

    Args:
        optimizer: Whose learning rate, the highest of the cycle.
        steps: Of the whole training.
        ends: Steps at which stages end; each stage has a cycle of its own.
        rising: r, the share of the steps u in which the rate rises.
        begin: b, the first rate as a share of the highest.

    Raises:
        ConfigError: ``rising`` is no share between 0 and 1, or ``begin`` none from 0 to 1.

    Source:
        Smith and Topin: Super-convergence, arXiv 1708.07120; .3 and 1/5 as in the study on compact networks
        (Ines et al., 2022). Momentum stays as it is.
    """
    if not (0 < rising < 1 and 0 <= begin <= 1):
        msg = f"Found rising {rising} and begin {begin}; expected shares between 0 and 1."
        raise ConfigError(msg)

    def factor(done: float) -> float:
        if done < rising:
            return begin + (1 - begin) * (1 - math.cos(math.pi * done / rising)) / 2
        return (1 + math.cos(math.pi * (done - rising) / (1 - rising))) / 2

    return _staged(optimizer, steps, ends, factor)


def _staged(
    optimizer: Optimizer, steps: int, ends: Sequence[int], factor: Callable[[float], float]
) -> LambdaLR:
    """Return a schedule whose factor depends on the share of a stage that is done; 0 after the last step."""
    bounds = [0, *(ends or [steps])]

    def of_step(step: int) -> float:
        stage = min(bisect.bisect_right(bounds, step), len(bounds) - 1)
        begin, end = bounds[stage - 1], bounds[stage]
        return factor(min(1.0, (step - begin) / max(end - begin, 1)))

    return LambdaLR(optimizer, of_step)
