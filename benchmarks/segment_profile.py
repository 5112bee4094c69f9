"""Say where the time of `medssl segment` of one pair goes, from process start to files.

    python benchmarks/segment_profile.py --json segment_profile.json

A pair of 144 x 192 x 256 (a simulated brain, resized), packaged weights, the backend that `auto` takes, pictures drawn.
Each run is the command in a process of its own, in which the steps of the workflow are timed; shares are of the time
until it has ended. The first run, which compares the backends, is not counted. Runs with three pairs tell what each
further pair takes.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

WORKFLOW, OPENVINO = "medssl.workflows.segment", "medssl.inference.backends.openvino_backend"
STEPS = {
    (WORKFLOW, "load_model"): "the model",
    (WORKFLOW, "read_cohort"): "reading the folder",
    (WORKFLOW, "_Job.read"): "reading, preprocessing",
    (WORKFLOW, "_Job.run"): "the network",
    (OPENVINO, "remembered"): "the converted network",
    (OPENVINO, "OpenVinoBackend._compile"): "compiling it for the shape",
    (WORKFLOW, "bring_back"): "labels on the scan's grid",
    (WORKFLOW, "write_labels"): "compressing the label map",
    (WORKFLOW, "_Job.write_picture"): "the picture",
}
"""Module and function -> what it does; one that is called by another does not count there."""

UNTIL = "until"
STARTING, ENDING, REST = "Python and imports", "ending the process", "everything else"
PAIRS = 3
"""Of the cohort whose further pairs are looked at."""


def main() -> None:
    """Run a few processes, print the shares, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--repeats", type=int, default=3, help="runs")
    parser.add_argument("--quick", action="store_true", help="a small pair, one run")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        data, out, started = arguments.child
        segment_timed(Path(data), Path(out), float(started))
        return
    from inference import machine
    from scaling import LARGE, SMALL, cohort

    shape, repeats = (SMALL, 1) if arguments.quick else (LARGE, arguments.repeats)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        data = cohort(Path(folder), shape, 1)
        several = cohort(Path(folder), shape, PAIRS)
        outs = [Path(folder) / f"out-{number}" for number in range(repeats + 1)]
        runs = [run(data, out) for out in outs][1:]
        backend = used(outs[-1])
        more = [run(several, Path(folder) / f"more-{number}") for number in range(repeats)]
    totals = [sum(found.values()) for found in runs]
    report: dict[str, Any] = {
        "command": "benchmarks/segment_profile.py",
        "machine": {**machine(), "load_average": load, "load_average_at_the_end": os.getloadavg()},
        "shape": shape,
        "backend": backend,
        "seconds": {"min": min(totals), "median": statistics.median(totals), "max": max(totals)},
        "further_pair": further(runs, more),
        "percent": {
            name: statistics.median(100 * found[name] / sum(found.values()) for found in runs)
            for name in runs[0]
        },
    }
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def run(data: Path, out: Path) -> dict[str, float]:
    """Segment in a process of its own; return the seconds of each step."""
    started = time.time()
    command = [sys.executable, __file__, "--child", str(data), str(out), repr(started)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    steps = json.loads(told.splitlines()[-1])
    ended = time.time()
    steps[ENDING] = ended - steps.pop(UNTIL)
    return {**steps, REST: ended - started - sum(steps.values())}


def further(one: list[dict[str, float]], several: list[dict[str, float]]) -> dict[str, Any]:
    """Return what each step takes for a further pair; steps run beside each other, so they add up to more than it.

    Args:
        one: Runs with one pair.
        several: Runs with `PAIRS`.
    """

    def slope(of: Callable[[dict[str, float]], float]) -> float:
        ends = [statistics.median(map(of, runs)) for runs in (several, one)]
        return (ends[0] - ends[1]) / (PAIRS - 1)

    return {
        "seconds": slope(lambda found: sum(found.values())),  # the rest is what is left of the whole
        "busy_seconds": {name: slope(lambda found, name=name: found[name]) for name in STEPS.values()},
    }


def used(out: Path) -> str:
    """Return what ran the network of the one subject."""
    (record,) = out.glob("sub-*/anat/*_dseg.json")
    return " ".join(json.loads(record.read_text())["Backend"].values())


def segment_timed(data: Path, out: Path, started: float) -> None:
    """Run the command here, with every step timed; print the seconds as one line when the process ends."""
    from medssl.cli import OWN_PROCESS
    from medssl.cli import main as medssl
    from medssl.workflows.lean_start import READERS, import_monai_lean, without_collections

    with without_collections():  # as the command does, which then finds all of it imported
        import_monai_lean(never=READERS)
        for module in ("medssl.cli.segment", WORKFLOW, OPENVINO):
            importlib.import_module(module)
    spent = dict.fromkeys([STARTING, *STEPS.values()], 0.0)  # some steps are those of one backend alone
    spent[STARTING] = time.time() - started
    within = threading.local()
    for (module, path), name in STEPS.items():
        *owner, function = path.split(".")
        place = importlib.import_module(module)
        place = getattr(place, owner[0]) if owner else place
        setattr(place, function, timed(getattr(place, function), spent, name, within))
    atexit.register(lambda: print(json.dumps({**spent, UNTIL: time.time()}), flush=True))
    os.environ["MEDSSL_CACHE"] = str(out.with_name("cache"))
    medssl(["segment", str(data), "--out", str(out), "--device", "cpu"], "medssl", obj=OWN_PROCESS)


def timed(
    function: Callable[..., Any], spent: dict[str, float], name: str, within: threading.local
) -> Callable[..., Any]:
    """Return the function with its time noted, less that of the timed functions that it calls.

    Args:
        function: What is timed.
        spent: Name -> seconds.
        name: Of the function.
        within: Of the calls of this thread that have not ended, the seconds of what they called, as `calls`.
    """

    @wraps(function)
    def run_timed(*args: Any, **kwargs: Any) -> Any:
        calls = within.__dict__.setdefault("calls", [])
        began = time.time()
        calls.append(0.0)
        try:
            return function(*args, **kwargs)
        finally:
            whole = time.time() - began
            spent[name] += whole - calls.pop()
            calls[-1:] = [calls[-1] + whole] if calls else []

    return run_timed


if __name__ == "__main__":
    main()
