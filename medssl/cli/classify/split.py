"""`medssl classify split`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medssl.cli.classify.common import outside_option, skip_option
from medssl.cli.common import EXISTING, STDERR, STDOUT, example, progress_bar


@example("medssl classify split images --out manifest.csv --validation 0.1 --test 0.25 --labels-per-class 75")
@click.command()
@click.argument("data", type=EXISTING)
@click.option(
    "--out",
    type=EXISTING,
    required=True,
    help="Manifest to write (CSV), outside DATA; images stay where they are.",
)
@click.option("--validation", default=0.1, show_default=True, type=click.FloatRange(0, 0.9),
              help="Share; 0: none is drawn, val/ stays as it is.")  # fmt: skip
@click.option("--test", default=0.25, show_default=True, type=click.FloatRange(0, 0.9),
              help="Share; 0: none is drawn, test/ stays as it is.")  # fmt: skip
@click.option("--labels-per-class", type=click.IntRange(1), help="Keep so many; the rest becomes unlabeled.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same division.")
@click.option("--fold", callback=lambda *args: _fold(args[-1]), metavar="I/N",
              help="Cross-validation: the I-th of N parts of the labeled images validates.")  # fmt: skip
@skip_option
@outside_option
def split(out: Path, data: Path, **options: Any) -> None:
    """Divide the labeled images of DATA, class by class, groups (patients) whole; write a manifest.

    An image that is there several times stands on one side; unlabeled copies of held-out images are left out.

    Draws are nested: those of 25 labels a class are contained in those of 75 with the same seed.
    """
    from medssl.workflows.classification.split import split_folder

    with progress_bar("Looking at images") as progress:
        counts = split_folder(data, out, progress=progress, **options)
    STDERR.print(", ".join(f"{number} {name}" for name, number in counts.items()) + " images.")
    STDOUT.print(str(out), soft_wrap=True)


def _fold(text: str | None) -> tuple[int, int] | None:
    """Read "2/5"."""
    if text is None:
        return None
    number, _, folds = text.partition("/")
    if not (number.isdecimal() and folds.isdecimal()):
        msg = f"'{text}' is no fold; expected I/N, such as 2/5."
        raise click.BadParameter(msg)
    return int(number), int(folds)
