"""`medssl evaluate`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from medssl.cli.common import EXISTING, STDERR, STDOUT, example


@example("medssl evaluate maps cohort --out scores.tsv")
@click.command()
@click.argument("pred", type=EXISTING)
@click.argument("ref", type=EXISTING)
@click.option("--out", type=EXISTING, required=True, help="Table to write: one row a subject and label.")
@click.option("--overwrite", is_flag=True, help="Replace the table.")
def evaluate(pred: Path, ref: Path, out: Path, overwrite: bool) -> None:
    """Compare the label maps in PRED with the references in REF (folders, a datalist, or two files).

    Dice, 95th percentile and full Hausdorff distance, average symmetric surface distance (mm, from the
    true spacing) and volumes. hd95 is the larger of the two directed percentiles. Where both masks are
    empty the row is n/a and left out of means; where one is, Dice is 0 and distances are n/a.
    """
    from medssl.workflows.evaluate import evaluate as score

    result = score(pred, ref, out, overwrite=overwrite)
    table = Table(box=None, pad_edge=False)
    for name in ("label", "n", "Dice", "sd", "hd95 mm", "assd mm"):
        table.add_column(name, justify="left" if name == "label" else "right")
    for row in result.summary_rows():
        table.add_row(*row)
    STDOUT.print(table)
    for warning in result.warnings:
        STDERR.print(f"[yellow]note[/] {warning}", soft_wrap=True)
    STDOUT.print(str(out), soft_wrap=True)
