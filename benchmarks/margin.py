"""Measure what a margin around the brain's box, or windows, cost and change: packaged weights, simulated scans.

    python benchmarks/margin.py --json margin.json

Scans of 1 mm are laid into 144 x 192 x 256 voxels. Each margin, and overlapping windows on the brain's box, are held to
the whole volume in one pass: share of the brain's voxels with another label, and how far the mean Dice against the
true labels moves. All take turns, after one run of each that is not timed. `--quick` takes one coarse scan and small
margins, to see that everything runs. A run of one's own on its test scans, which are taken as they are:

    python benchmarks/margin.py --model demo/run --data demo/cohort --window 32 --window 48 --json margin_demo.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from inference import dices, fastest_in_float32, machine, windows_in, with_backend
from torch import Tensor
from torch.nn import functional as F

from medssl.inference import windows
from medssl.inference.plan import Box, box_of, region_around
from medssl.inference.predictor import Prediction
from medssl.io.cohort import item, read_cohort
from medssl.transforms import preprocessing
from medssl.workflows.models import Model, load_model, quiet_libraries
from medssl.workflows.simulate import simulate_cohort

MARGINS = (0, 16, 32, 48)
WHOLE = 1000
"""A margin beyond every volume."""

CUT = "0, scan cut at the brain"
"""No margin, and a box that begins at the brain's first voxel instead of a multiple of the network's."""

OVERLAPS = (0.25, 0.5)

WINDOWS = ((48, 0.25), (64, 0.25), (64, 0.5))
"""Sides, and the share of them that the next window covers again; the packaged weights come from crops of 48^3."""

VOLUME = (144, 192, 256)
SEED = 7


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--scans", type=int, default=3, help="simulated scans")
    parser.add_argument("--repeats", type=int, default=2, help="timed runs of each margin and scan")
    parser.add_argument("--model", type=Path, help="run or bundle instead of the packaged weights")
    parser.add_argument(
        "--data", type=Path, help="cohort whose test scans are taken instead of simulated ones"
    )
    parser.add_argument(
        "--window", type=int, action="append", help="side of windows, each with both overlaps"
    )
    parser.add_argument("--quick", action="store_true", help="one coarse scan, one run")
    arguments = parser.parse_args()
    quiet_libraries()
    model, pair, load = load_model(arguments.model), fastest_in_float32(), os.getloadavg()
    windows_wanted = [(side, share) for side in arguments.window or () for share in OVERLAPS]
    ways: tuple[Way, ...] = (CUT, *MARGINS, WHOLE, *(windows_wanted or WINDOWS))
    volume, repeats = VOLUME, arguments.repeats
    count, spacing = arguments.scans, 1.0
    if arguments.quick:
        ways, volume, repeats, count, spacing = (CUT, 0, 16, WHOLE, (32, 0.25)), (64, 96, 80), 1, 1, 3.0
    found: dict[Way, list[dict[str, float]]] = {way: [] for way in ways}
    if arguments.data:
        samples = test_scans(model, arguments.data)
        count = len(samples)
    else:
        samples = simulated(model, count, spacing, volume)
    for image, mask, truth in samples:
        measured = {way: run(model, pair, way, image, mask, repeats) for way in ways}
        for way, (answer, seconds) in measured.items():
            found[way].append(compared(answer, measured[WHOLE][0], mask, truth) | {
                "seconds": seconds,
                "times_whole": seconds / measured[WHOLE][1],
                "million_voxels": voxels_read(mask, way, model.network.multiple) / 1e6,
            })  # fmt: skip
    report = {
        "command": "benchmarks/margin.py",
        "machine": {**machine(), "threads": torch.get_num_threads(), "load_average": load,
                    "load_average_at_the_end": os.getloadavg()},
        "backend": " ".join(pair), "scans": count, "seed": SEED,
        "volume": samples[0][0].shape[1:], "simulated": arguments.data is None,
        "rows": [{"margin": name(way), **summary(rows)} for way, rows in found.items()],
    }  # fmt: skip
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


Way = int | str | tuple[int, float]
"""A margin, `CUT`, or the side of windows and their overlap."""


def name(way: Way) -> str:
    """Return what stands in the table."""
    if way == WHOLE:
        return "whole volume"
    return f"windows of {way[0]}, overlap {way[1]:g}" if isinstance(way, tuple) else str(way)


def simulated(
    model: Model, count: int, spacing: float, volume: tuple[int, ...]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return simulated scans in the network's space, each with its mask and its true labels."""
    with tempfile.TemporaryDirectory() as folder:
        place = simulate_cohort(Path(folder) / "cohort", count, count, 0, SEED, spacing=spacing)
        subjects = read_cohort(place, model.contrasts, model.table).training
        return prepared(model, subjects, (spacing,) * 3, volume)


