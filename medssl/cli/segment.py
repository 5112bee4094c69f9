"""`medssl segment`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medssl.cli import OWN_PROCESS
from medssl.cli.common import EXISTING, STDERR, STDOUT, device_option, example, mask_option, progress_bar
from medssl.cli.ranks import job_of_environment, ranks_of_environment
from medssl.errors import ConfigError
from medssl.workflows.ending import end_at_once, ended_cleanly

if TYPE_CHECKING:
    from medssl.workflows.segment import Segmentation
    from medssl.workflows.shards import Shard


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


def parse_shard(ctx: click.Context, param: click.Parameter, value: str | None) -> Shard:
    """Parse "1/3"."""
    from medssl.workflows.shards import Shard, shard_of_text

    try:
        return Shard() if value is None else shard_of_text(value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


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
@click.option("--window", type=int, metavar="SIDE",
              help="Overlapping windows of SIDE voxels, as in MONAI, in place of one pass; slow.")  # fmt: skip
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
@click.option("--shard", metavar="I/N", callback=parse_shard,
              help="Do only part I of N of the subjects; I counts from 1. The tables cover all parts.")  # fmt: skip
@mask_option
@device_option
def segment(data: tuple[Path, ...], out: Path, model: Path | None, shard: Shard, **options: object) -> None:
    """Segment DATA: a folder, a datalist, or the files of one subject (T1w, then T2w).

    Label maps lie on the scans' own grid. Finished subjects are skipped, so an interrupted call goes on
    where it stopped. Several machines share a cohort with --shard, several processes with torchrun. Only use
    models you trust: a bundle's configuration may run code.
    """
    from medssl.workflows.lean_start import READERS, import_monai_lean, without_collections

    own_process = click.get_current_context().obj == OWN_PROCESS
    with without_collections() if own_process else nullcontext():
        if own_process:
            import_monai_lean(never=READERS)
        from medssl.io.lock import JOB
        from medssl.workflows.models import Model, quiet_libraries
        from medssl.workflows.segment import Options
        from medssl.workflows.segment import segment as run

    quiet_libraries()
    ranks = ranks_of_environment()
    first, shard = ranks.rank == 0, shard.divided(ranks.rank, ranks.ranks)
    places = {"local_rank": ranks.local_rank, "local_ranks": ranks.local_ranks, "cache": cache_folder()}
    JOB.set(job_of_environment())

    def describe(ready: Model) -> None:
        what = "Packaged model" if model is None else "Model"
        if first:
            STDERR.print(f"{what}: {ready.name}; {ready.trained_on}.")

    with ended_cleanly(), progress_bar("Segmenting") if first else nullcontext() as progress:
        place = data[0] if len(data) == 1 else list(data)
        result = run(place, out, model, Options(**options, **places, shard=shard), progress, describe)
    tell(result, "" if shard.count == 1 else f"Shard {shard}: ")
    if first:
        STDOUT.print(str(out), soft_wrap=True)
    ranks.wait_for_the_others()
    if result.failed:
        raise SystemExit(1)
    if own_process:
        end_at_once()


def tell(result: Segmentation, part: str) -> None:
    """Say what became of the subjects."""
    for reason in result.failed.values():
        STDERR.print(f"[red]failed[/] {reason}", soft_wrap=True)
    counts = (
        f"{len(result.done)} segmented, {len(result.skipped)} finished before, {len(result.failed)} failed."
    )
    backend = f" Network run by {result.backend}." if result.backend else ""
    STDERR.print(part + counts + backend, soft_wrap=True)
