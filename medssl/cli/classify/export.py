"""`medssl classify export`."""

from __future__ import annotations

from pathlib import Path

import click

from medssl.cli.classify.common import outside_option
from medssl.cli.common import EXISTING, STDERR, STDOUT, example


@example("medssl classify export run --out phone --int8")
@click.command()
@click.argument("model", type=EXISTING)
@click.option(
    "--out", type=EXISTING, required=True, help="Folder for model.onnx, model.int8.onnx, export.json."
)
@click.option("--data", type=EXISTING, help="Folder of images.  [default: those the run was trained with]")
@click.option(
    "--int8", is_flag=True, help="Write an 8-bit file too, if it loses no more than a point of macro F1."
)
@click.option("--strict", is_flag=True, help="Exit code 1 where no 8-bit file was good enough.")
@click.option("--overwrite", is_flag=True, help="Replace what is in --out.")
@outside_option
@click.pass_context
def export(
    ctx: click.Context,
    model: Path,
    out: Path,
    data: Path | None,
    int8: bool,
    strict: bool,
    overwrite: bool,
    allow_outside: bool,
) -> None:
    """Write the classifier MODEL (a run folder or .pt file) as ONNX, and hold the file to the network."""
    from medssl.workflows.classification.export import export_run
    from medssl.workflows.models import quiet_libraries

    quiet_libraries()
    done = export_run(model, out, data, int8=int8, overwrite=overwrite, allow_outside=allow_outside)
    STDERR.print(f"model.onnx against the network: {done.parity}.", soft_wrap=True)
    if done.int8 is not None:
        STDERR.print(f"{done.int8}.", soft_wrap=True)
    STDOUT.print(str(out), soft_wrap=True)
    if strict and done.int8 is not None and done.int8.chosen is None:
        ctx.exit(1)
