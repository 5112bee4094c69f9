"""How fast and how large: one image through torch, onnxruntime and OpenVINO, in turn, at 1 to n threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from medssl.errors import ConfigError, InputError
from medssl.inference.machine import cores, library_versions, processor
from medssl.inference.onnx_runner import session
from medssl.inference.openvino_runner import openvino_runner, require_openvino
from medssl.inference.peak_memory import Subject, peak_memory
from medssl.networks.modes import evaluating

logger = logging.getLogger(__name__)

LEAST_WARMUP = 5
LEAST_RUNS = 50
BLOCK = 5
"""Timed runs of a candidate on end, before it is the next one's turn."""

CONVENTION = (
    "one multiply-add counted once, in convolutions, linear layers and attention; torch's counter reports 2"
)
"""How multiply-adds are counted."""


@dataclass(frozen=True)
class Latency:
    """Times of one candidate.

    Attributes:
        name: "torch float32", "onnxruntime int8" ...
        threads: Of the candidate.
        batch: Images a run.
        runs: Timed ones.
        p50_ms: Median.
        p95_ms: 95th percentile.
    """

    name: str
    threads: int
    batch: int
    runs: int
    p50_ms: float
    p95_ms: float

    @property
    def images_per_second(self) -> float:
        """Throughput at the median."""
        return 1000 * self.batch / self.p50_ms


@dataclass(frozen=True)
class Machine:
    """Where times were taken.

    Attributes:
        processor: Its model.
        cores: Those the process may use.
        versions: Library -> version, None where it is not installed.
    """

    processor: str
    cores: int
    versions: Mapping[str, str | None]


@dataclass(frozen=True)
class SpeedGate:
    """Whether int8 is worth it on this machine.

    Attributes:
        float32_ms: Median.
        int8_ms: Median.
    """

    float32_ms: float
    int8_ms: float

    @property
    def passed(self) -> bool:
        """Whether int8 is faster."""
        return self.int8_ms < self.float32_ms

    def __str__(self) -> str:
        times = f"int8 {self.int8_ms:.2f} ms, float32 {self.float32_ms:.2f} ms"
        if self.passed:
            return f"int8 is {self.float32_ms / self.int8_ms:.1f} times as fast on this machine ({times})"
        return f"int8 is not recommended here: it is not faster than float32 on this machine ({times})"


def this_machine() -> Machine:
    """Describe where the times are taken."""
    return Machine(processor(), cores(), library_versions())


@dataclass(frozen=True)
class Forms:
    """The forms of one classifier that are timed; None: not this one.

    Args:
        network: For torch, eager.
        float32: Exported file.
        int8: Exported file in int8.
        openvino: Whether OpenVINO runs the files too; one that it cannot run is left out, with a warning.
    """

    network: nn.Module | None = None
    float32: Path | None = None
    int8: Path | None = None
    openvino: bool = False


