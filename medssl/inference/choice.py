"""Which backend runs the network: the fastest that gives the labels of torch in float32."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from medssl.errors import ConfigError, MedsslError
from medssl.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from medssl.inference.backends.openvino_backend import OpenVinoBackend
from medssl.inference.backends.protocol import PRECISIONS, Backend
from medssl.inference.backends.torch_backend import TorchBackend
from medssl.inference.gate import agreement
from medssl.inference.machine import LIBRARIES, describe, has_bfloat16
from medssl.inference.trials import Trial, Trials, TrialStore

logger = logging.getLogger(__name__)

Made = TypeVar("Made")

BACKENDS = LIBRARIES
REFERENCE = ("torch", "float32")
"""What every other backend is held to."""

NEEDS = {"onnxruntime": ("onnxruntime", "onnx")}
"""Backend -> the libraries it needs; all others need the one they are named after."""

FLOAT32_ONLY = ("onnxruntime",)

TIMED_RUNS = 2
"""After the first run, which is not timed; the least time counts."""


@dataclass(frozen=True)
class Wish:
    """What a user asks for.

    Args:
        backend: "auto", "torch", "openvino" or "onnxruntime".
        precision: "auto", "float32" or "bfloat16".

    Raises:
        ConfigError: There is no such backend or precision, or not together.
    """

    backend: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("backend", self.backend, BACKENDS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in ("auto", *known):
                msg = f"Unknown {kind}: found {value!r}, expected one of {['auto', *known]}."
                raise ConfigError(msg)
        if self.backend in FLOAT32_ONLY and self.precision == "bfloat16":
            msg = f"{self.backend} runs in float32 only."
            raise ConfigError(msg, "Choose --precision float32, or another backend.")


def candidates(wish: Wish, device: torch.device) -> list[tuple[str, str]]:
    """Return the backends and precisions that may be tried, by name.

    A library that is not installed is left out with one line in the log.

    Raises:
        ConfigError: The backend that was asked for is not installed, or does not run on the device.
    """
    names = BACKENDS if wish.backend == "auto" else (wish.backend,)
    if device.type != "cpu":
        if wish.backend not in ("auto", "torch"):
            msg = f"{wish.backend} runs on the CPU: found the device '{device}'."
            raise ConfigError(msg, "Use --device cpu, or --backend torch.")
        names = ("torch",)
    missing = sorted({need for name in names for need in _needs(name) if find_spec(need) is None})
    there = [name for name in names if not set(_needs(name)) & set(missing)]
    if missing and wish.backend != "auto":
        msg = f"The backend {wish.backend} cannot be used: not installed: {', '.join(missing)}."
        raise ConfigError(msg, 'Install it with: pip install "medssl[fast]", or use --backend torch.')
    if missing:
        logger.debug("Backends left out, since these are not installed: %s.", ", ".join(missing))
    if wish.precision == "auto":
        precisions = PRECISIONS if has_bfloat16(device) else ("float32",)
    else:
        precisions = (wish.precision,)
    pairs = [(name, precision) for name in there for precision in precisions]
    return [
        (name, precision) for name, precision in pairs if name not in FLOAT32_ONLY or precision == "float32"
    ]


def _needs(name: str) -> tuple[str, ...]:
    return NEEDS.get(name, (name,))


def build(name: str, precision: str, reference: TorchBackend, folder: Path | None = None) -> Backend:
    """Make a backend for the network of the reference.

    Args:
        name: Of the backend.
        precision: In which it runs.
        reference: torch in float32.
        folder: Where conversions are remembered; None converts every time.

    Raises:
        ImportError: A library is missing.
        ConfigError: The machine cannot do it.
    """
    if (name, precision) == REFERENCE:
        return reference
    if name == "torch":
        return TorchBackend(reference.source, device=reference.device, precision=precision)
    if name == "openvino":
        return OpenVinoBackend(reference.source, precision=precision, folder=folder)
    return OnnxRuntimeBackend(reference.source, precision=precision)


def choose_backend(
    reference: TorchBackend,
    tile: Tensor,
    mask: Tensor,
    wanted: list[tuple[str, str]],
    store: TrialStore | None = None,
    *,
    named: bool = False,
) -> Backend:
    """Return the fastest backend that passes the accuracy gate, torch in float32 if there is none.

    What is not remembered is measured on the tile. Backends that fail or answer otherwise are dropped, with one
    line in the log each.

    Args:
        reference: torch in float32.
        tile: Part of a scan.
        mask: The brain in it; the gate looks nowhere else.
        wanted: What may be chosen from, see `candidates`.
        store: Where measurements are remembered; None measures every time.
        named: Whether the user named the backend: what failed before is tried again then.

    Raises:
        MedsslError: The reference answers NaN or infinity.

    Shapes:
        tile `(1, C, I, J, K)`, mask `(I, J, K)` bool.
    """
    if wanted == [REFERENCE]:
        return reference
    circumstances = {
        **describe(reference.device),
        "voxels_log2": tile[0, 0].numel().bit_length(),
        "deep_window": getattr(reference.source, "deep_window", None),
    }
    known = store.read(circumstances) if store else {}
    bench = _Bench(reference, tile, mask, store.folder if store else None)
    unknown = [pair for pair in wanted if pair not in known or (named and known[pair].failure)]
    if unknown:
        logger.info("Measuring %d backend(s) once for this model on this machine.", len(unknown))
        known = {**known, **bench.measure(unknown)}
        if store:
            store.write(
                circumstances, {pair: trial for pair, trial in known.items() if pair not in bench.passing}
            )
    return _fastest({pair: known[pair] for pair in wanted if pair in known}, bench)


@dataclass
class _Bench:
    """Tries backends on one tile; keeps those it built."""

    reference: TorchBackend
    tile: Tensor
    mask: Tensor
    folder: Path | None = None
    built: dict[tuple[str, str], Backend] = field(default_factory=dict)
    passing: set[tuple[str, str]] = field(default_factory=set)
    """Backends that failed for want of memory or disk, which another time may have."""

    def measure(self, pairs: list[tuple[str, str]]) -> Trials:
        """Time each pair and hold it to the reference."""
        expected = finite(self.reference)(self.tile)[0]
        trials: Trials = {}
        for pair in pairs:
            trials[pair] = trial = self._try(pair, expected)
            if trial.agreement is not None:
                logger.debug("%s: %.3f s a tile; %s.", _name(pair), trial.seconds, trial.agreement)
        return trials

    def get(self, pair: tuple[str, str]) -> Backend:
        """Return a backend.

        Raises:
            _LeftOut: It cannot be made.
        """
        if pair not in self.built:
            self.built[pair] = _attempt(pair, lambda: build(*pair, self.reference, self.folder))
        return self.built[pair]

    def _try(self, pair: tuple[str, str], expected: Tensor) -> Trial:
        try:
            backend = self.get(pair)
            answer = _attempt(pair, lambda: backend(self.tile)[0])
        except _LeftOut as error:
            if _passes(error.__cause__):
                self.passing.add(pair)
            return Trial(*pair, failure=str(error))
        found = agreement(expected, answer, self.mask.to(expected.device))
        if not found.accepted:
            logger.warning("Backend %s dropped: %s against torch in float32.", _name(pair), found)
        seconds = min(_seconds(backend, self.tile) for _ in range(TIMED_RUNS))
        return Trial(*pair, seconds, found)


def _passes(cause: BaseException | None) -> bool:
    """Tell whether a failure is one of memory or disk, which may be free another time."""
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOMEM, errno.ENOSPC)
    text = str(cause).lower()
    return isinstance(cause, MemoryError) or "out of memory" in text or "allocate" in text


class _LeftOut(Exception):
    """A backend cannot be run; the text says why."""


def _attempt(pair: tuple[str, str], action: Callable[[], Made]) -> Made:
    """Return what an action makes.

    Raises:
        _LeftOut: It raises something, which is said in one line.
    """
    try:
        return action()
    except Exception as error:
        logger.debug("Traceback of %s.", _name(pair), exc_info=True)
        logger.warning("Backend %s left out: %s.", _name(pair), _reason(error))
        raise _LeftOut(_reason(error)) from error


def _fastest(trials: Trials, bench: _Bench) -> Backend:
    """Return the fastest accepted backend that can be made; the reference if there is none."""
    accepted = [trial for trial in trials.values() if trial.accepted]
    for trial in sorted(accepted, key=lambda trial: trial.seconds):
        try:
            backend = bench.get(trial.key)
        except _LeftOut:
            continue
        if backend is not bench.reference:
            logger.info("The network is run by %s.", _name(trial.key))
        return backend
    for pair in sorted(trials):
        logger.info("%s is not used: %s.", _name(pair), trials[pair].agreement or trials[pair].failure)
    logger.warning("None of the backends that were asked for can be used; torch in float32 is.")
    return bench.reference


class BackendFailure(Exception):
    """A backend raised something, or its answer is not finite; the text says which."""


def checked(backend: Backend) -> Callable[[Tensor], Tensor]:
    """Return the backend as a function that raises `BackendFailure` where it raises or answers NaN or infinity."""

    def forward(tile: Tensor) -> Tensor:
        try:
            logits = backend(tile)
        except Exception as error:
            raise BackendFailure(_reason(error)) from error
        if not bool(logits.sum().isfinite()):
            msg = "NaN or infinity in its answer"
            raise BackendFailure(msg)
        return logits

    return forward


def finite(reference: TorchBackend) -> Callable[[Tensor], Tensor]:
    """Return the reference as a function that refuses to answer NaN or infinity, which would become background.

    Raises:
        MedsslError: (When called) it would.
    """

    def forward(tile: Tensor) -> Tensor:
        logits = reference(tile)
        if not bool(logits.sum().isfinite()):
            msg = "The network answers NaN or infinity."
            cure = "Look at the scan (medssl check); if all scans fail, the weights are damaged: copy them again."
            raise MedsslError(msg, cure)
        return logits

    return forward


def _seconds(backend: Backend, tile: Tensor) -> float:
    """Return what a pass takes until its answer is there: a GPU works on after the call."""
    _wait_for(backend.device)
    begin = time.perf_counter()
    backend(tile)
    _wait_for(backend.device)
    return time.perf_counter() - begin


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reason(error: Exception) -> str:
    """Return the kind of an error and the first line of its text."""
    return (
        f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0].rstrip('.')}"
    )


def _name(pair: tuple[str, str]) -> str:
    return f"{pair[0]} ({pair[1]})"
