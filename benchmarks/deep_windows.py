"""Which scales of DenseFCN have to see windows of the training's crop, and which may see the whole brain?

    python benchmarks/deep_windows.py --crop 48 --json benchmarks/results/deep_windows.json
    python benchmarks/deep_windows.py --crop 32 --model demo/run --data demo/cohort
        --json benchmarks/results/deep_windows_demo.json

The blocks from a given scale on run in windows of the crop's size that stand side by side; everything else sees the
brain's box in one pass. The package does so with the deepest block (`deep_window`). Beside them MONAI's sliding window
over the whole volume, with no block in windows of its own. The packaged weights on simulated scans of 1 mm, or a run of
one's own on its test scans; torch, float32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from inference import dices, machine, stock
from margin import VOLUME, simulated, test_scans
from torch import Tensor

from medssl.inference.predictor import Predictor
from medssl.inference.rewriting import SlimDenseFCN
from medssl.networks.windowed import WindowedBlock
from medssl.workflows.models import load_model, quiet_libraries

STOCK = 64
"""Side of MONAI's windows."""


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
    parser.add_argument("--few", action="store_true", help="the first three ways alone")
    arguments = parser.parse_args()
    quiet_libraries()
    model, load = load_model(arguments.model), os.getloadavg()
    data = arguments.data
    samples = test_scans(model, data) if data else simulated(model, arguments.scans, 1.0, VOLUME)
    predictor = Predictor(network=model.network)
    predictor.predict(*samples[0][:2])  # the first pass is slower
    found: dict[str, dict[str, list[float]]] = {}
    for image, mask, truth in samples:
        for name, predict in islice(ways(predictor, arguments.crop), 3 if arguments.few else None):
            begin = time.perf_counter()
            answer = predict(image, mask)
            row = found.setdefault(name, {"dice": [], "seconds": []})
            row["seconds"].append(time.perf_counter() - begin)
            row["dice"].append(statistics.mean(dices(answer[:, mask], truth[mask])))
    report = {
        "command": "benchmarks/deep_windows.py",
        "model": "packaged" if arguments.model is None else "a run",
        "crop": arguments.crop,
        "machine": {
            **machine(),
            "threads": torch.get_num_threads(),
            "load_average": load,
            "load_average_at_the_end": os.getloadavg(),
        },
        "rows": [
            {"way": name, **row, "mean_dice": statistics.mean(row["dice"])} for name, row in found.items()
        ],
    }
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


Way = Callable[[Tensor, Tensor], Tensor]
"""Maps an image and its mask to probabilities."""


def ways(predictor: Predictor, crop: int) -> Iterator[tuple[str, Way]]:
    """Yield names and what they stand for; each holds until the next one is asked for."""
    network = predictor.reference.network
    scales = len(network.blocks)
    put_windows(network, scales, crop)
    yield f"one pass, scale {scales} in windows of {crop}", predictor.predict
    put_windows(network, scales + 1, crop)
    yield "one pass, no windows", predictor.predict
    for share in (0.25, 0.5):
        yield f"MONAI's windows of {STOCK}, overlap {share:g}", partial(in_windows, network, share)
    for first in range(scales - 1, 0, -1):
        put_windows(network, first, crop)
        yield f"one pass, scales {first} to {scales} in windows of {crop}", predictor.predict
    for side in (crop - 16, crop + 16, crop + 32):
        if side >= 2 * 2**scales:
            put_windows(network, scales, side)
            yield f"one pass, scale {scales} in windows of {side}", predictor.predict


@torch.inference_mode()
def in_windows(network: SlimDenseFCN, share: float, image: Tensor, _: Tensor) -> Tensor:
    """Return the probabilities of MONAI's sliding window over the whole volume."""
    return stock(network, image, STOCK, share).run()


def put_windows(network: SlimDenseFCN, first: int, side: int) -> None:
    """Let the blocks from a scale on run in windows of a side, and no others, in place."""
    for number, block in enumerate(network.blocks, 1):
        sides = (side // 2**number,) * 3
        network.blocks[number - 1] = WindowedBlock(*block, window=sides if number >= first else None).eval()


if __name__ == "__main__":
    main()