def test_scans(model: Model, data: Path) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the test scans of a cohort, each with its mask and its true labels."""
    return prepared(model, read_cohort(data, model.contrasts, model.table).section("test"))


def prepared(
    model: Model,
    subjects: Iterable[Any],
    spacing: tuple[float, ...] | None = None,
    volume: tuple[int, ...] = (),
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return scans in the network's space, or another spacing, in the middle of a volume where one is given."""
    prepare = preprocessing(table=model.table, spacing=spacing or model.spacing)
    ready = []
    for one in subjects:
        sample = prepare({**item(one), "resample": False})
        parts = [sample[key].as_tensor().float() for key in ("image", "mask", "label")]
        image, mask, label = (padded(part, volume) if volume else part for part in parts)
        ready.append((image, mask[0] > 0.5, label[0].long()))
    return ready


def voxels_read(mask: Tensor, way: Way, multiple: int) -> int:
    """Return how many voxels the network reads for a scan, those of each window counted."""
    margin, box = way if isinstance(way, int) else 0, box_of(mask)
    if way == CUT:
        box = box.relative_to(box)
    region = region_around(box, tuple(mask.shape), margin=margin, multiple=multiple)
    if not isinstance(way, tuple):
        return region.voxels
    return windows_in(region.shape, *way) * prod(min(way[0], side) for side in region.shape)


def padded(volume: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Lay a volume into the middle of a larger one of zeros."""
    pads: list[int] = []
    for side, whole in zip(reversed(volume.shape[1:]), reversed(shape), strict=True):
        before = max(0, whole - side) // 2
        pads += [before, max(0, whole - side) - before]
    return F.pad(volume, pads)


def at_the_brain(predict: Callable[[Tensor, Tensor], Prediction], image: Tensor, mask: Tensor) -> Prediction:
    """Predict a scan that is cut so that it begins where the brain does: its box need be no wider than the brain.

    Else a box begins at a multiple of the network's, counted from the scan's first voxel.
    """
    box, shape = box_of(mask), tuple(mask.shape)
    rest = Box(box.start, shape).slices
    found = predict(image[(slice(None), *rest)], mask[rest])
    ends = [tuple(map(sum, zip(box.start, end, strict=True))) for end in (found.box.start, found.box.stop)]
    return Prediction(found.inside, Box(*ends), shape)


def run(
    model: Model, pair: tuple[str, str], way: Way, image: Tensor, mask: Tensor, repeats: int
) -> tuple[Tensor, float]:
    """Return the labels and the least time of several runs behind a first one."""
    predictor = with_backend(model.network, *pair, way if isinstance(way, int) else 0)
    if isinstance(way, tuple):
        predictor.window, windows.OVERLAP = way
    predict = partial(at_the_brain, predictor.predict_box) if way == CUT else predictor.predict_box
    found: Prediction = predict(image, mask)
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        predict(image, mask)
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
            "median": statistics.median(row[name] for row in rows),
            "mean": statistics.mean(row[name] for row in rows),
            "max": max(row[name] for row in rows),
        }
        for name in rows[0]
    }


if __name__ == "__main__":
    main()
