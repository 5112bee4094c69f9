"""Write the tables of docs/performance.md from the JSON of the benchmarks, between their markers.

    python benchmarks/performance_tables.py

Reads the files of `TAUGHT` in benchmarks/results; one that is missing leaves its tables as they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TAUGHT = {
    "inference": ("network", "profile", "openvino_profile"),
    "margin": ("margin",),
    "deep_windows": ("deep_windows",),
    "deep_windows_demo": ("deep_windows_demo",),
    "scaling": ("scaling",),
    "segment_profile": ("segment", "further"),
    "compression": ("compression",),
    "training": ("training",),
    "training_precision": ("training_precision",),
    "freed_memory": ("freed_memory",),
    "bfloat16_gate": ("bfloat16_gate",),
}
"""File -> the tables made from it. A table stands between `<!-- NAME -->` and `<!-- end of NAME -->`."""


def main() -> None:
    """Replace every table whose numbers are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "performance.md", help="page to change")
    arguments = parser.parse_args()
    text = arguments.page.read_text(encoding="utf-8")
    for name, tables in TAUGHT.items():
        path = arguments.results / f"{name}.json"
        if path.is_file():
            report = json.loads(path.read_text(encoding="utf-8"))
            for table in tables:
                text = replaced(text, table, TABLES[table](report))
    arguments.page.write_text(text, encoding="utf-8")


def replaced(text: str, name: str, table: str) -> str:
    """Put a table between its markers.

    Raises:
        SystemExit: The page has no such markers.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        message = f"The page has no place for the table '{name}': expected {begin.strip()} and {end}."
        raise SystemExit(message)
    return f"{before}{begin}{table}{end}{after}"


def network(report: dict[str, Any]) -> str:
    """Every way to run the network, beside ours."""
    median = {row["method"]: row["times_ours"]["median"] for row in report["rows"]}
    stock = [
        median[f"MONAI sliding window {report['window']}^3, overlap {overlap}"] for overlap in (0.5, 0.25)
    ]
    head = ("", "seconds: median (least to largest)", "times ours", "times as fast as MONAI, overlap .5 / .25",
            "GFLOP/s", "of the ceiling", "peak, MiB",
            "labels changed", "Dice")  # fmt: skip
    lines = [
        (
            row["method"],
            seconds(row["seconds"]),
            seconds(row["times_ours"]),
            " / ".join(f"{one / row['times_ours']['median']:.1f}" for one in stock),
            f"{row['gflops']:.0f}",
            percent(row["percent_of_ceiling"]),
            "" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}",
            f"{row['labels_changed_percent']:.3f} %",
            f"{row['mean_dice']:.4f} (differs by at most {row['largest_dice_difference']:.4f})",
        )
        for row in report["rows"]
    ]
    ceilings = ", ".join(
        f"{name} {found['median']:.0f} ({found['min']:.0f} to {found['max']:.0f})"
        for name, found in report["ceiling_gflops"].items()
    )
    loads = [row["load_average"] for row in report["rows"]]
    said = (
        f"{about(report)} Weights: {report['model']}. Volume {by(report['shape'])}, brain "
        f"{by(report['brain_box'])}. A product of two matrices reaches (GFLOP/s): {ceilings}. Load average during the "
        f"runs: {min(load['min'] for load in loads):.1f} to {max(load['max'] for load in loads):.1f}.\n"
    )
    return said + "\n" + markdown(head, lines)


def profile(report: dict[str, Any]) -> str:
    """Where torch's time goes."""
    shares = sorted(report["percent_of_torch_float32"].items(), key=lambda pair: -pair[1])
    return markdown(
        ("part of the network (torch, float32)", "time"), [(name, f"{share:.1f} %") for name, share in shares]
    )


def openvino_profile(report: dict[str, Any]) -> str:
    """Where OpenVINO's time goes, in each precision."""
    precisions = report["percent_of_openvino"]
    first = next(iter(precisions.values()), {})  # none where OpenVINO is not installed
    names = sorted(first, key=lambda name: -first[name])
    return markdown(
        ("part of the network (OpenVINO)", *precisions),
        [(name, *(f"{shares.get(name, 0.0):.1f} %" for shares in precisions.values())) for name in names],
    )


