"""`medssl classify compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from medssl.cli.common import EXISTING, STDERR, STDOUT, example

ANALYSES = ["networks", "pairs", "methods", "two"]
"""As in `medssl.workflows.classification.compare_options.ANALYSES`; a test compares both."""

MAX_SHOWN = 8
"""Findings that are printed; all are in the files."""


@example(
    "medssl classify compare results.csv --out comparison\n"
    "medssl classify compare results.csv --out comparison --what methods --family compact\n"
    "medssl classify compare results.csv --out comparison --what two"
    " --pair 'MixNet + data_distillation' --pair 'ResNet50 + base'"
)
@click.command()
@click.argument("table", type=EXISTING)
@click.option("--out", type=EXISTING, required=True, help="Folder for the tables, the page and the figure.")
@click.option("--what", "analysis", type=click.Choice(ANALYSES), default="networks", show_default=True,
              help="Networks under one method, all pairs of both, methods over networks, or two pairs.")  # fmt: skip
@click.option("--metric", type=click.Choice(["accuracy", "precision", "recall", "f1"]), default="f1",
              show_default=True, help="Column to compare; higher is better.")  # fmt: skip
@click.option("--under", "method", default="base", show_default=True, help="networks: their method.")
@click.option("--pair", multiple=True, metavar="'NETWORK + METHOD'",
              help="two: give it twice; the second is the control.")  # fmt: skip
@click.option("--network", "networks", multiple=True, help="Only this network; may be repeated.")
@click.option("--family", "families", multiple=True, help="Only networks of this family; may be repeated.")
@click.option("--method", "methods", multiple=True, help="pairs, methods: only this method; may be repeated.")
@click.option("--control", help="Held against all others.  [default: base among methods, else the best rank]")
@click.option("--missing", type=click.Choice(["drop_block", "worst_rank", "error"]), default="drop_block",
              show_default=True, help="A value is missing: leave its data set out, rank it last, refuse.")  # fmt: skip
@click.option("--failed", type=click.Choice(["value", "missing"]), default="value", show_default=True,
              help="What precision, recall and F1 of 0 are; rows with status 'failed' are always missing.")  # fmt: skip
@click.option("--alpha", default=0.05, show_default=True, help="Level of significance.")
@click.option("--overwrite", is_flag=True, help="Replace a comparison that is there.")
def compare(table: Path, out: Path, overwrite: bool, **options: Any) -> None:
    """Compare networks and methods over the data sets of TABLE by rank tests.

    TABLE is a CSV file with a row per data set, network, method (and seed): dataset, network, method, and one or
    more of accuracy, precision, recall, f1 between 0 and 1; family, seed, status and note may be there too. What
    is odd about it is told, never mended silently.
    """
    from medssl.workflows.classification.compare import compare as run
    from medssl.workflows.classification.compare_options import CompareOptions

    found = run(table, out, CompareOptions(**options), overwrite=overwrite)
    for finding in found.findings[:MAX_SHOWN]:
        where = f"line {', '.join(map(str, finding.lines))}: " if finding.lines else ""
        STDERR.print(f"[yellow]{finding.kind}[/] {escape(where + finding.text)}", soft_wrap=True)
    if len(found.findings) > MAX_SHOWN:
        STDERR.print(
            f"{len(found.findings) - MAX_SHOWN} more findings in {out / 'findings.csv'}.", soft_wrap=True
        )
    STDOUT.print(escape(found.sentence), soft_wrap=True)
    STDOUT.print(str(out), soft_wrap=True)
