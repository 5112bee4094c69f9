"""`medssl classify check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from medssl.cli.classify.common import outside_option
from medssl.cli.common import EXISTING, STDERR, STDOUT, example


@example("medssl classify check images")
@click.command()
@click.argument("data", type=EXISTING)
@click.option("--unlabeled", type=EXISTING, help="Folder of unlabeled images beside the data.")
@click.option("--transductive", is_flag=True, help="Unlabeled images may be validation or test images too.")
@click.option("--similar", is_flag=True, help="Name held-out images that look like one that training sees.")
@outside_option
@click.pass_context
def check(ctx: click.Context, data: Path, **options: Any) -> None:
    """Look at every image of DATA: readable, of which class, twice in it, in two sections that share none.

    Exit code 1 if something must be mended before training.
    """
    from medssl.workflows.classification.check import check_folder

    result = check_folder(data, **options)
    table = Table(box=None, pad_edge=False)
    for name in ("class", "training", "validation", "test"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for row in result.counts:
        table.add_row(*row)
    STDOUT.print(table)
    STDOUT.print(f"{result.unlabeled} unlabeled images; sizes {result.sizes}; channels {result.channels}.")
    for remark in result.remarks:
        STDERR.print(f"[yellow]note[/] {remark}", soft_wrap=True)
    for problem in result.problems:
        STDERR.print(f"[red]problem[/] {problem}", soft_wrap=True)
    if result.problems:
        ctx.exit(1)
