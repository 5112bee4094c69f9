"""How near bfloat16 comes to the accuracy gate, with none or some convolutions left in float32.

    python benchmarks/bfloat16_gate.py --json benchmarks/results/bfloat16_gate.json

Packaged weights; three simulated scans of 1 mm and the resized brain of `benchmarks/inference.py`, each at the part
that the gate looks at (the middle of the brain, 80 voxels to a side). Measures nothing without bfloat16.
"""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path
from typing import Any

import click
import torch
from inference import SEED, by_simulation, machine, resized_brain, spread
from torch import nn

from medssl.inference.backends.openvino_backend import OpenVinoBackend
from medssl.inference.backends.protocol import Backend
from medssl.inference.backends.torch_backend import PRECISE, TorchBackend, imprecise
from medssl.inference.gate import agreement
from medssl.inference.machine import has_bfloat16
from medssl.inference.predictor import HALO, MARGIN, probe_tile, tiling_for
from medssl.io.files import write_json
from medssl.workflows.models import load_model, quiet_libraries

NEVER = 10**6
WAYS: dict[str, tuple[type, bool, dict[str, Any]]] = {
    "OpenVINO, float32": (OpenVinoBackend, False, {"precision": "float32"}),
    "OpenVINO, bfloat16 throughout, nearest": (OpenVinoBackend, True, {"precise": (), "slow_stride": NEVER}),
    "OpenVINO, first and last convolution in float32, nearest": (
        OpenVinoBackend,
        True,
        {"slow_stride": NEVER},
    ),
    "OpenVINO, and wide transposed ones, nearest": (OpenVinoBackend, True, {}),
    "OpenVINO, and the second, nearest": (OpenVinoBackend, True, {"precise": (0, 1, -1)}),
    "OpenVINO, last and wide transposed ones, sums kept": (OpenVinoBackend, False, {"precise": (-1,)}),
    "OpenVINO, first, last and wide transposed ones, sums kept (in use)": (OpenVinoBackend, False, {}),
    "torch, float32": (TorchBackend, False, {"precision": "float32"}),
    "torch, bfloat16 throughout, nearest": (TorchBackend, True, {"precise": ()}),
    "torch, first and last convolution in float32, nearest": (TorchBackend, True, {}),
    "torch, and the second, nearest": (TorchBackend, True, {"precise": (0, 1, -1)}),
    "torch, first and last, sums kept (in use)": (TorchBackend, False, {}),
}
"""Name -> backend, whether kernels are rounded to the nearest instead of keeping their sums, precision, and which
convolutions stay in float32 in bfloat16: places in the order of the network, strides of transposed ones."""

SCANS = (1, 2, 3)
"""Numbers of the simulated subjects."""

RUNS = 5


@click.command()
@click.option("--json", "out", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Coarse scans, one run, to see that everything runs.")
def main(out: Path | None, quick: bool) -> None:
    """Measure, print, write the JSON."""
    quiet_libraries()
    if not has_bfloat16(torch.device("cpu")):
        print("Nothing to measure: this processor has no bfloat16.")
        return
    load, network = os.getloadavg(), load_model().network
    reference = TorchBackend(network)
    tiling = tiling_for(network, reference.device, margin=MARGIN, halo=HALO, memory_limit=None)
    spacing, shape, runs = (3.0, (64, 80, 80), 1) if quick else (1.0, (144, 192, 256), RUNS)
    scans = {f"simulated {number}": by_simulation(SEED, number, spacing) for number in SCANS}
    image, _, mask = resized_brain(shape)
    parts = {name: probe_tile(*pair, tiling) for name, pair in {**scans, "resized": (image, mask)}.items()}
    expected = {name: reference(tile)[0] for name, (tile, _) in parts.items()}
    first = next(iter(parts.values()))[0]
    backends = {name: made(reference.source, *way) for name, way in WAYS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in backends}
    for turn in range(runs + 1):
        for name, backend in backends.items():
            begin = time.perf_counter()
            backend(first)
            seconds[name] += [time.perf_counter() - begin] if turn else []
    rows: list[dict[str, Any]] = []
    for name, backend in backends.items():
        found = {
            scan: agreement(expected[scan], backend(tile)[0], brain) for scan, (tile, brain) in parts.items()
        }
        rows.append(
            {
                "way": name,
                "seconds": spread(seconds[name]),
                "labels_changed_percent": {scan: 100 * one.changed for scan, one in found.items()},
                "dice_loss": {scan: one.dice_loss for scan, one in found.items()},
                "accepted": {scan: one.accepted for scan, one in found.items()},
            }
        )
        print(rows[-1])
    if out:
        loads = {"load_average": load, "load_average_at_the_end": os.getloadavg()}
        write_json(
            out, {"command": "benchmarks/bfloat16_gate.py", "machine": {**machine(), **loads}, "rows": rows}
        )


def made(network: nn.Module, kind: type, nearest: bool, chosen: dict[str, Any]) -> Backend:
    """Return a backend; weights that bfloat16 holds already are what rounding leaves as they are."""
    precise = chosen.get("precise", PRECISE)
    if nearest:
        network = copy.deepcopy(network)
        with torch.no_grad():
            for name in imprecise(network, precise):
                weight = network.get_submodule(name).weight
                weight.copy_(weight.bfloat16())
    backend: Backend = kind(network, **{"precision": "bfloat16", **chosen})
    return backend


if __name__ == "__main__":
    main()
