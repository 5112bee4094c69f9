"""Compare ways to read scans and write label maps: levels of gzip, isal, indexed_gzip.

    python benchmarks/compression.py --json compression.json

One simulated 1 mm subject. isal and indexed_gzip are measured where they are installed (neither is needed). Ways take
turns; label maps are those of the subject, which compress far better than scans.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from inference import machine

from medssl.workflows.simulate import simulate_cohort

LEVELS = (1, 3, 6, 9)
"""Of zlib; isal knows 0 to 3."""


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each")
    parser.add_argument("--quick", action="store_true", help="a coarse subject, one run")
    arguments = parser.parse_args()
    repeats = 1 if arguments.quick else arguments.repeats
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        simulate_cohort(Path(folder, "scans"), 1, 1, 0, 0, spacing=3.0 if arguments.quick else 1.0)
        (scan,) = Path(folder).rglob("*T1w.nii.gz")
        (labels,) = Path(folder).rglob("*dseg.nii.gz")
        raw = gzip.decompress(labels.read_bytes())
        report = {
            "command": "benchmarks/compression.py",
            "machine": {**machine(), "load_average": load},
            "reading": taken(readers(scan), repeats),
            "writing": taken(writers(raw), repeats),
            "bytes": {"scan": scan.stat().st_size, "label map": len(raw)},
        }
        report["machine"]["load_average_at_the_end"] = os.getloadavg()
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def readers(scan: Path) -> dict[str, Callable[[], int]]:
    """Return ways to read a compressed scan whole; each returns how many bytes it read."""
    ways = {"gzip (zlib)": lambda: len(gzip.decompress(scan.read_bytes()))}
    if find_spec("isal"):
        igzip = importlib.import_module("isal.igzip")
        ways["isal"] = lambda: len(igzip.decompress(scan.read_bytes()))
    if find_spec("indexed_gzip"):
        indexed = importlib.import_module("indexed_gzip")
        ways["indexed_gzip"] = lambda: len(indexed.IndexedGzipFile(str(scan)).read())
    ways["nibabel, as it reads here"] = lambda: np.asarray(nib.load(scan).dataobj).nbytes
    return ways


def writers(raw: bytes) -> dict[str, Callable[[], int]]:
    """Return ways to compress a label map; each returns the bytes that are left."""
    ways: dict[str, Callable[[], int]] = {
        f"gzip (zlib), level {level}": lambda level=level: len(gzip.compress(raw, level)) for level in LEVELS
    }
    if find_spec("isal"):
        igzip = importlib.import_module("isal.igzip")
        for level in range(4):
            ways[f"isal, level {level}"] = lambda level=level: len(compressed(igzip, raw, level))
    return ways


def compressed(igzip: Any, raw: bytes, level: int) -> bytes:
    """Compress with isal."""
    target = io.BytesIO()
    with igzip.IGzipFile(fileobj=target, mode="wb", compresslevel=level) as stream:
        stream.write(raw)
    return target.getvalue()


def taken(ways: dict[str, Callable[[], int]], repeats: int) -> list[dict[str, Any]]:
    """Time the ways in turn; times are also given as multiples of the first one's."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    sizes = {}
    for _ in range(repeats):
        for name, way in ways.items():
            begin = time.perf_counter()
            sizes[name] = way()
            seconds[name].append(time.perf_counter() - begin)
    first = statistics.median(next(iter(seconds.values())))
    return [
        {
            "way": name,
            "bytes": sizes[name],
            "seconds": {"min": min(some), "median": statistics.median(some), "max": max(some)},
            "times_first": statistics.median(some) / first,
        }
        for name, some in seconds.items()
    ]


if __name__ == "__main__":
    main()
