"""`medssl demo`."""

from __future__ import annotations

from pathlib import Path

import click

from medssl.cli.common import EXISTING, STDERR, STDOUT, TrainingBar, example, progress_bar


@example("medssl demo --out demo")
@click.command()
@click.option("--out", type=EXISTING, default=Path("demo"), show_default=True, help="Folder to make.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier demo in that folder.")
@click.option("--seed", default=0, show_default=True, help="Of the cohort and the training.")
def demo(out: Path, overwrite: bool, seed: int) -> None:
    """Run the whole path on a simulated cohort (under ten minutes) and write a report.

    Simulates scans of 6-month brains, checks them, trains with and without the unlabeled ones, segments all, scores
    the held-out ones, and ends with the path of an HTML report.
    """
    from medssl.workflows.demo import DemoPlan
    from medssl.workflows.demo import demo as run
    from medssl.workflows.models import quiet_libraries

    quiet_libraries()
    report = run(
        out,
        DemoPlan(seed=seed),
        overwrite=overwrite,
        say=lambda text: STDERR.print(
            f"[bold]$ {text}[/]" if text.startswith("medssl") else text, soft_wrap=True
        ),
        bar=progress_bar,
        training_bar=TrainingBar,
    )
    STDERR.print("Done. Open the report:")
    STDOUT.print(str(report), soft_wrap=True)
