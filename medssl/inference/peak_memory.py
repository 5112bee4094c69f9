"""The most memory that one image takes, measured in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medssl.errors import ConfigError, InputError

RUNS = 3
"""Images one after the other; the second may still take more than the first."""


@dataclass(frozen=True)
class PeakMemory:
    """Resident memory of a process that classifies one image after the other.

    Attributes:
        peak_mb: The most, in MB (10^6 bytes).
        libraries_mb: What Python and the libraries take before the network is loaded.
    """

    peak_mb: float
    libraries_mb: float


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Args:
        backend: "onnxruntime" or "openvino" for an exported file, "torch" for a network of the registry with random
            weights.
        what: Path of the file, or name of the network.
        shape: `(C, H, W)` of an image.
        classes: Scores of the network; the file knows its own.
        threads: To run with.
    """

    backend: str
    what: str
    shape: tuple[int, int, int]
    classes: int = 2
    threads: int = 1


def peak_memory(subject: Subject) -> PeakMemory:
    """Measure in a fresh process.

    Raises:
        ConfigError: There is no such backend.
        InputError: The process failed; the text ends with what it said last.
    """
    if subject.backend not in _LOADERS:
        msg = f"Unknown backend: found {subject.backend!r}, expected one of {sorted(_LOADERS)}."
        raise ConfigError(msg)
    if subject.backend != "torch":
        subject = replace(subject, what=str(Path(subject.what).resolve()))
    command = [sys.executable, "-m", __name__, json.dumps(asdict(subject))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_import_root())
    if done.returncode:
        msg = f"{subject.backend} could not run {Path(subject.what).name}: {_reason(done)}"
        raise InputError(msg)
    return PeakMemory(**json.loads(done.stdout))


def measure(subject: Subject) -> PeakMemory:
    """Measure in this very process, which should have done nothing else."""
    load = _LOADERS[subject.backend]()
    before = resident_mb("VmHWM")
    run = load(subject)
    image = np.random.default_rng(0).random((1, *subject.shape), dtype=np.float32)
    for _ in range(RUNS):
        run(image)
    return PeakMemory(resident_mb("VmHWM"), before)


def resident_mb(name: str, status: Path = Path("/proc/self/status")) -> float:
    """Return a line of the process status in MB; off Linux what the operating system counts as the peak."""
    if status.is_file():
        lines = (line.split() for line in status.read_text().splitlines())
        return next(int(words[1]) * 1024 / 1e6 for words in lines if words[0] == f"{name}:")
    import resource  # noqa: PLC0415 (not on every system)

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


Run = Callable[[np.ndarray], object]


def _load_onnxruntime() -> Callable[[Subject], Run]:
    from medssl.inference.onnx_runner import session  # noqa: PLC0415 (before memory is counted)

    def load(subject: Subject) -> Run:
        runner = session(Path(subject.what), subject.threads)
        return lambda image: runner.run(None, {runner.get_inputs()[0].name: image})

    return load


def _load_openvino() -> Callable[[Subject], Run]:
    from medssl.inference.openvino_runner import openvino_runner, require_openvino  # noqa: PLC0415

    require_openvino()
    return lambda subject: openvino_runner(Path(subject.what), (1, *subject.shape), subject.threads)


def _load_torch() -> Callable[[Subject], Run]:
    import torch  # noqa: PLC0415

    from medssl.networks.compact import build_classifier, network_facts  # noqa: PLC0415
    from medssl.networks.torchvision_compat import import_timm  # noqa: PLC0415

    import_timm()

    def load(subject: Subject) -> Run:
        torch.set_num_threads(subject.threads)
        channels, side, _ = subject.shape
        size = side if network_facts(subject.what).fixed_size else None
        network = build_classifier(subject.what, subject.classes, channels, size=size).eval()

        def run(image: np.ndarray) -> object:
            with torch.inference_mode():
                return network(torch.from_numpy(image))

        return run

    return load


_LOADERS: dict[str, Callable[[], Callable[[Subject], Run]]] = {
    "onnxruntime": _load_onnxruntime,
    "openvino": _load_openvino,
    "torch": _load_torch,
}


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return the signal that ended a process, or what it said last."""
    if done.returncode < 0:
        return f"the process was ended by {signal.Signals(-done.returncode).name}"
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]


def _import_root() -> Path:
    """Return the folder from which this package is imported."""
    return Path(__file__).resolve().parents[2]


def _subject(values: dict[str, Any]) -> Subject:
    return Subject(**{**values, "shape": tuple(values["shape"])})


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure(_subject(json.loads(sys.argv[1]))))))
