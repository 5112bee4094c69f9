"""Measure how time and memory grow: with voxels, with subjects, with processes; forecast a large cohort.

    python benchmarks/scaling.py --json scaling.json

Pairs are a simulated brain, resized to the volume. `medssl segment` runs as a process of its own and is timed from its
start until it has ended, files written; its peak memory is what Linux says of it, 0 elsewhere. Cohorts of 1 to 20
subjects are of small brains, so that the whole ends within minutes; pairs of 144 x 192 x 256 voxels give the time of
one pair and of each further one, and the forecast. The first call of all, which compares the backends, is reported
apart. `--quick` takes small volumes and few subjects, to see that everything runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference import BOX_SHARE, fastest_in_float32, machine, resized_brain, spread, with_backend

from medssl.io.nifti import save_new
from medssl.workflows.models import load_model, quiet_libraries

SIDES = (64, 80, 96, 112, 128, 144, 160)
"""Of the cubes on which time against voxels is measured."""

LEAST_ROUNDS = 5
"""Over the cubes, whatever the repeats: they take little time, and a line is sensitive to one slow minute."""

SUBJECTS = (1, 5, 10, 20)
SMALL, LARGE = (64, 80, 80), (144, 192, 256)
FURTHER = 3
"""Large pairs of one call, beside calls with one."""

COHORT = 1000
"""Subjects of the forecast."""


def main() -> None:
    """Measure, print, write the JSON."""
    arguments = parse()
    quiet_libraries()
    sides, subjects, large, repeats = SIDES, SUBJECTS, LARGE, arguments.repeats
    if arguments.quick:
        sides, subjects, large, repeats = (32, 48, 64), (1, 2), SMALL, 1
    report: dict[str, Any] = {
        "command": "benchmarks/scaling.py",
        "machine": {**machine(), "load_average": os.getloadavg(), "threads": torch.get_num_threads()},
        "voxels": voxels(sides, 1 if arguments.quick else max(LEAST_ROUNDS, repeats)),
    }
    if arguments.voxels_only:
        kept = json.loads(arguments.json.read_text())
        arguments.json.write_text(json.dumps({**kept, "voxels": report["voxels"]}, indent=2) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        report["first_call"] = calls(place, large, [1], 1)[0]
        calls(place, SMALL, [1], 1)  # compares the backends for brains of this size
        report["small_pairs"] = grown(calls(place, SMALL, subjects, repeats), SMALL)
        report["processes"] = processes(place, subjects[-1], repeats)
        report["large_pairs"] = grown(
            calls(place, large, [1, 2 if arguments.quick else FURTHER], repeats), large
        )
    report["forecast"] = forecast(report["large_pairs"], report["processes"])
    report["machine"]["load_average_at_the_end"] = os.getloadavg()
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    parser.add_argument(
        "--voxels-only", action="store_true", help="measure the network on cubes again, keep the rest"
    )
    parser.add_argument("--quick", action="store_true", help="everything small, one run")
    return parser.parse_args()


def voxels(sides: Sequence[int], repeats: int) -> dict[str, Any]:
    """Time the packaged network on cubes, round by round, and fit a line to the least times.

    Least, since a machine that is shared is now and then slower for some seconds, and never faster.
    """
    name, precision = fastest_in_float32()
    predictor = with_backend(load_model().network, name, precision, 0)
    cubes = {side: torch.randn(2, side, side, side) for side in sides}
    seconds: dict[int, list[float]] = {side: [] for side in sides}
    load = os.getloadavg()
    for _ in range(repeats):
        for side, cube in cubes.items():
            predictor.predict_box(cube)  # compiles
            begin = time.perf_counter()
            predictor.predict_box(cube)
            seconds[side].append(time.perf_counter() - begin)
    rows = [{"voxels": side**3, "seconds": spread(found)} for side, found in seconds.items()]
    x, y = [row["voxels"] / 1e6 for row in rows], [row["seconds"]["min"] for row in rows]
    loads = {"load_average": load, "load_average_at_the_end": os.getloadavg()}
    return {"backend": f"{name}, {precision}", "rows": rows, "seconds_a_million": line(x, y), **loads}


def calls(place: Path, shape: Sequence[int], counts: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """Time `medssl segment` on cohorts of pairs, in turn."""
    rows: list[dict[str, Any]] = [{"subjects": count, "seconds": [], "peak_mib": []} for count in counts]
    for _ in range(repeats):
        for row in rows:
            data = cohort(place, shape, row["subjects"])
            (found,) = together([command(data, place)], place, {})
            row["seconds"].append(found[0])
            row["peak_mib"].append(found[1])
    return [{**row, "seconds": spread(row["seconds"]), "peak_mib": max(row["peak_mib"])} for row in rows]


def processes(place: Path, subjects: int, repeats: int) -> list[dict[str, Any]]:
    """Time one process with all threads and two with half of them, in turn, on the same subjects."""
    data, threads = cohort(place, SMALL, subjects), torch.get_num_threads()
    rows: list[dict[str, Any]] = [
        {"processes": count, "subjects": subjects, "seconds": []} for count in (1, 2)
    ]
    for turn in range(repeats + 1):  # the first one compares the backends with half the threads
        for row in rows:
            count = row["processes"]
            shards = [["--shard", f"{part + 1}/{count}"] for part in range(count)]
            environment = {"OMP_NUM_THREADS": str(max(1, threads // count))}
            whole = command(data, place)
            found = together([whole + shard for shard in shards], place, environment)
            row["seconds"] += [max(seconds for seconds, _ in found)] if turn else []
            row["peak_mib_together"] = sum(peak for _, peak in found)
    return [{**row, "seconds": spread(row["seconds"])} for row in rows]


def cohort(place: Path, shape: Sequence[int], subjects: int) -> Path:
    """Write pairs, once; all subjects have the same voxels."""
    folder = place / f"scans-{'x'.join(map(str, shape))}-{subjects}"
    if not folder.exists():
        image, _, mask = resized_brain(tuple(shape))
        for number in range(1, subjects + 1):
            for contrast, values in zip(("T1w", "T2w"), image, strict=True):
                whole = ((500 + 100 * values).clamp_min(1) * mask).numpy().astype(np.int16)
                name = f"sub-{number:02d}"
                save_new(folder / name / "anat" / f"{name}_{contrast}.nii.gz", whole, np.eye(4))
    return folder


def command(data: Path, place: Path) -> list[str]:
    """Return a call of `medssl segment` into a new folder."""
    out = tempfile.mkdtemp(dir=place)
    return [sys.executable, "-m", "medssl", "segment", str(data), "--out", out, "--device", "cpu"]


def together(
    commands: Sequence[Sequence[str]], place: Path, environment: dict[str, str]
) -> list[tuple[float, float]]:
    """Run processes at the same time; return seconds from the start until each has ended, and its peak in MiB."""
    surroundings = {**os.environ, "MEDSSL_CACHE": str(place / "cache"), **environment}
    told = [tempfile.TemporaryFile() for _ in commands]  # noqa: SIM115 (closed below, one by one)
    begin = time.perf_counter()
    running = [
        subprocess.Popen(one, env=surroundings, stdout=subprocess.DEVNULL, stderr=file)
        for one, file in zip(commands, told, strict=True)
    ]
    seconds, peaks = [0.0] * len(running), [0.0] * len(running)
    while not all(seconds):
        for index, process in enumerate(running):
            if not seconds[index]:
                peaks[index] = max(peaks[index], peak_mib(process.pid))
                seconds[index] = 0.0 if process.poll() is None else time.perf_counter() - begin
        time.sleep(0.01)
    for process, file in zip(running, told, strict=True):
        file.seek(0)
        with file:
            if process.returncode:
                raise SystemExit(file.read().decode(errors="replace"))
    return list(zip(seconds, peaks, strict=True))


def peak_mib(process: int) -> float:
    """Return the peak of a process so far; what `wait` says includes the process that started it."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(text.split()[1]) / 2**10 for text in lines if text.startswith("VmHWM")), 0.0)


