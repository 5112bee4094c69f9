"""Saving: the best model, and the point to resume from. Always to a temporary name first."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ignite.engine import Engine, Events

from medssl.errors import CheckpointError
from medssl.io.files import require_same_hashes

if TYPE_CHECKING:
    from medssl.engines.watching import VanishingClasses

logger = logging.getLogger(__name__)


class RandomState:
    """Torch's random numbers (dropout) as something a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the CPU generator and of every GPU's."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the states were taken."""
        torch.set_rng_state(state["cpu"].cpu())
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])


class ResumePoint:
    """Keep one file from which training goes on exactly: bit for bit the same on the CPU.

    Saved every ``interval`` epochs, at the end, and when the run is stopped (`Interruption`).

    Args:
        path: File to write.
        state: Name -> object with ``state_dict`` and ``load_state_dict``: model, optimizer, scheduler,
            trainer, random numbers.
        sampler: Numbers the crops; told where to start again.
        interval: Epochs between two savings.
        data: Hashes of what is trained on, by file or kind, which are compared when training goes on; None: not known.
    """

    def __init__(
        self,
        path: str,
        state: Mapping[str, Any],
        sampler: Any,
        interval: int = 1,
        data: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.state = dict(state)
        self.sampler = sampler
        self.interval = interval
        self.data = data

    def attach(self, engine: Engine) -> None:
        """Register the events of the trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.save)
        engine.add_event_handler(Events.COMPLETED, self.save)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._stopped)

    def save(self, engine: Engine) -> None:
        """Write the file."""
        parts = {name: _unwrapped(part).state_dict() for name, part in self.state.items()}
        scaler = getattr(engine, "scaler", None)  # of mixed precision on a GPU
        if scaler is not None:
            parts["scaler"] = scaler.state_dict()
        if self.data is not None:
            parts["data"] = dict(self.data)
        save_atomically({**parts, "trainer": engine.state_dict(), "processes": _processes()}, self.path)

    def load(self, engine: Engine) -> bool:
        """Restore everything from the file; return False where there is none.

        Raises:
            CheckpointError: Another number of processes trained it: each step would have other crops than planned.
            InputError: What is trained on is not what it was when this was written.
        """
        if not self.path.is_file():
            return False
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        _require_as_many_processes(self.path, saved.get("processes", _processes()))
        _require_same_data(self.path, saved.get("data"), self.data)
        max_epochs = engine.state.max_epochs
        for name, target in self.state.items():
            _unwrapped(target).load_state_dict(saved[name])
            if isinstance(target, torch.optim.Optimizer):
                follow_layout(target)
        if getattr(engine, "scaler", None) is not None and saved.get("scaler"):
            engine.scaler.load_state_dict(saved["scaler"])
        engine.load_state_dict({"skipped_steps": 0, **saved["trainer"]})
        engine.state.max_epochs = max_epochs
        logger.info(
            "Resumed at step %d of %s", engine.state.iteration, max_epochs * engine.state.epoch_length
        )
        return True

    def _start(self, engine: Engine) -> None:
        self.sampler.start_step = engine.state.iteration

    def _stopped(self, engine: Engine, error: BaseException) -> None:
        if getattr(error, "resumable", False):
            self.save(engine)
        raise error


def _unwrapped(part: Any) -> Any:
    """Return the network inside the wrapper of distributed training; others as they are."""
    return getattr(part, "module", part)


def _require_as_many_processes(path: Path, found: int) -> None:
    if found != _processes():
        msg = f"{path} was written by {found} process{'es' if found > 1 else ''}; {_processes()} would go on from it."
        again = f"the command of torchrun that began it (--nproc_per_node={found}), and --resume true"
        way = again if found > 1 else "one process"
        raise CheckpointError(msg, f"Go on with {way}, or begin another run.")


def _require_same_data(path: Path, before: Mapping[str, str] | None, now: Mapping[str, str] | None) -> None:
    if before is None or now is None:  # written by an earlier version
        return
    require_same_hashes(before, now, f"{path} was written")


def follow_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay the moments of an optimizer out in memory as its weights are.

    A fused step on a CPU goes through both by their place in memory: moments that were saved with another layout would
    be those of other weights (torch 2.13).
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


class BestModelSaver:
    """Write the model with the best validation metric, or the last one where nothing is validated.

    Args:
        path: File to write.
        model: Network whose weights are saved.
        card: Facts about the model (`medssl.io.checkpoint.ModelCard`), saved with it.
        evaluator: Engine that validates.
        begin: Steps up to here are forgotten once a later one was validated: those before unlabeled data come in,
            whose network would be labeled-only under the name of another method.
        vanishing: Knows the classes that the predictions have lost.

    Attributes:
        best: The metric of what is saved, None where nothing was validated.
        step: After which it was saved; None where an earlier version saved it.
        vanished: The classes that were lost then.
    """

    def __init__(
        self,
        path: str,
        model: torch.nn.Module,
        card: Any,
        evaluator: Engine,
        begin: int = 0,
        vanishing: VanishingClasses | None = None,
    ) -> None:
        self.path = Path(path)
        self.model = model
        self.card = card
        self.begin, self.vanishing = begin, vanishing
        self.best: float | None = None
        self.step: int | None = 0
        self.vanished: list[str] = []
        self._trainer: Engine | None = None
        evaluator.add_event_handler(Events.COMPLETED, self._validated)

    def attach(self, engine: Engine) -> None:
        """Register the end of training."""
        self._trainer = engine
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def state_dict(self) -> dict[str, Any]:
        """Return the best metric so far, when it was reached, and the classes that were lost then and are lost now."""
        now = [] if self.vanishing is None else self.vanishing.vanished
        told = {"best": self.best, "step": self.step, "begin": self.begin}
        return {**told, "vanished": list(self.vanished), "vanished_now": list(now)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the best metric of the run that is resumed."""
        self.best = state["best"]
        self.step, self.begin = state.get("step"), state.get("begin", self.begin)
        self.vanished = list(state.get("vanished", ()))
        if self.vanishing is not None:
            self.vanishing.vanished = list(state.get("vanished_now", ()))

    def _validated(self, evaluator: Engine) -> None:
        metric = float(evaluator.state.metrics[evaluator.state.key_metric_name])
        self._forget_labels_alone()
        if not math.isnan(metric) and (self.best is None or metric > self.best):
            self.best = metric
            self._save()

    def finish(self, engine: Engine | None = None) -> None:
        """Save the last step where nothing was validated."""
        self._forget_labels_alone()
        if self.best is None:
            self._save()

    def _forget_labels_alone(self) -> None:
        if self.step is not None and self.step <= self.begin < self._now():
            self.best = None

    def _now(self) -> int:
        return 0 if self._trainer is None else int(self._trainer.state.iteration)

    def _save(self) -> None:
        self.step = self._now()
        self.vanished = [] if self.vanishing is None else list(self.vanishing.vanished)
        save_atomically(self.card.attached_to(_unwrapped(self.model).state_dict()), self.path)


def save_atomically(content: Mapping[str, Any], path: Path, *, every_process: bool = False) -> None:
    """Write a checkpoint so that the name holds either the old or the new one, never half of it.

    Args:
        content: What to save.
        path: Where.
        every_process: In distributed training each process saves; without it only the first one does.
    """
    if torch_rank() != 0 and not every_process:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(content, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def torch_rank() -> int:
    """Return the number of this process in distributed training, 0 without."""
    return torch.distributed.get_rank() if is_distributed() else 0


def _processes() -> int:
    return torch.distributed.get_world_size() if is_distributed() else 1


def is_distributed() -> bool:
    """Tell whether several processes train together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def share_buffers(network: torch.nn.Module) -> None:
    """Give every process the batch norm statistics of the first: after a step each has those of its own crops."""
    if is_distributed():
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, 0)
