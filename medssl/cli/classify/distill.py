"""`medssl classify distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medssl.cli.classify.common import training_options
from medssl.cli.common import EXISTING, STDERR, STDOUT, example, refuse_options, to_type, watched_training
from medssl.errors import MedsslError

KINDS = ["plain", "data", "model", "data-model"]
SHORT_NAMES = ["PD", "DD", "MD", "MDD", "IPD", "IDD", "IMD", "IMDD"]
"""As in `medssl.workflows.classification.methods`; a test compares both. Help must not import torch."""


@example("medssl classify distill images --out run --kind data --teacher resnet18 --network vgg-small-64")
@click.command()
@click.argument("data", type=EXISTING)
@click.option("--out", type=EXISTING, required=True, help="Run folder to make; it is a MONAI bundle.")
@click.option("--kind", type=click.Choice([*KINDS, *SHORT_NAMES]), default="data", show_default=True,
              help="How many teachers and views: one, or several of either. PD to MDD are the same by their names in "
                   "Inés et al. 2022, IPD to IMDD their iterative variants.")  # fmt: skip
@click.option("--teacher", "teachers", multiple=True, metavar="NETWORK[=WEIGHTS]",
              help="Network of a teacher, with weights of its own: a file, 'cached' or 'none'.  "
                   "[default: the student's]")  # fmt: skip
@click.option(
    "--view", "views", multiple=True, help="View for the teachers, such as hflip.  [default: by --preset]"
)
@click.option("--threshold", default="0.8", show_default=True, callback=lambda *args: _thresholds(args[-1]),
              help="Labels are kept where the teachers are surer; 0.8,0.9,... one a class.")  # fmt: skip
@click.option(
    "--top-k", type=click.IntRange(1), help="Keep the so many surest of each class instead, each round."
)
@click.option("--percentile", type=click.FloatRange(0, 100),
              help="Keep what is above this percentile of sureness instead: 80 keeps a fifth.")  # fmt: skip
@click.option("--reduce", type=click.Choice(["mean_prob", "vote"]), default="mean_prob", show_default=True,
              help="How teachers and views become one label.")  # fmt: skip
@click.option(
    "--balance",
    type=float,
    help="Keep at most so many times as many of a class as of the scarcest, over all rounds.",
)
@click.option(
    "--cap",
    type=float,
    help="Keep at most so many times as many labels as there are given ones, over all rounds.",
)
@click.option("--energy-percentile", type=click.FloatRange(0, 100),
              help="Keep no label of images whose energy is above this percentile of held-out ones.")  # fmt: skip
@click.option("--weight", type=click.Choice(["none", "confidence"]), default="none", show_default=True,
              help="confidence: a kept label counts in the loss by how sure the teachers are.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1),
              help="More than 1: the iterative variant.  [default: 1; 5 for IPD, IDD, IMD, IMDD]")  # fmt: skip
@click.option("--relabel", type=click.Choice(["remaining", "all"]), default="remaining", show_default=True,
              help="What further rounds label: images without a kept label, or all anew.")  # fmt: skip
@click.option(
    "--calibrated",
    is_flag=True,
    help="Fit a temperature to each teacher on the validation images before it labels.",
)
@click.option("--recipe", type=click.Choice(["paper", "ours"]),
              help="Options that belong together; what is given beside it stands. paper: the views of Inés et al. "
                   "2022 and no averaged weights; ours: weights averaged with .999, calibrated teachers, as many "
                   "labels of each class.")  # fmt: skip
@click.option(
    "--targets", type=click.Choice(["hard", "soft"]), default="hard", show_default=True,
    help="The student learns the labels that are kept, or all answers of the teachers with their doubts.",
)  # fmt: skip
@click.option("--baseline/--no-baseline", default=True, show_default=True,
              help="Train supervised with the whole budget too, return what is better.")  # fmt: skip
@training_options
@click.pass_context
def distill(ctx: click.Context, data: Path, out: Path, resume: bool, **options: Any) -> None:
    """Train teachers on the labels of DATA, let them label the unlabeled images, train a student on both.

    Teachers, rounds and student share one budget of steps; the supervised baseline, trained beside them, has all
    of it (--no-baseline: none is). Every label that the teachers gave stands in pseudo_labels/round-N.csv.
    """
    from medssl.workflows.classification.budgets import image_budget
    from medssl.workflows.classification.distill import distill as run_distillation
    from medssl.workflows.classification.distill_options import DistillOptions
    from medssl.workflows.classification.methods import named_distillation
    from medssl.workflows.classification.pseudo_labels import KeepRule
    from medssl.workflows.classification.train import ClassifyOptions
    from medssl.workflows.models import quiet_libraries

    quiet_libraries()
    refuse_options(ctx)
    names = ("threshold", "top_k", "percentile", "reduce", "balance", "cap", "weight", "energy_percentile")
    rule = KeepRule(**{name: options.pop(name) for name in names})
    kind, rounds = named_distillation(options.pop("kind"), options.pop("rounds"))
    own = {
        name: options.pop(name)
        for name in ("teachers", "relabel", "calibrated", "recipe", "targets", "baseline")
    }
    chosen = DistillOptions(
        **own,
        kind=kind,
        rounds=rounds,
        views=tuple(options.pop("views")),
        rule=rule,
        student=ClassifyOptions(**options),
    )
    if not resume:
        told = image_budget(chosen.student.budget).describe(chosen.student.steps)
        STDERR.print(f"Budget {told}{', twice' if chosen.baseline else ''}.")
    try:
        with watched_training("macro F1", "images") as bar:
            run_distillation(data, out, chosen, bar, resume=resume, say=STDERR.print)
    except MedsslError as error:
        if getattr(error, "resumable", False):
            cure = f"Go on with: {to_type('medssl classify distill', data, '--out', out, '--resume')}"
            raise MedsslError(str(error), cure) from error
        raise
    STDOUT.print(str(out), soft_wrap=True)


def _thresholds(text: str) -> float | tuple[float, ...]:
    """Read one threshold, or one a class."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        msg = f"'{text}' is no threshold; expected a number, or one a class, such as 0.8,0.9."
        raise click.BadParameter(msg) from error
    return found if len(found) > 1 else found[0]