def grown(rows: list[dict[str, Any]], shape: Sequence[int]) -> dict[str, Any]:
    """Add the lines of time and memory against subjects."""
    counts = [row["subjects"] for row in rows]
    return {
        "shape": list(shape),
        "brain_box": [round(side * share) for side, share in zip(shape, BOX_SHARE, strict=True)],
        "rows": rows,
        "seconds_a_subject": line(counts, medians(rows)),
        "mib_a_subject": line(counts, [row["peak_mib"] for row in rows]),
    }


def forecast(large: dict[str, Any], several: list[dict[str, Any]]) -> dict[str, Any]:
    """Forecast a large cohort from the line through the large pairs; nothing of that size is run."""
    fit = large["seconds_a_subject"]
    one = fit["at_zero"] + COHORT * fit["slope"]
    gain = several[0]["seconds"]["median"] / several[1]["seconds"]["median"]
    return {
        "what": f"forecast from {large['rows'][0]['subjects']} and {large['rows'][-1]['subjects']} pairs, not measured",
        "subjects": COHORT,
        "hours_one_process": one / 3600,
        "hours_two_processes": one / gain / 3600,
    }


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float | None]:
    """Fit a line by least squares; R^2 is None where two points leave nothing to explain."""
    slope, at_zero = np.polyfit(x, y, 1)
    residuals = np.asarray(y) - (at_zero + slope * np.asarray(x))
    spread_of_y = float(np.square(np.asarray(y) - np.mean(y)).sum())
    fits = 1 - float(np.square(residuals).sum()) / spread_of_y if len(x) > 2 and spread_of_y else None
    return {"slope": float(slope), "at_zero": float(at_zero), "r_squared": fits}


def medians(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Return the median seconds of each row."""
    return [row["seconds"]["median"] for row in rows]


if __name__ == "__main__":
    main()
