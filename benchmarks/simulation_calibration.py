"""Measure how near the simulated cohort comes to real scans at 6 months, and how long a subject takes.

Example:
    python benchmarks/simulation_calibration.py --subjects 6 --json calibration.json
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from medssl.simulation.calibration import TARGETS, measure
from medssl.simulation.cohort import simulate_subject
from medssl.simulation.template import cerebrum_template


@click.command()
@click.option("--subjects", default=6, show_default=True, help="How many subjects to measure.")
@click.option("--seed", default=0, show_default=True, help="Seed of the cohort.")
@click.option("--spacing", default=1.0, show_default=True, help="Voxel size in mm.")
@click.option("--site", default="A", show_default=True, help="Simulated site.")
@click.option("--age-months", default=6.0, show_default=True, help="Age at the scan.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all numbers to this file.")
def main(
    subjects: int, seed: int, spacing: float, site: str, age_months: float, json_path: Path | None
) -> None:
    """Measure tissue shares, histogram overlaps, the voxelwise ceiling and the time a subject takes."""
    started = time.perf_counter()
    cerebrum_template()
    template_s = time.perf_counter() - started
    measured = []
    for number in range(1, subjects + 1):
        started = time.perf_counter()
        subject = simulate_subject(seed, number, spacing, site, age_months)
        seconds = time.perf_counter() - started
        measured.append({"subject": number, "seconds": seconds, **measure(subject.images, subject.label)})
    summary = {
        name: {
            "mean": statistics.fmean(row[name] for row in measured),
            "sd": statistics.pstdev(row[name] for row in measured),
        }
        for name in measured[0]
        if name != "subject"
    }
    _show(summary, template_s)
    if json_path is not None:
        settings = {
            "subjects": subjects,
            "seed": seed,
            "spacing": spacing,
            "site": site,
            "age_months": age_months,
        }
        report = {"settings": settings, "template_s": template_s, "summary": summary, "subjects": measured}
        json_path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _show(summary: dict[str, dict[str, float]], template_s: float) -> None:
    table = Table("quantity", "mean", "sd", "wanted", "within", title="Simulated cohort")
    for name, found in summary.items():
        low, high = TARGETS.get(name, (None, None))
        wanted = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
        within = "" if low is None or high is None else ("yes" if low <= found["mean"] <= high else "NO")
        digits = 0 if name == "mask_voxels" else 3
        table.add_row(name, f"{found['mean']:.{digits}f}", f"{found['sd']:.{digits}f}", wanted, within)
    console = Console()
    console.print(table)
    console.print(f"Template, once a process: {template_s:.1f} s")


if __name__ == "__main__":
    main()