def benchmark(
    forms: Forms,
    shape: tuple[int, int, int],
    *,
    threads: Sequence[int] = (1,),
    batch: int = 1,
    warmup: int = LEAST_WARMUP,
    runs: int = LEAST_RUNS,
) -> list[Latency]:
    """Time every form of a classifier, a few runs in turn so that all of them meet the same disturbances.

    Args:
        forms: See `Forms`.
        shape: `(C, H, W)` of an image; noise is classified.
        threads: Numbers of threads to run with.
        batch: Images a run.
        warmup: Runs of each candidate that are not timed, at the beginning; one later, whenever it is its turn.
        runs: Timed runs of each.

    Returns:
        One row a candidate and number of threads.

    Raises:
        ConfigError: Nothing is given to be timed, or a library is missing.
    """
    images = np.random.default_rng(0).random((batch, *shape), dtype=np.float32)
    openvino = _for_openvino(forms, shape)
    found: list[Latency] = []
    before = torch.get_num_threads()
    with evaluating(forms.network or nn.Identity()), torch.inference_mode():
        try:
            for number in threads:
                torch.set_num_threads(number)
                candidates = _candidates(forms, openvino, images, number)
                times = interleaved(candidates, warmup=warmup, runs=runs)
                found += [latency(name, number, batch, seconds) for name, seconds in times.items()]
        finally:
            torch.set_num_threads(before)
    return found


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    *,
    warmup: int = LEAST_WARMUP,
    runs: int = LEAST_RUNS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run all candidates in turn, again and again, a few runs each; return the seconds of each one's timed runs.

    The first run of a turn is not timed: it finds the caches as another candidate left them, which would make the
    times depend on what else is measured.

    Raises:
        ConfigError: There is no candidate, or no run.
    """
    if not candidates or runs < 1 or warmup < 0:
        msg = f"Nothing can be timed: found {len(candidates)} candidates, warmup={warmup}, runs={runs}."
        raise ConfigError(msg, "Give a network or an exported file, and at least one run.")
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for first in range(0, runs, BLOCK):
        for name, candidate in candidates.items():
            for _ in range(max(warmup, 1) if first == 0 else 1):
                candidate()
            for _ in range(min(BLOCK, runs - first)):
                begin = clock()
                candidate()
                seconds[name].append(clock() - begin)
    return seconds


def latency(name: str, threads: int, batch: int, seconds: Sequence[float]) -> Latency:
    """Summarize the times of one candidate."""
    p50, p95 = np.percentile(np.asarray(seconds) * 1000, [50, 95])
    return Latency(name, threads, batch, len(seconds), float(p50), float(p95))


def speed_gate(rows: Sequence[Latency], backend: str = "onnxruntime") -> SpeedGate:
    """Hold int8 against float32 with one thread, or the fewest that were measured, and the smallest batch.

    Raises:
        ConfigError: One of the two was not measured.
    """
    found = {}
    for precision in ("float32", "int8"):
        named = [row for row in rows if row.name == f"{backend} {precision}"]
        if not named:
            msg = f"int8 cannot be held against float32: found no time of {backend} {precision}."
            raise ConfigError(msg, "Measure both.")
        found[precision] = min(named, key=lambda row: (row.batch, row.threads))
    return SpeedGate(found["float32"].p50_ms, found["int8"].p50_ms)


def file_mb(path: Path) -> float:
    """Return the size of a file in MB (10^6 bytes)."""
    return path.stat().st_size / 1e6


def _for_openvino(forms: Forms, shape: tuple[int, int, int]) -> list[Path]:
    """Return the files that OpenVINO is to run and can."""
    if not forms.openvino:
        return []
    require_openvino()
    files = [("float32", forms.float32), ("int8", forms.int8)]
    return [path for precision, path in files if path is not None and _survives(path, shape, precision)]


def _candidates(
    forms: Forms, openvino: Sequence[Path], images: np.ndarray, threads: int
) -> dict[str, Callable[[], object]]:
    candidates: dict[str, Callable[[], object]] = {}
    if forms.network is not None:
        candidates["torch float32"] = partial(forms.network, torch.from_numpy(images))
    for precision, path in (("float32", forms.float32), ("int8", forms.int8)):
        if path is not None:
            candidates[f"onnxruntime {precision}"] = _onnxruntime(path, images, threads)
        if path is not None and path in openvino:
            runner = openvino_runner(path, images.shape, threads)
            candidates[f"openvino {precision}"] = partial(runner, images)
    return candidates


def _onnxruntime(path: Path, images: np.ndarray, threads: int) -> Callable[[], object]:
    runner = session(path, threads)
    return partial(runner.run, None, {runner.get_inputs()[0].name: images})


def _survives(path: Path, shape: tuple[int, int, int], precision: str) -> bool:
    """Tell whether OpenVINO can run a file, tried in another process, since it may end the one it runs in."""
    try:
        peak_memory(Subject("openvino", str(path), shape))
    except InputError as error:
        logger.warning("openvino %s is left out: %s", precision, error)
        return False
    return True
