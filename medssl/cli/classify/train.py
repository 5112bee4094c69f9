"""`medssl classify train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medssl.cli.classify.common import training_options
from medssl.cli.common import EXISTING, STDERR, STDOUT, example, refuse_options, to_type, watched_training
from medssl.errors import MedsslError

if TYPE_CHECKING:
    from medssl.workflows.classification.train import ClassifyOptions
    from medssl.workflows.running import Training

METHODS = [
    *("supervised", "pseudo-label", "mean-teacher", "fixmatch", "flexmatch", "freematch", "softmatch"),
    *("defixmatch", "mixmatch", "ssldec"),
]
"""As in `medssl.workflows.classification.methods.ONLINE`; a test compares both."""

SCHEDULES = ["union_warm", "union_reinit", "alternate"]
"""As in `medssl.transforms.mixture.SCHEDULES`; a test compares both."""


@example(
    "medssl classify train images --out run --method ssldec --labels-per-class 10\n"
    "medssl classify train images --out run --resume"
)
@click.command()
@click.argument("data", type=EXISTING)
@click.option("--out", type=EXISTING, required=True, help="Run folder to make; it is a MONAI bundle.")
@click.option("--method", type=click.Choice(METHODS), default="supervised", show_default=True,
              help="What the unlabeled images are used for.")  # fmt: skip
@click.option("--rounds", default=0, show_default=True, type=click.IntRange(0),
              help="SSLDEC: rounds with stored targets; 0: targets are made online.")  # fmt: skip
@click.option("--target-rule", type=click.Choice(["dec", "sharpen", "prior", "soft"]),
              help="SSLDEC: how assignments become targets.")  # fmt: skip
@click.option("--schedule", type=click.Choice(SCHEDULES), default="union_warm", show_default=True,
              help="SSLDEC: rounds go on, start anew, or take one kind of images at a time.")  # fmt: skip
@click.option("--baseline/--no-baseline", default=True, show_default=True,
              help="Train supervised with the same budget too, return what is better.")  # fmt: skip
@training_options
@click.pass_context
def train(ctx: click.Context, data: Path, out: Path, resume: bool, baseline: bool, **options: Any) -> None:
    """Train a classifier on the images of DATA (train/CLASS/*, unlabelled/*, or a CSV manifest).

    Beside every method but 'supervised' the supervised baseline is trained with the same number of steps and
    images. Both are compared on the validation images; the better one is returned, and one sentence says
    whether the unlabeled images helped.
    """
    from medssl.workflows.classification.baseline import has_baseline, train_with_baseline
    from medssl.workflows.classification.budgets import image_budget
    from medssl.workflows.classification.train import ClassifyOptions, train_classifier
    from medssl.workflows.models import quiet_libraries

    quiet_libraries()
    refuse_options(ctx)
    if options["rounds"] and not baseline:
        msg = "--rounds are trained with the baseline beside them; leave --no-baseline out."
        raise click.UsageError(msg)
    chosen = ClassifyOptions(**options)
    both = has_baseline(out) if resume else baseline and chosen.method != "supervised"
    if not resume:
        STDERR.print(
            f"Budget {image_budget(chosen.budget).describe(chosen.steps)}{', twice' if both else ''}."
        )
    try:
        with watched_training("macro F1", "images") as bar:
            if both:
                done = train_with_baseline(data, out, chosen, bar, resume=resume, say=STDERR.print).training
            else:
                done = train_classifier(data, out, chosen, bar, resume)
    except MedsslError as error:
        if getattr(error, "resumable", False):
            cure = f"Go on with: {to_type('medssl classify train', data, '--out', out, '--resume')}"
            raise MedsslError(str(error), cure) from error
        raise
    _tell_next(done, data, out, chosen)
    STDOUT.print(str(out), soft_wrap=True)


def _tell_next(done: Training, data: Path, out: Path, options: ClassifyOptions) -> None:
    """Say what a training took, and the command that scores it."""
    best = "" if done.best is None else f", best macro F1 on validation images {done.best:.3f}"
    STDERR.print(f"{done.steps} steps in {done.seconds / 60:.1f} minutes{best}. Next:")
    outside = ["--allow-outside"] * options.allow_outside
    evaluate = to_type("medssl classify evaluate", data, "--out", "REPORT", "--model", out, *outside)
    STDERR.print(f"  {evaluate}", soft_wrap=True)
