"""What does the check of `medssl train` see of one draw of labeled scans? Two trainings on a part, scored on the rest.

    python benchmarks/check_of_a_draw.py --data HIPPOCAMPUS --labeled 4 --seed 2
        --json benchmarks/results/check_of_a_draw.json

The draw is that of `ssl_segmentation.py`. The candidates of the check alone are trained (labeled-only and SSLDEC, each
with the whole budget, on what the check leaves for training) and compared on the held-out labeled scans, as
`medssl train --method ssldec` does before it trains on all; then both are scored on the test scans, which decide
nothing. With `--work` a second call goes on where one stopped.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from studies import COHORTS, cohort_of_study, random_order, scores, shared_registrations, with_labels_of

from medssl.evaluation.verdict import verdict
from medssl.io.cohort import read_cohort
from medssl.io.datalist import write_datalist
from medssl.io.files import write_json
from medssl.workflows.harmless import LABELED_ONLY, is_checked, train_checked
from medssl.workflows.models import quiet_libraries
from medssl.workflows.train import TrainOptions

METHOD = "ssldec"


class _CheckDone(Exception):
    """What comes next is the training on all labeled scans."""


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of the hippocampi.")
@click.option("--labeled", default=4, show_default=True)
@click.option("--seed", default=2, show_default=True)
@click.option("--epochs", default=24, show_default=True, help="Of 25 steps with 4 crops.")
@click.option("--network", default="basic-unet", show_default=True)
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
@click.option(
    "--work", type=click.Path(path_type=Path), help="Folder that keeps trainings and registrations."
)
def main(data: Path, out: Path, work: Path | None, **draw: Any) -> None:
    """Train, compare, write."""
    quiet_libraries()
    with TemporaryDirectory() as scratch:
        found = _check(data, work or Path(scratch), **draw)
    write_json(out, {"command": "benchmarks/check_of_a_draw.py", **draw, **found})
    click.echo(found["sentence"])


def _check(data: Path, work: Path, *, labeled: int, seed: int, epochs: int, network: str) -> dict[str, Any]:
    cohort = cohort_of_study("hippocampus", data, work)
    order = random_order(cohort, seed)
    folder = work / f"check-{labeled}-{seed}"
    if not is_checked(folder / "run"):
        seen = with_labels_of(cohort, order[:labeled], order[labeled:])
        write_datalist(folder / "data" / "datalist.json", seen)
    settings = {
        "epochs": epochs,
        "crop_size": COHORTS["hippocampus"]["crop_size"],
        "batch_size": 4,
        **shared_registrations(work),
    }
    options = TrainOptions(method=METHOD, network=network, budget="quick", seed=seed, settings=settings)
    with suppress(_CheckDone):
        train_checked(folder / "data", folder / "run", options, resume=is_checked(folder / "run"), say=_stop)
    runs = folder / "run" / "candidates"
    known = read_cohort(runs / f"check-{METHOD}-data" / "datalist.json", ("T1w",), mask="none").training
    held_out = [one for one in order[:labeled] if one.key not in {scan.key for scan in known}]
    on_them, on_test = (
        {name: scores(runs / f"check-{name}", scans) for name in (LABELED_ONLY, METHOD)}
        for scans in (held_out, cohort.test)
    )
    before, after = (on_them[name]["dice_per_scan"] for name in (LABELED_ONLY, METHOD))
    told = verdict(METHOD, before, after)
    return {
        "sentence": told.sentence,
        "held_out": told.dice,
        "test": {name: found["dice"] for name, found in on_test.items()},
    }


def _stop(told: str) -> None:
    """Stop at "Training labeled-only", on all labeled scans; what the check trains is called "check-labeled-only"."""
    click.echo(told)
    if told.endswith(f" {LABELED_ONLY}"):
        raise _CheckDone


if __name__ == "__main__":
    main()
