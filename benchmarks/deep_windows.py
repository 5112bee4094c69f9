"""Which scales of DenseFCN have to see windows of the training's crop, and which may see the whole brain?

    python benchmarks/deep_windows.py --crop 48 --json benchmarks/results/deep_windows.json
    python benchmarks/deep_windows.py --crop 32 --model demo/run --data demo/cohort
        --json benchmarks/results/deep_windows_demo.json

The blocks from a given scale on run in windows of the crop's size that stand side by side; everything else sees the
brain's box in one pass. The package does so with the deepest block (`deep_window`). The packaged weights on simulated
scans of 1 mm, or a run of one's own on its test scans; torch, float32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from inference import dices, machine
from margin import VOLUME, simulated, test_scans

from medssl.inference.predictor import Predictor
from medssl.inference.rewriting import SlimDenseFCN
from medssl.networks.windowed import WindowedBlock
from medssl.workflows.models import load_model, quiet_libraries


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--crop", type=int, required=True, help="side of the windows, as in training")
    parser.add_argument("--scans", type=int, default=3, help="simulated scans")
    parser.add_argument("--model", type=Path, help="run or bundle instead of the packaged weights")
    parser.add_argument(
        "--data", type=Path, help="cohort whose test scans are taken instead of simulated ones"
    )
    arguments = parser.parse_args()
    quiet_libraries()
    model, load = load_model(arguments.model), os.getloadavg()
    data = arguments.data
    samples = test_scans(model, data) if data else simulated(model, arguments.scans, 1.0, VOLUME)
    predictor = Predictor(network=model.network)
    found: dict[str, dict[str, list[float]]] = {}
    for image, mask, truth in samples:
        for name, depth, side in ways(len(model.network.blocks), arguments.crop):
            put_windows(predictor.reference.network, depth, side)
            begin = time.perf_counter()
            answer = predictor.predict(image, mask)
            row = found.setdefault(name, {"dice": [], "seconds": []})
            row["seconds"].append(time.perf_counter() - begin)
            row["dice"].append(statistics.mean(dices(answer[:, mask], truth[mask])))
    report = {
        "command": "benchmarks/deep_windows.py",
        "model": "packaged" if arguments.model is None else "a run",
        "crop": arguments.crop,
        "machine": {**machine(), "threads": torch.get_num_threads(), "load_average": load},
        "rows": [
            {"way": name, **row, "mean_dice": statistics.mean(row["dice"])} for name, row in found.items()
        ],
    }
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def ways(scales: int, crop: int) -> Iterator[tuple[str, int, int]]:
    """Yield a name, the first scale in windows (1 is half the resolution), and their side in voxels of the scan."""
    yield "no windows", scales + 1, crop
    for first in range(scales, 0, -1):
        yield f"from scale {first} on", first, crop
    for side in (crop - 16, crop + 16, crop + 32):
        if side >= 32:
            yield f"scale {scales}, windows of {side}", scales, side


def put_windows(network: SlimDenseFCN, first: int, side: int) -> None:
    """Let the blocks from a scale on run in windows of a side, and no others, in place."""
    for number, block in enumerate(network.blocks, 1):
        sides = (side // 2**number,) * 3
        network.blocks[number - 1] = WindowedBlock(*block, window=sides if number >= first else None).eval()


if __name__ == "__main__":
    main()
