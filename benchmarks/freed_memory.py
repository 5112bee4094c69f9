"""Measure what it brings that a training keeps the memory that its steps free.

    python benchmarks/freed_memory.py --json benchmarks/results/freed_memory.json

Every repeat starts two processes one after the other, one with `medssl.engines.KeepFreedMemory` and one without, in
turns; both take the same plain steps (forward, cross-entropy, backward, AdamW) on random input with one thread. Times
are processor times of whole steps, medians of a process; ratios are of the two processes of a repeat.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from ignite.engine import Engine
from inference import machine as machine_facts
from inference import spread
from monai.networks.nets import BasicUNet
from torch import nn

from medssl.engines import KeepFreedMemory
from medssl.io.files import write_json
from medssl.networks import DenseFCN
from medssl.networks.compact import build_classifier
from medssl.workflows.models import quiet_libraries

SHAPES = {
    "vgg-small-28": (256, 1, 28, 28),
    "vgg-small-64": (64, 1, 64, 64),
    "shufflenet_v2_x1_0": (64, 1, 64, 64),
    "basic-unet": (4, 2, 32, 48, 32),
    "dense-fcn": (4, 2, 32, 32, 32),
    "dense-fcn, crops of 48": (2, 2, 48, 48, 48),
}
"""Network -> shape of a batch, as the packaged trainings and the benchmarks have them."""

STEPS, SKIPPED = 14, 4


def main() -> None:
    """Compare all of them, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one network, once")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "KEEP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(steps(arguments.one[0], arguments.one[1] == "keep")))
        return
    report = {"machine": machine_facts(), "rows": {}}
    for name in list(SHAPES)[: 1 if arguments.quick else None]:
        pairs = [pair(name, number) for number in range(1 if arguments.quick else arguments.repeats)]
        shape = " x ".join(map(str, (SHAPES[name][0], *SHAPES[name][2:])))
        row = report["rows"][f"{name.partition(',')[0]}, {shape}"] = {
            "ratio": spread([kept["ms"] / plain["ms"] for plain, kept in pairs]),
            "system": spread([plain["system"] / plain["ms"] for plain, _ in pairs]),
            "peak_mb": {
                key: spread([one[place]["peak_mb"] for one in pairs])
                for place, key in enumerate(("plain", "kept"))
            },
        }
        print(
            f"{name}: {row['ratio']['median']:.2f} of the time, system before {row['system']['median']:.0%}",
            flush=True,
        )
        if arguments.json:
            write_json(arguments.json, report)


def pair(name: str, number: int) -> tuple[dict[str, float], dict[str, float]]:
    """Run both processes, the order changing with the repeat; return plain and kept."""
    order = ("plain", "keep") if number % 2 == 0 else ("keep", "plain")
    found = {}
    for which in order:
        command = [sys.executable, __file__, "--one", name, which]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[which] = json.loads(done.stdout.splitlines()[-1])
    return found["plain"], found["keep"]


def steps(name: str, keep: bool) -> dict[str, float]:
    """Train some steps; return the median time, what of it the system took, and the peak of the memory."""
    quiet_libraries()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, shape = built(name), SHAPES[name]
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    targets = torch.randint(4, (shape[0], *shape[2:]) if len(shape) == 5 else (shape[0],))
    times: list[tuple[float, float]] = []

    def step(engine: Engine, batch: object) -> None:
        began = clock()
        x = torch.rand(shape)
        if len(shape) == 4:
            x = x.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=name.startswith("vgg")):
            scores = network(x)
        scores = scores[0] if isinstance(scores, list | tuple) else scores
        nn.functional.cross_entropy(scores.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append((clock()[0] - began[0], clock()[1] - began[1]))

    engine = Engine(step)
    if keep:
        KeepFreedMemory().attach(engine)
    engine.run([0] * STEPS)
    kept = times[SKIPPED:]
    return {
        "ms": 1000 * statistics.median(total for total, _ in kept),
        "system": 1000 * statistics.median(system for _, system in kept),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def clock() -> tuple[float, float]:
    """Return the processor time of this process so far, and what of it the system took, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_stime


def built(name: str) -> nn.Module:
    """Return a network of `SHAPES` with four outputs."""
    if name.startswith("dense-fcn"):
        return DenseFCN(in_channels=2, out_channels=4)
    if name == "basic-unet":
        return BasicUNet(3, 2, 4, features=(16, 16, 32, 64, 128, 16))
    _, channels, side, _ = SHAPES[name]
    return build_classifier(name, 4, channels, size=side).to(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
