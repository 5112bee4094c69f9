"""Write the tables of docs/classification.md from the JSON of the benchmarks, between their markers.

    python benchmarks/classification_tables.py

Reads `compact_networks.json`, `mnist.json`, `mednist.json` and `training.json` in benchmarks/results. All protocols are
reconstructed, not the authors'.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from classification import METHODS, TASKS
from performance_tables import ROOT, markdown, replaced

from medssl.networks.compact import NETWORKS
from medssl.transforms.image_views import VIEW_PRESETS

Row = Mapping[str, Any]

SUPERVISED = "supervised"
LABELS, SEEDS, NETWORKS_ASKED = 5, 3, 2
"""A class, and the least number of each in the table of all methods."""

STANDARD = "resnet50"
"""The network of standard size, beside which small ones are looked at with a few methods only."""

MNIST_SEEDS = 5
"""Seeds without which an aim is not met."""

AFTERWARDS = " (chosen afterwards)"
"""Said of a method that was picked among several by the test images that its score stands for."""

ALONE = " (no other method was run)"
"""Said of the best of one."""

PROTOCOL = "Reconstructed protocol, not the authors'.\n\n"


def main() -> None:
    """Replace the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON"
    )
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "classification.md", help="page to change"
    )
    arguments = parser.parse_args()
    compact, mnist, mednist, training = (
        json.loads((arguments.results / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("compact_networks", "mnist", "mednist", "training")
    )
    text = arguments.page.read_text(encoding="utf-8")
    text = replaced(text, "networks", networks(compact))
    text = replaced(text, "mednist", methods_table(mednist["runs"]))
    text = replaced(text, "standard", standard_table(mednist["runs"], compact))
    text = replaced(text, "marks", marks(compact, mnist["runs"], mednist["runs"], training["rows"]))
    arguments.page.write_text(text, encoding="utf-8")


def networks(report: Row) -> str:
    """Sizes of each network, and how many times as fast one form is as another."""
    rows = [row for row in report["rows"].values() if not row["failed"]]
    loads = [row["load_average"] for row in rows]
    said = (
        f"{report['machine']['processor']}, {report['machine']['cores']} cores; load average {min(loads):.1f} to "
        f"{max(loads):.1f}. Weights: {report['weights']}.\n\n"
    )
    head = ("network", "M parameters (backbone)", "MB float32 / int8", "onnxruntime against torch",
            "int8 against float32", "fastest form against torch")  # fmt: skip
    lines = [
        (
            row["name"],
            f"{row['parameters'] / 1e6:.1f}",
            f"{row['float32_mb']:.1f} / {row['int8_mb']:.1f}",
            *(f"{gain:.1f} x" for gain in (runtime_gain(row), row["int8_gain"], best_gain(row))),
        )
        for row in rows
    ]
    return PROTOCOL + said + markdown(head, lines)


def milliseconds(row: Row) -> dict[str, float]:
    """Return the median of each form with one thread and one image."""
    return {one["name"]: one["p50_ms"] for one in row["latency"] if one["threads"] == 1 and one["batch"] == 1}


def runtime_gain(row: Row) -> float:
    """Return how many times as fast onnxruntime is as torch, both in float32."""
    found = milliseconds(row)
    return found["torch float32"] / found["onnxruntime float32"]


def best_gain(row: Row) -> float:
    """Return how many times as fast the fastest form is as torch in float32."""
    found = milliseconds(row)
    return found["torch float32"] / min(found.values())


def methods_table(runs: Sequence[Row]) -> str:
    """Macro F1 of each method and network: mean and spread of the seeds, and seeds in which it beats supervised."""
    runs = with_small_networks(runs)
    networks = list(dict.fromkeys(run["network"] for run in runs))
    if not networks:
        return "Not run.\n"
    lines = [
        (
            method,
            *(
                _of_arm(f1_of(runs, network, method), f1_of(runs, network, SUPERVISED))
                for network in networks
            ),
        )
        for method in METHODS
        if any(f1_of(runs, network, method) for network in networks)
    ]
    return PROTOCOL + markdown(("method", *networks), lines)


def standard_table(runs: Sequence[Row], compact: Row) -> str:
    """Macro F1 and size of a file: a network of standard size, and small ones in 8 bits with the methods it has."""
    plain = of_the_task(runs, LABELS)
    large = [run for run in plain if run["network"] == STANDARD]
    if not large:
        return "Not run.\n"
    methods = {run["method"] for run in large}
    small = [
        run for run in of_the_task(runs, LABELS, int8=True) if run["method"] in methods and "int8_mb" in run
    ]
    lines = []
    for network, method in dict.fromkeys((run["network"], run["method"]) for run in [*large, *small]):
        found = f1_of(plain, network, method)
        sizes, values = f"{compact['rows'][network]['float32_mb']:.1f}", _of_arm(found, found)
        eight = [run for run in small if (run["network"], run["method"]) == (network, method)]
        if eight:
            found = f1_of(small, network, method)
            sizes += f" / {statistics.mean(run['int8_mb'] for run in eight):.1f}"
            values += f" / {_of_arm(found, found)}"
        lines.append((network, method, sizes, values))
    head = ("network", "method", "MB float32 / int8", "macro F1, float32 / int8")
    return PROTOCOL + markdown(head, lines)


def with_small_networks(runs: Sequence[Row]) -> list[Row]:
    """Return the runs that all methods are compared by."""
    return [run for run in of_the_task(runs, LABELS) if run["network"] != STANDARD]


def of_the_task(
    runs: Sequence[Row], labels: int, views: Sequence[str] = (), *, int8: bool = False
) -> list[Row]:
    """Return the runs with so many labels a class, the settings as they are, and the most steps of these.

    Args:
        runs: Rows of all runs.
        labels: A class.
        views: Those whose score is of answers averaged over these, beside the images themselves.
        int8: Those whose score is of the 8-bit file.

    Raises:
        ValueError: A network was trained in different precisions: its runs are no spread over seeds.
    """
    runs = [run for run in runs if run["labels_per_class"] == labels and not run["set"]]
    runs = [run for run in runs if ((run.get("views") or []), bool(run.get("int8"))) == (list(views), int8)]
    runs = [run for run in runs if run["steps"] == max(one["steps"] for one in runs)]
    precisions = {(run["network"], run.get("precision", "float32")) for run in runs}
    if len(precisions) > len({network for network, _ in precisions}):
        msg = f"Runs of one network in different precisions: {sorted(precisions)}. Keep those of one."
        raise ValueError(msg)
    return runs


def f1_of(runs: Sequence[Row], network: str, method: str) -> dict[int, float]:
    """Return seed -> macro F1 in percent."""
    return {
        run["seed"]: 100 * run["macro_f1"]
        for run in runs
        if (run["network"], run["method"]) == (network, method)
    }


def _of_arm(found: Mapping[int, float], supervised: Mapping[int, float]) -> str:
    if not found:
        return "not run"
    values = list(found.values())
    spread = f"sd {statistics.stdev(values):.1f}, " if len(values) > 1 else ""
    better, both = ahead(found, supervised)
    beside = "" if found == supervised or not both else f", above supervised in {better} of {both}"
    return f"{statistics.mean(values):.1f} ({spread}n = {len(values)}{beside})"


def ahead(found: Mapping[int, float], supervised: Mapping[int, float]) -> tuple[int, int]:
    """Return in how many seeds a method is above supervised, and how many both have."""
    both = found.keys() & supervised.keys()
    return sum(found[seed] > supervised[seed] for seed in both), len(both)


def mednist_mark(runs: Sequence[Row]) -> tuple[str, str, str, str]:
    """Tell whether every method ran with two networks and three seeds, and whether the best beats supervised."""
    title = "MedNIST subset, 5 labels a class: macro F1 of all methods, two networks; "
    title += "the best above supervised in every seed"
    runs = with_small_networks(runs)
    networks = list(dict.fromkeys(run["network"] for run in runs))
    cells = {(network, method): f1_of(runs, network, method) for network in networks for method in METHODS}
    done = sum(len(found) >= SEEDS for found in cells.values())
    wanted = max(NETWORKS_ASKED, len(networks)) * len(METHODS)
    if done < wanted:
        return title, "complete", f"{done} of {wanted} cells have {SEEDS} seeds", "open"
    told, good = [], True
    for network in networks:
        own = {method: cells[network, method] for method in METHODS}
        best = max(own, key=lambda method: statistics.mean(own[method].values()))
        better, both = ahead(own[best], own[SUPERVISED])
        good &= better == both
        told.append(f"{network}: {best}{AFTERWARDS} {_of_arm(own[best], own[SUPERVISED])}")
    return title, "complete", "; ".join(told), reached(good)


def marks(compact: Row, mnist: Sequence[Row], mednist: Sequence[Row], training: Sequence[Row]) -> str:
    """What was aimed for, and what is reached."""
    rows = compact["rows"]
    lines = [
        mnist_mark(mnist, 100, 0.46, "SSLDEC, mean test error (paper: .46 %)", "ssldec"),
        mnist_mark(mnist, 10, 1.0, "best method, mean test error", ""),
        mednist_mark(mednist),
        *(int8_mark(rows[name]) for name in ("resnet18", "mobilenetv2_100")),
        latency_mark(rows["resnet18"]),
        *step_marks(training),
        networks_mark(rows.values()),
        ("SVHN", "-", "the data cannot be had here; loader, configuration and command are ready", "-"),
    ]  # fmt: skip
    return PROTOCOL + markdown(("what", "aim", "here", ""), lines)


def mnist_mark(
    all_runs: Sequence[Row], labels: int, aim: float, what: str, method: str
) -> tuple[str, str, str, str]:
    """Compare the method with the least mean error, and supervised beside it, of runs with the most steps.

    Args:
        all_runs: Rows of all runs.
        labels: A class.
        aim: In percent.
        what: For people.
        method: How the names of the methods begin that count.

    Returns:
        What, aim, what is reached, and a word: fewer than `MNIST_SEEDS` can miss an aim, not meet it.
    """
    runs = of_the_task(all_runs, labels)
    title = f"MNIST, {10 * labels:,} labels, the rest of training unlabeled: {what}"
    errors: dict[str, list[float]] = {}
    for run in runs:
        errors.setdefault(run["method"], []).append(100 * run["error"])
    methods = {
        name: found for name, found in errors.items() if name != SUPERVISED and name.startswith(method)
    }
    if not methods:
        return title, f"<= {aim} %", "not run", "open"
    best = min(methods, key=lambda name: statistics.mean(methods[name]))
    picked = AFTERWARDS if len(methods) > 1 else "" if method else ALONE
    told = f"{runs[0]['steps']:,} steps: {best}{picked} "
    told += of_seeds(methods[best])
    if SUPERVISED in errors:
        told += f"; supervised {of_seeds(errors[SUPERVISED])}"
    elif fewer := of_the_task([run for run in all_runs if run["method"] == SUPERVISED], labels):
        told += f"; supervised, {fewer[0]['steps']:,} steps: "
        told += of_seeds([100 * run["error"] for run in fewer])
    word = _mnist_word(methods[best], aim)
    seen = of_the_task(all_runs, labels, VIEW_PRESETS[TASKS["mnist"]["preset"]])
    views = {
        name: [
            100 * run["error"] for run in seen if (run["method"], run["steps"]) == (name, runs[0]["steps"])
        ]
        for name in (best, SUPERVISED)
    }
    if views[best]:
        told += f". Averaged over the preset's views: {best} {of_seeds(views[best])}"
        told += f"; supervised {of_seeds(views[SUPERVISED])}" if views[SUPERVISED] else ""
        word += f"; with views: {_mnist_word(views[best], aim)}"
    return title, f"<= {aim} %", told, word


def _mnist_word(errors: Sequence[float], aim: float) -> str:
    good = round(statistics.mean(errors), 6) <= aim
    return "open" if good and len(errors) < MNIST_SEEDS else reached(good)


def of_seeds(errors: Sequence[float]) -> str:
    """Return mean and spread over seeds."""
    spread = f" (sd {statistics.stdev(errors):.2f}, {len(errors)} seeds)" if len(errors) > 1 else " (1 seed)"
    return f"{statistics.mean(errors):.2f} %{spread}"


def int8_mark(row: Row) -> tuple[str, str, str, str]:
    """Compare int8 with float32 in onnxruntime."""
    share = 100 * row["int8_mb"] / row["float32_mb"]
    here = f"{row['int8_gain']:.1f} x, {share:.0f} %"
    good = row["int8_gain"] >= 2 and share <= 30
    return (
        f"int8 against float32, onnxruntime, one thread, one image: {row['name']}",
        ">= 2 x, file <= 30 %",
        here,
        reached(good),
    )


def latency_mark(row: Row) -> tuple[str, str, str, str]:
    """Compare the fastest form with torch."""
    gain = best_gain(row)
    return f"fastest form against torch: {row['name']}", ">= 3 x", f"{gain:.1f} x", reached(gain >= 3)


def step_marks(training: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """Compare the share of a step outside the network, as `classify train` takes it on a CPU."""
    lines = []
    for row in training:
        if "pictures" not in row or row["arm"].count(",") != 1:  # in 3D, or not as packaged
            continue
        batch = " x ".join(map(str, row["crops"]))
        arm = f"{row['arm'].removeprefix('ours, ')}, {row['network']}, {batch} ({row['pictures']})"
        outside = {name: 100 * row["outside"][name] for name in ("min", "median", "max")}
        here = "{median:.1f} % ({min:.1f} to {max:.1f})".format(**outside)
        lines.append(
            (
                f"`classify train` step outside the network, {arm}",
                "<= 10 %",
                here,
                reached(outside["median"] <= 10),
            )
        )
    return lines


def networks_mark(rows: Collection[Row]) -> tuple[str, str, str, str]:
    """Count the networks that were taken all the way."""
    asked = {facts.name for facts in NETWORKS.values() if facts.family != "test"}
    missing = sorted(asked - {row["name"] for row in rows})
    failed = [row["name"] for row in rows if row["failed"]]
    here = f"{len(rows) - len(failed)} measured; failed: {', '.join(failed) or 'none'}"
    if missing:
        here += f"; not measured: {', '.join(missing)}"
    state = "open" if missing else reached(not failed)
    return "every network: forward, backward, export, int8 or a stated reason", "all", here, state


def reached(good: bool) -> str:
    """Return a word."""
    return "met" if good else "missed"


if __name__ == "__main__":
    main()
