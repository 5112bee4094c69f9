"""The main job from one end to the other on a simulated cohort."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import OutputError
from medssl.io.cohort import read_cohort
from medssl.workflows.check import check
from medssl.workflows.evaluate import evaluate
from medssl.workflows.harmless import train_checked
from medssl.workflows.report import write_report
from medssl.workflows.segment import Options, segment
from medssl.workflows.simulate import simulate_cohort
from medssl.workflows.train import TrainOptions
from medssl.workflows.watching import Watcher

MARKER = ".medssl-demo"
"""File that says a folder was made by the demo, so that the demo may replace it."""

Bar = Callable[[str], AbstractContextManager[Callable[[str, int, int], None]]]
"""Opens a progress bar with a title."""


@dataclass(frozen=True)
class DemoPlan:
    """The size of the demo.

    Args:
        labeled: Scans that training may see the labels of.
        validation: Labeled scans that choose the best step, and judge whether the unlabeled ones helped.
        unlabeled: Scans listed without labels.
        test: Scans that only the final scores see.
        spacing: mm.
        epochs: Of 25 optimizer steps with four crops of 32^3 voxels, for each of the two networks.
        network: Of both.
        seed: Of everything.
    """

    labeled: int = 3
    validation: int = 2
    unlabeled: int = 4
    test: int = 4
    spacing: float = 2.0
    epochs: int = 10
    network: str = "dense-fcn"
    seed: int = 0


def demo(
    out: Path,
    plan: DemoPlan | None = None,
    *,
    overwrite: bool = False,
    say: Callable[[str], None],
    bar: Bar,
    training_bar: Callable[[], AbstractContextManager[Watcher]],
) -> Path:
    """Simulate, check, train with and without unlabeled scans, segment, evaluate and report; return the report.

    Args:
        out: Folder to make.
        plan: The size of the demo.
        overwrite: Replace an earlier demo in ``out``.
        say: Told each command before it runs, and what comes of it.
        bar: Opens a progress bar.
        training_bar: Opens the progress of the training.

    Raises:
        OutputError: The folder is in use.
    """
    plan = plan or DemoPlan()
    make_room(out, overwrite)
    cohort, run, maps, scores = out / "cohort", out / "run", out / "maps", out / "scores.tsv"
    subjects = plan.labeled + plan.validation + plan.unlabeled + plan.test
    sizes = f"--subjects {subjects} --labeled {plan.labeled} --unlabeled {plan.unlabeled}"
    training = f"--network {plan.network} --budget quick --set epochs={plan.epochs}"
    commands = [
        f"medssl simulate cohort {sizes} --validation {plan.validation} --spacing {plan.spacing:g} --seed {plan.seed}",
        "medssl check cohort",
        f"medssl train cohort --out run --method ssldec {training} --seed {plan.seed}",
        "medssl segment cohort --out maps --model run",
        "medssl evaluate maps cohort --out scores.tsv",
    ]
    say(commands[0])
    with bar("Simulating") as progress:
        simulate_cohort(
            cohort,
            subjects,
            plan.labeled,
            plan.unlabeled,
            plan.seed,
            validation=plan.validation,
            spacing=plan.spacing,
            progress=progress,
        )
    say(commands[1])
    with bar("Checking") as progress:
        found = check(cohort, progress=progress)
    say(f"{len(found.reports)} subjects, {len(found.problems)} problems")
    say(commands[2])
    options = TrainOptions(
        method="ssldec",
        network=plan.network,
        budget="quick",
        seed=plan.seed,
        settings={"epochs": plan.epochs},
    )
    with training_bar() as watcher:
        train_checked(cohort, run, options, watcher, say=say)
    say(commands[3])
    with bar("Segmenting") as progress:
        segment(cohort, maps, run, Options(), progress)
    say(commands[4])
    with bar("Evaluating") as progress:
        evaluate(maps, cohort, scores, progress=progress)
    return write_report(
        out / "report.html",
        cohort=read_cohort(cohort),
        run=run,
        segmentation=maps,
        evaluation=scores,
        commands=commands,
        title="medssl demo: infant brain tissues on simulated scans",
    )


def make_room(out: Path, overwrite: bool) -> None:
    """Make the folder of a demo, in place of an earlier one if that is wished.

    Raises:
        OutputError: The folder is in use, or was not made by a demo.
    """
    if out.exists() and any(out.iterdir()):
        if not (overwrite and (out / MARKER).is_file()):
            msg = f"The folder {out} is not empty" + (
                "." if (out / MARKER).is_file() else " and was not made by the demo."
            )
            raise OutputError(msg, "Choose another --out, or replace an earlier demo with --overwrite.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()
