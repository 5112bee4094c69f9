"""`medssl rank`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from medssl.cli.common import EXISTING, STDERR, STDOUT, device_option, example, mask_option, progress_bar
from medssl.cli.segment import parse_bytes

SHOWN = 10
"""Scans that are printed; the table holds all."""


@example("medssl rank cohort --model run --out next.tsv")
@click.command()
@click.argument("data", type=EXISTING)
@click.option(
    "--model", type=EXISTING, help="Run folder, bundle or .pt file.  [default: the packaged bundle]"
)
@click.option("--out", type=EXISTING, required=True, help="Table to write: one row a scan, the best first.")
@click.option("--previous", type=EXISTING, metavar="RUN",
              help="Model to disagree with, such as the run before.  [default: the mirrored scan]")  # fmt: skip
@click.option("--pictures/--no-pictures", default=True, show_default=True,
              help="Draw the slices to look at first of the first scans.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the table.")
@click.option("--resample", is_flag=True, help="Bring other contrasts to the T1w grid by their headers.")
@click.option("--memory-limit", callback=parse_bytes, help="Memory for the network, such as 4GB.")
@mask_option
@device_option
def rank(
    data: Path, model: Path | None, out: Path, pictures: bool, overwrite: bool, **options: object
) -> None:
    """Say which unlabeled scans of DATA (a folder or datalist) to label next.

    A scan stands high if the network is unsure of scans like it and no labeled scan is like them. The table
    names three slices a scan to look at first, and why. What is measured is kept beside the table: an
    interrupted call goes on where it stopped. No label is looked at but to see that there is one.
    """
    from medssl.workflows.models import quiet_libraries
    from medssl.workflows.ranking import RankingWatcher, RankOptions
    from medssl.workflows.ranking_table import rank_to_table

    quiet_libraries()
    failed: dict[str, str] = {}

    with progress_bar("Looking at scans") as progress:

        class Bar(RankingWatcher):
            def measured(self, subject: str, done: int, scans: int) -> None:
                progress(subject, done, scans)

            def failed(self, subject: str, why: str) -> None:
                failed[subject] = why

        ranked = rank_to_table(
            data,
            model,
            out,
            options=RankOptions(**options),
            watcher=Bar(),
            overwrite=overwrite,
            pictures=pictures,
        )
    table = Table(box=None, pad_edge=False)
    for name in ("", "subject", "gain", "why"):
        table.add_column(name, justify="left" if name in ("subject", "why") else "right")
    for place, one in enumerate(ranked[:SHOWN], start=1):
        table.add_row(str(place), one.subject, f"{one.score:.3f}", one.reason)
    STDOUT.print(table)
    for why in failed.values():
        STDERR.print(f"[red]failed[/] {why}", soft_wrap=True)
    STDOUT.print(str(out), soft_wrap=True)
    if failed:
        raise SystemExit(1)
