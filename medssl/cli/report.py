"""`medssl report`."""

from __future__ import annotations

from pathlib import Path

import click

from medssl.cli.common import EXISTING, STDOUT, example


@example("medssl report scans --run run --maps maps --scores scores.tsv --out report.html")
@click.command()
@click.argument("data", type=EXISTING)
@click.option("--run", type=EXISTING, help="Folder of medssl train: curve, verdict, registered labels.")
@click.option("--maps", type=EXISTING, help="Folder of medssl segment: pictures, volumes.")
@click.option("--scores", type=EXISTING, help="Table of medssl evaluate: Dice, best and worst scans.")
@click.option("--out", type=EXISTING, default=Path("report.html"), show_default=True, help="Page to write.")
@click.option("--overwrite", is_flag=True, help="Replace the page.")
def report(
    data: Path, run: Path | None, maps: Path | None, scores: Path | None, out: Path, overwrite: bool
) -> None:
    """Write one HTML page about DATA: what was trained, what came out, how good it is, how it was made.

    The page needs no other file and no network. It shows pictures of the scans: treat it as you treat them.
    """
    from medssl.workflows.report import write_report

    page = write_report(out, cohort=data, run=run, segmentation=maps, evaluation=scores, overwrite=overwrite)
    STDOUT.print(str(page), soft_wrap=True)
