"""`medssl simulate`."""

from __future__ import annotations

from pathlib import Path

import click

from medssl.cli.common import EXISTING, STDOUT, example, progress_bar


@example("medssl simulate cohort --subjects 12 --labeled 4 --unlabeled 5 --seed 1 --spacing 2")
@click.command()
@click.argument("out", type=EXISTING)
@click.option("--subjects", default=12, show_default=True, type=click.IntRange(1), help="How many in all.")
@click.option("--labeled", default=4, show_default=True, type=click.IntRange(0), help="Labeled for training.")
@click.option(
    "--unlabeled", default=4, show_default=True, type=click.IntRange(0), help="Listed without label."
)
@click.option("--validation", default=0, show_default=True, type=click.IntRange(0), help="Labeled, held out.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same voxels.")
@click.option("--spacing", type=float, help="Voxel size in mm.  [default: 1.0, or what site B scans with]")
@click.option("--site", type=click.Choice(["A", "B"]), default="A", show_default=True, help="Scanner.")
@click.option("--age-months", default=6.0, show_default=True, help="Age at the scan; 6 is iso-intense.")
@click.option("--motion", default=0.0, show_default=True, help="Largest head motion in mm.")
@click.option("--processes", type=click.IntRange(1), help="Subjects made at a time.  [default: all cores]")
def simulate(out: Path, **options: object) -> None:
    """Make a cohort of simulated T1w + T2w infant brain scans in the BIDS folder OUT.

    Every subject gets a label image; datalist.json says which of them training may see. What is neither
    labeled, unlabeled nor validation is for testing.
    """
    from medssl.workflows.simulate import simulate_cohort

    if options["spacing"] is None and options["site"] == "A":
        options["spacing"] = 1.0
    with progress_bar("Simulating") as progress:
        folder = simulate_cohort(out, progress=progress, **options)
    STDOUT.print(f"{folder}", soft_wrap=True)
