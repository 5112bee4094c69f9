"""`medssl segment`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from medssl.cli.common import EXISTING, STDERR, STDOUT, device_option, example, mask_option, progress_bar


def parse_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Parse "4GB", "512MB" or a number of bytes."""
    if value is None:
        return None
    text = value.strip().upper().removesuffix("B").removesuffix("I")
    factors = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    try:
        return int(float(text[:-1]) * factors[text[-1]]) if text[-1:] in factors else int(text)
    except ValueError as error:
        msg = f"'{value}' is no size; expected for example 4GB."
        raise click.BadParameter(msg) from error


def cache_folder() -> Path:
    """Return the user's cache: MEDSSL_CACHE, or medssl in XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("MEDSSL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medssl"


@example(
    "medssl segment cohort --out maps --model run\nmedssl segment sub-01_T1w.nii.gz sub-01_T2w.nii.gz --out maps"
)
@click.command()
@click.argument("data", type=EXISTING, nargs=-1, required=True)
@click.option("--out", type=EXISTING, required=True, help="BIDS derivatives folder to write.")
@click.option(
    "--model", type=EXISTING, help="Run folder, bundle or .pt file.  [default: the packaged bundle]"
)
@click.option("--probabilities", is_flag=True, help="Write a 4D probability image a subject as well.")
@click.option("--overwrite", is_flag=True, help="Make results anew that are there.")
@click.option("--resample", is_flag=True, help="Bring other contrasts to the T1w grid by their headers.")
@click.option("--pictures/--no-pictures", default=True, show_default=True, help="Draw a PNG a subject.")
@click.option("--anatomy", type=EXISTING, metavar="RUN",
              help="Training run whose labeled scans are registered to each scan and have a say.")  # fmt: skip
@click.option("--memory-limit", callback=parse_bytes, help="Memory for the network, such as 4GB.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "torch", "openvino", "onnxruntime"]),
    default="auto",
    show_default=True,
    help="What runs the network; auto takes the fastest whose labels agree with torch in float32, and remembers it.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Numbers of the network; auto takes the faster, under the same condition.",
)
@mask_option
@device_option
def segment(data: tuple[Path, ...], out: Path, model: Path | None, **options: object) -> None:
    """Segment DATA: a folder, a datalist, or the files of one subject (T1w, then T2w).

    Label maps lie on the scans' own grid. Finished subjects are skipped, so an interrupted call goes on
    where it stopped. Only use models you trust: a bundle's configuration may run code.
    """
    from medssl.workflows.models import Model, quiet_libraries
    from medssl.workflows.segment import Options
    from medssl.workflows.segment import segment as run

    quiet_libraries()

    def describe(ready: Model) -> None:
        what = "Packaged model" if model is None else "Model"
        STDERR.print(f"{what}: {ready.name}; {ready.trained_on}.")

    with progress_bar("Segmenting") as progress:
        place = data[0] if len(data) == 1 else list(data)
        result = run(place, out, model, Options(**options, cache=cache_folder()), progress, describe)
    for reason in result.failed.values():
        STDERR.print(f"[red]failed[/] {reason}", soft_wrap=True)
    counts = (
        f"{len(result.done)} segmented, {len(result.skipped)} finished before, {len(result.failed)} failed."
    )
    STDERR.print(counts + (f" Network run by {result.backend}." if result.backend else ""))
    STDOUT.print(str(out), soft_wrap=True)
    if result.failed:
        raise SystemExit(1)
