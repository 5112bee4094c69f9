"""The one engine: MONAI's trainer, whose loss function is an objective."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import IterationEvents, SupervisedTrainer, Trainer
from torch import Tensor

from medssl.errors import ConfigError

logger = logging.getLogger(__name__)


class SemiSupervisedTrainer(SupervisedTrainer):
    """Take optimizer steps on ``objective(network, batch)``.

    The iteration differs from MONAI's `SupervisedTrainer`, whose arguments it takes, and the gradient scaler lives as
    long as the trainer (a CPU has none). ``loss_function`` is the objective: it returns a mapping with ``loss`` and
    ``pred``; all further entries stand in the engine's output, for handlers that log them. They are no lists over the
    crops, so ``decollate`` is off unless asked for.
    The batch carries ``progress``, the share of training done (0 to 1).

    A step whose gradients are not finite is skipped, counted in ``skipped_steps`` and logged. The running statistics of
    batch norm and objective are put back to what they were before it: one NaN would stay in them for good.

    Raises:
        ConfigError: Gradient accumulation or ``compile`` is asked for, neither of which is supported, or ``amp`` for a
            3D network on a CPU, where torch's bfloat16 gradients of small maps are wrong.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"decollate": False, **kwargs})
        if self.accumulation_steps > 1 or self.compile:
            msg = "Gradient accumulation and compile are not supported by SemiSupervisedTrainer."
            raise ConfigError(msg, "Leave accumulation_steps and compile as they are.")
        on_cpu = self.amp and self.state.device.type == "cpu"
        if on_cpu and any(isinstance(part, torch.nn.Conv3d) for part in self.network.modules()):
            msg = "Mixed precision (amp) cannot be used for a 3D network on a CPU: torch's gradients of small maps are "
            msg += "wrong there."
            raise ConfigError(msg, "Leave amp out, or train on a GPU.")
        if self.amp and self.state.device.type == "cuda":
            self.scaler = torch.amp.GradScaler(
                "cuda"
            )  # here, so that a resume point can bring its scale back
        self.state_dict_user_keys.append("skipped_steps")  # a resumed run goes on counting
        self.state.skipped_steps = 0
        self.total_epochs: int | None = None

    @property
    def skipped_steps(self) -> int:
        """Steps that were not taken because of their gradients."""
        return int(self.state.skipped_steps)

    @property
    def precision(self) -> str:
        """Type of the numbers in its passes: "float32", "bfloat16" or "float16"."""
        lower = self.amp_kwargs.get("dtype", torch.get_autocast_dtype(self.state.device.type))
        return str(lower if self.amp else torch.float32).removeprefix("torch.")

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, all stages added up."""
        return int((self.total_epochs or self.state.max_epochs) * self.state.epoch_length)

    def run(self) -> None:
        """Train, or train on; MONAI would make a new gradient scaler here, on a CPU too."""
        super(Trainer, self).run()

    def _iteration(self, engine: SemiSupervisedTrainer, batchdata: Mapping[str, Any]) -> dict[str, Any]:
        """Take one step."""
        before = _Statistics(engine.network, engine.loss_function)
        batch = on_device(batchdata, engine.state.device, engine.non_blocking)
        batch["progress"] = (engine.state.iteration - 1) / engine.total_steps
        engine.state.gradient_norm = None  # until `GradientClipping` has found it
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with torch.autocast(engine.state.device.type, enabled=engine.amp, **engine.amp_kwargs):
            engine.state.output = dict(engine.loss_function(engine.network, batch))
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        loss = engine.state.output["loss"]
        if engine.scaler is not None:
            engine.scaler.scale(loss).backward()
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
            scale = engine.scaler.get_scale()
            engine.scaler.step(engine.optimizer)
            engine.scaler.update()
            taken = engine.scaler.get_scale() >= scale
        else:
            loss.backward()
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
            taken = gradients_are_finite(engine.network, engine.state.gradient_norm)
            if taken:
                engine.optimizer.step()
        if not taken:
            before.put_back()
            engine.state.skipped_steps += 1
            logger.warning(
                "Step %d skipped: its gradients are not finite (%d so far)",
                engine.state.iteration,
                engine.skipped_steps,
            )
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output


class _Statistics:
    """What a forward pass changes beside the weights: the buffers of some modules, as they are now."""

    def __init__(self, *parts: Any) -> None:
        self.modules = [part for part in parts if isinstance(part, torch.nn.Module)]
        self.values = [{name: value.clone() for name, value in part.named_buffers()} for part in self.modules]

    @torch.no_grad()
    def put_back(self) -> None:
        """Undo what has happened to them since."""
        for part, values in zip(self.modules, self.values, strict=True):
            for name, value in part.named_buffers():
                value.copy_(values[name])


def on_device(batch: Mapping[str, Any], device: torch.device, non_blocking: bool = False) -> dict[str, Any]:
    """Move the tensors of a batch, and of the batches inside it, to a device."""
    moved: dict[str, Any] = {}
    for key, value in batch.items():
        if isinstance(value, Tensor):
            moved[key] = value.to(device, non_blocking=non_blocking)
        else:
            moved[key] = on_device(value, device, non_blocking) if isinstance(value, Mapping) else value
    return moved


def gradients_are_finite(network: torch.nn.Module, norm: Tensor | None = None) -> bool:
    """Tell whether no gradient is infinite or NaN, by their norm where it is known."""
    if norm is not None:
        return math.isfinite(norm)
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if not gradients:
        return True
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all())  # noqa: SLF001
