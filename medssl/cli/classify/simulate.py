"""`medssl classify simulate`."""

from __future__ import annotations

from pathlib import Path

import click

from medssl.cli.common import EXISTING, STDOUT, example, progress_bar


@example("medssl classify simulate images --labeled 10 --unlabeled 400 --test 200 --seed 1")
@click.command()
@click.argument("out", type=EXISTING)
@click.option("--classes", default=4, show_default=True, type=click.IntRange(2), help="How many kinds.")
@click.option(
    "--labeled", default=10, show_default=True, type=click.IntRange(1), help="A class, for training."
)
@click.option("--validation", default=10, show_default=True, type=click.IntRange(0), help="A class.")
@click.option("--test", default=50, show_default=True, type=click.IntRange(0), help="A class.")
@click.option("--unlabeled", default=400, show_default=True, type=click.IntRange(0), help="In all.")
@click.option("--size", default=64, show_default=True, type=click.IntRange(16), help="Pixels a side.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same pixels.")
def simulate(out: Path, **options: int) -> None:
    """Make a folder OUT of simulated cell images: train/, val/ and test/ with a folder a class, unlabelled/."""
    from medssl.workflows.classification.simulate import simulate_folder

    with progress_bar("Simulating") as progress:
        simulate_folder(out, progress=progress, **options)
    STDOUT.print(str(out), soft_wrap=True)
