"""Measure what the margin around the brain's box costs and changes: packaged weights, simulated scans.

    python benchmarks/margin.py --json margin.json

Scans of 1 mm are laid into 144 x 192 x 256 voxels. Each margin is held to the whole volume in one pass: share of the
brain's voxels with another label, and how far the mean Dice against the true labels moves. Margins take turns, after
one run of each that is not timed. `--quick` takes one coarse scan and small margins, to see that everything runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from inference import dices, fastest_in_float32, machine, with_backend
from torch import Tensor
from torch.nn import functional as F

from medssl.inference.plan import box_of, region_around
from medssl.inference.predictor import Prediction
from medssl.io.cohort import item, read_cohort
from medssl.transforms import preprocessing
from medssl.workflows.models import Model, load_model, quiet_libraries
from medssl.workflows.simulate import simulate_cohort

MARGINS = (0, 16, 32, 48)
WHOLE = 1000
"""A margin beyond every volume."""

VOLUME = (144, 192, 256)
SEED = 7


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--scans", type=int, default=3, help="simulated scans")
    parser.add_argument("--repeats", type=int, default=2, help="timed runs of each margin and scan")
    parser.add_argument("--quick", action="store_true", help="one coarse scan, one run")
    arguments = parser.parse_args()
    quiet_libraries()
    model, pair, load = load_model(), fastest_in_float32(), os.getloadavg()
    margins, volume, repeats = (*MARGINS, WHOLE), VOLUME, arguments.repeats
    count, spacing = arguments.scans, 1.0
    if arguments.quick:
        margins, volume, repeats, count, spacing = (0, 16, WHOLE), (64, 96, 80), 1, 1, 3.0
    found: dict[int, list[dict[str, float]]] = {margin: [] for margin in margins}
    for image, mask, truth in scans(model, count, spacing, volume):
        measured = {margin: run(model, pair, margin, image, mask, repeats) for margin in margins}
        for margin, (answer, seconds) in measured.items():
            found[margin].append(compared(answer, measured[WHOLE][0], mask, truth) | {
                "seconds": seconds,
                "times_whole": seconds / measured[WHOLE][1],
                "million_voxels": voxels_read(mask, margin, model.network.multiple) / 1e6,
            })  # fmt: skip
    report = {
        "command": "benchmarks/margin.py",
        "machine": {**machine(), "threads": torch.get_num_threads(), "load_average": load,
                    "load_average_at_the_end": os.getloadavg()},
        "backend": " ".join(pair), "scans": count, "seed": SEED, "volume": volume,
        "rows": [{"margin": margin, **summary(rows)} for margin, rows in found.items()],
    }  # fmt: skip
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def scans(
    model: Model, count: int, spacing: float, volume: tuple[int, ...]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return simulated scans in the network's space, each with its mask and its true labels."""
    ready = []
    prepare = preprocessing(table=model.table, spacing=(spacing,) * 3)
    with tempfile.TemporaryDirectory() as folder:
        place = simulate_cohort(Path(folder) / "cohort", count, count, 0, SEED, spacing=spacing)
        for one in read_cohort(place, model.contrasts, model.table).training:
            sample = prepare({**item(one), "resample": False})
            parts = [sample[name].as_tensor() for name in ("image", "mask", "label")]
            image, mask, label = (padded(part.float(), volume) for part in parts)
            ready.append((image, mask[0] > 0.5, label[0].long()))
    return ready


def voxels_read(mask: Tensor, margin: int, multiple: int) -> int:
    """Return how many voxels of a scan the network reads."""
    return region_around(box_of(mask), tuple(mask.shape), margin=margin, multiple=multiple).voxels


def padded(volume: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Lay a volume into the middle of a larger one of zeros."""
    pads: list[int] = []
    for side, whole in zip(reversed(volume.shape[1:]), reversed(shape), strict=True):
        before = max(0, whole - side) // 2
        pads += [before, max(0, whole - side) - before]
    return F.pad(volume, pads)


def run(
    model: Model, pair: tuple[str, str], margin: int, image: Tensor, mask: Tensor, repeats: int
) -> tuple[Tensor, float]:
    """Return the labels and the least time of several runs behind a first one."""
    predictor = with_backend(model.network, *pair, margin)
    found: Prediction = predictor.predict_box(image, mask)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        predictor.predict_box(image, mask)
        seconds.append(time.perf_counter() - begin)
    return found.whole(), min(seconds)


def compared(answer: Tensor, whole: Tensor, mask: Tensor, truth: Tensor) -> dict[str, float]:
    """Hold an answer to that of the whole volume, and both to the truth."""
    here, there, expected = answer[:, mask], whole[:, mask], truth[mask]
    return {
        "labels_changed_percent": 100 * float((here.argmax(0) != there.argmax(0)).float().mean()),
        "dice": statistics.mean(dices(here, expected)),
        "dice_difference": statistics.mean(dices(here, expected)) - statistics.mean(dices(there, expected)),
    }


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Return least, mean and largest over the scans."""
    return {
        name: {
            "min": min(row[name] for row in rows),
            "mean": statistics.mean(row[name] for row in rows),
            "max": max(row[name] for row in rows),
        }
        for name in rows[0]
    }


if __name__ == "__main__":
    main()
