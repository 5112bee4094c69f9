"""`medssl train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medssl.cli.common import (
    EXISTING,
    STDERR,
    STDOUT,
    contrasts_option,
    device_option,
    example,
    mask_option,
    parse_settings,
    refuse_options,
    to_type,
    watched_training,
)
from medssl.cli.ranks import ranks_of_environment
from medssl.errors import ConfigError, MedsslError

if TYPE_CHECKING:
    from medssl.workflows.running import Training

METHODS = ["supervised", "pseudo-label", "mean-teacher", "ssldec"]
"""As in `medssl.workflows.methods.METHODS`; a test compares both. Help must not import torch."""


@example(
    "medssl train cohort --out run --budget quick\n"
    "medssl train cohort --out run --method ssldec\n"
    "medssl train cohort --out run --resume"
)
@click.command()
@click.pass_context
@click.argument("data", type=EXISTING)
@click.option("--out", type=EXISTING, required=True, help="Run folder to make; it is a MONAI bundle.")
@click.option("--method", type=click.Choice(METHODS), default="supervised", show_default=True,
              help="What the unlabeled scans are used for.")  # fmt: skip
@click.option(
    "--network",
    default="dense-fcn",
    show_default=True,
    help="dense-fcn, dense-fcn-small, fc-densenet, basic-unet.",
)
@click.option(
    "--budget", default="standard", show_default=True, help="quick, standard or full (medssl info)."
)
@click.option("--seed", default=0, show_default=True, help="Of initialization, crops and dropout.")
@click.option(
    "--hold-out",
    default=0,
    show_default=True,
    help="Labeled subjects to hold out: they choose the checkpoint.",
)
@click.option(
    "--rounds",
    default=0,
    show_default=True,
    help="Self-training rounds with stored targets (two at most for quick, standard); 0: online.",
)
@click.option("--target-rule", type=click.Choice(["dec", "sharpen", "prior", "soft", "hard"]),
              help="How predictions become targets.")  # fmt: skip
@click.option("--schedule", type=click.Choice(["union_reinit", "union_warm", "alternate"]),
              help="How rounds go on from each other.")  # fmt: skip
@click.option("--clustering-head/--softmax-head", "clustering_head", default=None,
              help="How the network ends; SSLDEC's in a clustering head.")  # fmt: skip
@click.option("--prior", type=click.Choice(["auto", "none", "class", "anatomical"]), default="auto", show_default=True,
              help="SSLDEC: what is known beforehand. anatomical: labeled scans registered to the unlabeled ones; "
              "auto: that with at most 8 labeled scans and no --rounds, unless held-out ones speak against "
              "it.")  # fmt: skip
@click.option("--check/--no-check", default=True, show_default=True,
              help="Semi-supervised: train labeled-only too, return what is better on held-out scans.")  # fmt: skip
@click.option("--transductive", is_flag=True,
              help="Allow unlabeled scans that are also validation or test scans; every table says so.")  # fmt: skip
@click.option("--init", help="Start from a run, a bundle, a file of weights, or 'packaged'.")
@contrasts_option
@mask_option
@device_option
@click.option(
    "--resample", is_flag=True, help="Bring other contrasts to the first one's grid by their headers."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--set", "settings", multiple=True, callback=parse_settings, metavar="KEY=VALUE",
              help="Change a value of the configuration, such as learning_rate=0.0005.")  # fmt: skip
def train(
    ctx: click.Context, data: Path, out: Path, resume: bool, init: str | None, check: bool, **options: Any
) -> None:
    """Train on the scans of DATA (a folder or datalist).

    Methods other than 'supervised' use the unlabeled scans too. They also train the labeled-only network with
    the same budget, compare both on held-out labeled scans, return the better one and say which it is.

    The run folder is enough to resume, to repeat and to segment with. Labeled scans under 'validation' in
    the datalist, or held out by --hold-out, choose the best step; without any the last step is kept.
    """
    from medssl.workflows.budgets import budget_named
    from medssl.workflows.harmless import is_checked, train_checked
    from medssl.workflows.models import packaged_bundle, quiet_libraries
    from medssl.workflows.train import TrainOptions
    from medssl.workflows.train import train as run_training

    quiet_libraries()
    checked = is_checked(out) if resume else check and options["method"] != "supervised"
    _refuse_several_processes(out, checked=checked)
    refuse_options(ctx)
    if not resume:
        STDERR.print(f"Budget {budget_named(options['budget']).describe()}.")
    chosen = TrainOptions(init=str(packaged_bundle()) if init == "packaged" else init, **options)
    try:
        with watched_training() as bar:
            if checked:
                done = train_checked(data, out, chosen, bar, resume=resume, say=STDERR.print).training
            else:
                done = run_training(data, out, chosen, bar, resume)
    except MedsslError as error:
        if getattr(error, "resumable", False):
            cure = f"Go on with: {to_type('medssl train', data, '--out', out, '--resume')}"
            raise MedsslError(str(error), cure) from error
        raise
    _tell_next(done, data, out)
    STDOUT.print(str(out), soft_wrap=True)


def _tell_next(done: Training, data: Path, out: Path) -> None:
    """Say what a training took, what it was not compared with, and the command that uses it."""
    from medssl.io.files import read_json
    from medssl.workflows.factor_check import gains_at_inference
    from medssl.workflows.provenance import other_baseline

    best = "" if done.best is None else f", best Dice on held-out scans {done.best:.3f}"
    if other := other_baseline(read_json(out / "run.json")):
        STDERR.print(other)
    STDERR.print(f"{done.steps} steps in {done.seconds / 60:.1f} minutes{best}. Next:")
    anatomy = ["--anatomy", out] if gains_at_inference(out) else []
    STDERR.print(
        f"  {to_type('medssl segment', data, '--out', 'OUT', '--model', out, *anatomy)}", soft_wrap=True
    )


def _refuse_several_processes(out: Path, *, checked: bool) -> None:
    """Say how several processes train one network; here each would train its own into the same folder.

    Args:
        out: The run folder.
        checked: Whether labeled-only training is compared with, for which there is no way in several processes.

    Raises:
        ConfigError: torchrun started more than one.
    """
    ranks = ranks_of_environment()
    if ranks.ranks > 1:
        msg = f"medssl train runs in one process; {ranks.ranks} were started."
        alone = "Start it without torchrun: only one process compares with labeled-only training. Or give that up: "
        here = ranks.local_ranks if ranks.torchrun else ranks.ranks
        config = "\"['configs/train.yaml','configs/multi_gpu_train.yaml']\""
        cure = (alone if checked else "") + (
            f"Prepare the run with one process and --no-check (Ctrl-C after its first step), then in {out}: "
            f"torchrun --standalone --nproc_per_node={here} -m monai.bundle run --config_file {config}"
        )
        raise ConfigError(msg, cure)
