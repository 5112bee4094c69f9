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
    "--out",
    type=EXISTING,
    required=True,
    help="Folder for model.onnx, model.int8.onnx, export.json, predict.pyz.",
)
@click.option("--data", type=EXISTING, help="Folder of images.  [default: those the run was trained with]")
@click.option(
    "--int8", is_flag=True, help="Write an 8-bit file too, if it loses no more macro F1 than --most-loss."
)
@click.option(
    "--most-loss",
    metavar="POINTS",
    type=click.FloatRange(0, 100),
    help="Points of macro F1 that the 8-bit file may lose on the validation images.  [default: 1]",
)
@click.option(
    "--softmax",
    is_flag=True,
    help="Let the files answer with probabilities, for programs that read no metadata.",
)
@click.option("--strict", is_flag=True, help="Exit code 1 where no 8-bit file was good enough.")
@click.option(
    "--finding",
    metavar="CLASS",
    help="Choose from which probability on an image shows this class; see the next two.",
)
@click.option("--sensitivity", type=click.FloatRange(0, 1), help="Share of its validation images to catch.")
@click.option("--specificity", type=click.FloatRange(0, 1), help="Share of the others to leave alone.")
@click.option("--overwrite", is_flag=True, help="Replace what is in --out.")
@outside_option
@click.pass_context
def export(  # noqa: PLR0913, PLR0917 (one argument an option)
    ctx: click.Context,
    model: Path,
    out: Path,
    data: Path | None,
    int8: bool,
    most_loss: float | None,
    softmax: bool,
    strict: bool,
    finding: str | None,
    sensitivity: float | None,
    specificity: float | None,
    overwrite: bool,
    allow_outside: bool,
) -> None:
    """Write the classifier MODEL (a run folder or .pt file) as ONNX, and hold the file to the network.

    The folder is complete: its predict.pyz needs onnxruntime, numpy and Pillow, not medssl or torch.
    """
    from medssl.errors import ConfigError
    from medssl.workflows.classification.export import export_run
    from medssl.workflows.classification.thresholds import Promise, spoken
    from medssl.workflows.models import quiet_libraries

    quiet_libraries()
    if finding is None and (sensitivity is not None or specificity is not None):
        msg = "A sensitivity or specificity belongs to a class."
        raise ConfigError(msg, "Name it: --finding CLASS.")
    if strict and not int8:
        msg = "--strict asks for an 8-bit file that is good enough, and none is to be made."
        raise ConfigError(msg, "Add --int8.")
    promise = None if finding is None else Promise(finding, sensitivity, specificity)
    done = export_run(
        model,
        out,
        data,
        int8=int8,
        most_loss=None if most_loss is None else most_loss / 100,
        softmax=softmax,
        promise=promise,
        overwrite=overwrite,
        allow_outside=allow_outside,
    )
    STDERR.print(f"model.onnx against the network: {done.parity}.", soft_wrap=True)
    if done.int8 is not None:
        STDERR.print(f"{done.int8}.", soft_wrap=True)
    if done.speed is not None:
        style = None if done.speed.passed else "yellow"
        STDERR.print(f"{done.speed}.", style=style, soft_wrap=True)
    for name, one in done.findings.items():
        useless = min(one["sensitivity"], one["specificity"]) == 0
        STDERR.print(
            f"{name}: {one['class']} {spoken(one['threshold'])}; on {one['n']} validation images sensitivity "
            f"{one['sensitivity']:.3f}, specificity {one['specificity']:.3f}."
            + (" That is of no use." if useless else ""),
            style="yellow" if useless else None,
            soft_wrap=True,
        )
    STDOUT.print(str(out), soft_wrap=True)
    if strict and done.int8 is not None and done.int8.chosen is None:
        ctx.exit(1)