def margin(report: dict[str, Any]) -> str:
    """What the margin around the brain costs and changes."""
    head = (
        "margin",
        "million voxels",
        "time, whole volume = 1: median (least to largest)",
        "labels changed, mean (largest)",
        "mean Dice",
        "Dice moves by at most",
    )
    lines = []
    for row in report["rows"]:
        moved = max(abs(row["dice_difference"][end]) for end in ("min", "max"))
        changed = row["labels_changed_percent"]
        lines.append((
            row["margin"],
            f"{row['million_voxels']['mean']:.2f}",
            seconds(row["times_whole"]),
            f"{changed['mean']:.3f} % ({changed['max']:.3f} %)",
            f"{row['dice']['mean']:.4f}",
            f"{moved:.4f}",
        ))  # fmt: skip
    kind = "simulated scan(s)" if report["simulated"] else "test scan(s) of the run's own cohort"
    said = f"{about(report)} {report['scans']} {kind} in {by(report['volume'])}, {report['backend']}.\n\n"
    return said + markdown(head, lines)


def deep(report: dict[str, Any]) -> str:
    """Which scales see windows, and what comes of it; times are ratios within a scan, since scans differ in size."""
    first = report["rows"][0]["seconds"]

    def times(row: dict[str, Any]) -> str:
        ratios = [a / b for a, b in zip(row["seconds"], first, strict=True)]
        return seconds({"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)})

    lines = [
        (
            row["way"],
            " / ".join(f"{dice:.4f}" for dice in row["dice"]),
            f"{row['mean_dice']:.4f}",
            times(row),
        )
        for row in report["rows"]
    ]
    head = ("", "Dice, scan by scan", "mean", "time, first row = 1: median (least to largest)")
    return f"{about(report)} torch float32.\n\n" + markdown(head, lines)


def scaling(report: dict[str, Any]) -> str:
    """Time and memory against voxels, subjects and processes, and the forecast."""
    voxels, small, large = report["voxels"], report["small_pairs"], report["large_pairs"]
    first = report["first_call"]
    lines = [
        (
            "seconds a million voxels, network alone, least times",
            fit(voxels["seconds_a_million"]),
            voxels["backend"],
        ),
        (
            f"first call, {by(large['shape'])}, backends compared",
            seconds(first["seconds"]),
            f"{first['peak_mib']:.0f} MiB",
        ),
        *(
            (
                f"`medssl segment`, {row['subjects']} pair(s) of {by(part['shape'])}",
                seconds(row["seconds"]),
                f"{row['peak_mib']:.0f} MiB",
            )
            for part in (large, small)
            for row in part["rows"]
        ),
        (f"each further pair of {by(large['shape'])}, s", fit(large["seconds_a_subject"]), ""),
        (f"each further pair of {by(small['shape'])}, s", fit(small["seconds_a_subject"]), ""),
        (f"memory of a further pair of {by(small['shape'])}, MiB", fit(small["mib_a_subject"]), ""),
        *(
            (
                f"{row['processes']} process(es), {row['subjects']} pairs of {by(small['shape'])}",
                seconds(row["seconds"]),
                f"{row['peak_mib_together']:.0f} MiB together",
            )
            for row in report["processes"]
        ),
    ]
    guess = report["forecast"]
    gain = guess["hours_one_process"] / guess["hours_two_processes"]
    told = (
        f"\nA forecast, not a measurement: {guess['subjects']} pairs of {by(large['shape'])} in "
        f"{guess['hours_one_process']:.1f} hours by one process, {guess['hours_two_processes']:.1f} by two "
        f"(which gain {gain:.2f} x on small pairs).\n"
    )
    return (
        f"{about(report)}\n\n"
        + markdown(("", "median (least to largest), or slope of a fit", ""), lines)
        + told
    )


def segment(report: dict[str, Any]) -> str:
    """Where the time of one `medssl segment` goes."""
    said = f"{about(report)} A pair of {by(report['shape'])}, {report['backend']}: {seconds(report['seconds'])} s.\n\n"
    shares = sorted(report["percent"].items(), key=lambda pair: -pair[1])
    return said + markdown(
        ("step of `medssl segment`", "time"), [(name, f"{share:.1f} %") for name, share in shares]
    )


def further(report: dict[str, Any]) -> str:
    """What each step takes for a further pair."""
    found = report["further_pair"]
    whole, busy = found["seconds"], sorted(found["busy_seconds"].items(), key=lambda pair: -pair[1])
    rows = [
        (name, f"{taken:.2f}", f"{100 * taken / whole:.0f} %") for name, taken in busy if taken / whole > 0.01
    ]
    return f"A further pair takes {whole:.2f} s; its steps run beside each other.\n\n" + markdown(
        ("step of a further pair", "seconds", "of those of the pair"), rows
    )


def compression(report: dict[str, Any]) -> str:
    """Ways to read scans and write label maps."""
    lines = [
        (
            what,
            row["way"],
            milliseconds(row["seconds"]),
            f"{row['times_first']:.2f}",
            f"{row['bytes'] / 2**20:.2f}",
        )
        for what in ("reading", "writing")
        for row in report[what]
    ]
    head = ("", "way", "ms: median (least to largest)", "times the first", "MiB that come out")
    return f"{about(report)}\n\n" + markdown(head, lines)


def bfloat16_gate(report: dict[str, Any]) -> str:
    """How near bfloat16 comes to the gate."""
    scans = list(report["rows"][0]["dice_loss"])
    head = (
        "",
        "seconds: median (least to largest)",
        *(f"{scan}: labels changed, 1 - Dice" for scan in scans),
    )
    lines = [
        (
            row["way"],
            seconds(row["seconds"]),
            *(
                f"{row['labels_changed_percent'][scan]:.3f} %, {row['dice_loss'][scan]:.5f}"
                f"{'' if row['accepted'][scan] else ', refused'}"
                for scan in scans
            ),
        )
        for row in report["rows"]
    ]
    return f"{about(report)}\n\n" + markdown(head, lines)


def training(report: dict[str, Any]) -> str:
    """Steps of training beside a plain loop."""
    from training import table_lines  # here: MONAI and torch, for this table alone

    return "\n".join(table_lines(report)) + "\n"


def training_precision(report: dict[str, Any]) -> str:
    """Passes in training by precision and layout."""
    head = (
        "network, crops",
        "way",
        "s, forward and backward: median (least to largest)",
        "times float32",
        "error of the gradients: median, largest",
    )
    lines = [
        (
            f"{row['network']}, {' x '.join(map(str, row['crops']))}",
            row["way"],
            seconds(row["seconds"]),
            seconds(row["times_float32"]),
            ", ".join(
                "no number" if error is None else f"{error:.2g}" for error in row["gradient_error"].values()
            ),
        )
        for row in report["rows"]
    ]
    return f"{about(report)}\n\n" + markdown(head, lines)


def freed_memory(report: dict[str, Any]) -> str:
    """Steps that keep what they free beside steps that return it."""
    head = ("network, batch", "times as long", "system's share before", "peak, MB: before, with")
    lines = [
        (
            name,
            seconds(row["ratio"]),
            percent({key: 100 * value for key, value in row["system"].items()}),
            ", ".join(f"{row['peak_mb'][which]['median']:.0f}" for which in ("plain", "kept")),
        )
        for name, row in report["rows"].items()
    ]
    return f"{report['machine']['processor']}, one thread.\n\n" + markdown(head, lines)


def about(report: dict[str, Any]) -> str:
    """Say where it was measured."""
    machine = report["machine"]
    threads = machine.get("available_threads", machine.get("threads"))
    used = f"{threads} threads, " if threads else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine["backends"].items() if version)
    load = " to ".join(f"{machine[key][0]:.1f}" for key in ("load_average", "load_average_at_the_end"))
    return f"{machine['processor']}, {used}{versions}; load average at the start and the end {load}."


def seconds(found: dict[str, float]) -> str:
    """Return median, least and largest, and of how many where that is known."""
    runs = f", n = {found['runs']}" if "runs" in found else ""
    return f"{found['median']:.2f} ({found['min']:.2f} to {found['max']:.2f}{runs})"


def percent(found: dict[str, float]) -> str:
    """Return median, least and largest of a share."""
    return f"{found['median']:.0f} % ({found['min']:.0f} to {found['max']:.0f})"


def milliseconds(found: dict[str, float]) -> str:
    """Return median, least and largest in thousandths."""
    return f"{1000 * found['median']:.0f} ({1000 * found['min']:.0f} to {1000 * found['max']:.0f})"


def fit(found: dict[str, float | None]) -> str:
    """Return a slope and how well the line fits."""
    fits = found["r_squared"]
    return f"{found['slope']:.3g}" + ("" if fits is None else f" (R² {fits:.4f})")


def by(sides: Iterable[int]) -> str:
    """Return sides as text."""
    return " x ".join(map(str, sides))


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "network": network,
    "profile": profile,
    "openvino_profile": openvino_profile,
    "margin": margin,
    "deep_windows": deep,
    "deep_windows_demo": deep,
    "scaling": scaling,
    "training": training,
    "segment": segment,
    "further": further,
    "compression": compression,
    "bfloat16_gate": bfloat16_gate,
    "training_precision": training_precision,
    "freed_memory": freed_memory,
}


if __name__ == "__main__":
    main()
