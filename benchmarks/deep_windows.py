"""Which scales of DenseFCN have to see windows of the training's crop, and which may see the whole brain?

    python benchmarks/deep_windows.py --crop 48 --json deep_windows.json
    python benchmarks/deep_windows.py --crop 32 --model demo/run --data demo/cohort --json deep_windows_demo.json

An experiment, not part of the package. The stem and the scales above a given one run in one pass over the brain's box;
that scale and those below run in overlapping windows of the maps above, whose logits are blended with Gaussian weights.
The packaged weights on simulated scans of 1 mm, or a run of one's own on its test scans; torch, float32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from inference import dices, machine
from margin import OVERLAPS, VOLUME, simulated, test_scans
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor

from medssl.inference.plan import box_of, region_around
from medssl.inference.predictor import Predictor
from medssl.inference.rewriting import SlimDenseFCN
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
    network = Predictor(network=model.network).reference.network
    found: dict[str, dict[str, list[float]]] = {}
    for image, mask, truth in samples:
        for name, (logits, seconds) in ways(network, image, mask, arguments.crop).items():
            row = found.setdefault(name, {"dice": [], "seconds": []})
            row["dice"].append(statistics.mean(dices(logits[:, mask], truth[mask])))
            row["seconds"].append(seconds)
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


@torch.inference_mode()
def ways(network: SlimDenseFCN, image: Tensor, mask: Tensor, crop: int) -> dict[str, tuple[Tensor, float]]:
    """Return the logits of each way over the whole volume, and the seconds it took."""
    shape = tuple(mask.shape)
    region = region_around(box_of(mask), shape, margin=0, multiple=network.multiple)
    inside = region.clipped(shape)
    tile = torch.zeros(1, len(image), *region.shape)
    part = (slice(None), *inside.relative_to(region).slices)
    tile[0][part] = image[(slice(None), *inside.slices)]
    tile = tile.contiguous(memory_format=torch.channels_last_3d)
    found = {}
    scales = len(network.ups)
    depths = [(None, 0.0), *((first, share) for first in range(1, scales + 1) for share in OVERLAPS)]
    for first, share in depths:
        name = "all in one pass" if first is None else f"from scale {first} on in windows, {share:g} shared"
        begin = time.perf_counter()
        answer = with_deep_windows(network, tile, crop, share, first or scales + 1)
        seconds = time.perf_counter() - begin
        whole = torch.zeros(answer.shape[1], *shape)
        whole[(slice(None), *inside.slices)] = answer[0][part]
        found[name] = (whole, seconds)
    return found


def with_deep_windows(network: SlimDenseFCN, tile: Tensor, crop: int, share: float, first: int) -> Tensor:
    """Return logits whose scales from `first` on were run in windows.

    Args:
        network: With its logits added up scale by scale.
        tile: The brain's box.
        crop: Side of a window in voxels of the tile.
        share: Of a window's side that the next one covers again.
        first: Number of the first scale that runs in windows, 1 is half the resolution.

    Shapes:
        tile `(1, C, I, J, K)`; return `(1, L, I, J, K)`
    """
    x = network.stem(tile)
    logits = network.last_head(x)
    scales: list[Any] = list(zip(network.downs, network.blocks, network.ups, network.heads, strict=True))
    for down, block, up, head in scales[: first - 1]:
        x = block(down(x))
        logits += head(up(x))
    if first > len(scales):
        return logits
    stride, grid = 2 ** (first - 1), network.multiple // 2 ** (first - 1)
    window = [min(crop // stride, side) for side in x.shape[2:]]
    steps = [max(grid, round(side * (1 - share) / grid) * grid) for side in window]
    total, weight = torch.zeros_like(logits), torch.zeros_like(logits[:, :1])
    for place in dense_patch_slices(x.shape[2:], window, steps):
        y, part = x[(..., *place)].contiguous(memory_format=torch.channels_last_3d), 0.0
        for down, block, up, head in scales[first - 1 :]:
            y = block(down(y))
            part = part + head(up(y))
        fade = compute_importance_map(tuple(side * stride for side in window), mode="gaussian")[None, None]
        at = (..., *(slice(one.start * stride, one.stop * stride) for one in place))
        total[at] += part * fade
        weight[at] += fade
    return logits + total / weight


if __name__ == "__main__":
    main()
