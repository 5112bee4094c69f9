"""Make the weights of the packaged bundle: simulated scans of varied contrast, age, site and spacing.

    python benchmarks/train_packaged_weights.py --work WORK --epochs 48 --install

Twenty training, four validation and six test scans are simulated in cohorts of their own seeds: both sites,
ages 5 to 7 months, spacing 0.8 to 1.2 mm. The validation scans only draw the curve: the weights of the last
step are taken. A second call goes on where one stopped. With --install the
weights and their scores are copied into bundles/infant_brain_segmentation.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from medssl.engines.checkpoints import save_atomically
from medssl.io.checkpoint import card_of, read_checkpoint
from medssl.io.cohort import read_cohort
from medssl.io.datalist import write_datalist
from medssl.io.files import read_json, write_json
from medssl.io.subjects import Cohort
from medssl.workflows.models import packaged_bundle, quiet_libraries
from medssl.workflows.simulate import simulate_cohort
from medssl.workflows.study import dice_of_run
from medssl.workflows.train import TrainOptions, train

SCANNERS = (
    {"site": "A", "spacing": 1.0, "age_months": 6.0},
    {"site": "A", "spacing": 0.8, "age_months": 5.5},
    {"site": "A", "spacing": 1.2, "age_months": 6.5},
    {"site": "B", "spacing": 1.0, "age_months": 6.0},
    {"site": "B", "spacing": (1.2, 1.0, 1.0), "age_months": 7.0},
    {"site": "A", "spacing": 1.0, "age_months": 5.0},
)
"""Settings of the six cohorts; each gives training, validation and test scans."""

TRAINING, VALIDATION, TEST = (4, 4, 3, 3, 3, 3), (1, 0, 1, 1, 0, 1), (1, 1, 1, 1, 1, 1)
"""Scans of each cohort."""


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Cohorts and run are kept here.")
@click.option("--epochs", default=48, show_default=True, help="Of 25 steps with 4 crops of 48^3 voxels.")
@click.option("--seed", default=0, show_default=True)
@click.option("--install", is_flag=True, help="Copy the weights into the bundle.")
@click.option("--rescore", is_flag=True, help="Train nothing, score the weights that the bundle has.")
def main(work: Path, epochs: int, seed: int, install: bool, rescore: bool) -> None:
    """Simulate, train, score, install."""
    quiet_libraries()
    cohort = _cohort(work, seed)
    run = packaged_bundle() if rescore else work / "run"
    if not rescore:
        _train(work, run, epochs, seed)
    scores = _scores(run, cohort)
    print(json.dumps(scores, indent=2))
    write_json(work / "scores.json", scores)
    if install:
        _install(run, scores, packaged_bundle())


def _train(work: Path, run: Path, epochs: int, seed: int) -> None:
    if not (run / "run.json").is_file() or not read_json(run / "run.json")["finished"]:
        settings = {"spacing": [1.0, 1.0, 1.0], "epochs": epochs, "patience": 0}
        options = TrainOptions(budget="standard", seed=seed, settings=settings)
        train(work / "data", run, options, resume=(run / "checkpoints" / "resume.pt").is_file())
    _keep_last_step(run)


def _cohort(work: Path, seed: int) -> Cohort:
    parts = []
    for number, (scanner, *counts) in enumerate(zip(SCANNERS, TRAINING, VALIDATION, TEST, strict=True)):
        folder = work / "data" / f"scanner-{number}"
        training, validation, test = counts
        if not folder.exists():
            total = training + validation + test
            simulate_cohort(
                folder, total, training, 0, seed=1000 * (seed + 1) + number, validation=validation, **scanner
            )
        parts.append(_renamed(read_cohort(folder), number))
    sections = ("training", "validation", "test")
    joined = {name: tuple(one for part in parts for one in part.section(name)) for name in sections}
    cohort = replace(parts[0], root=work / "data", **joined)
    write_datalist(work / "data" / "datalist.json", cohort)
    return cohort


def _renamed(cohort: Cohort, number: int) -> Cohort:
    sections = ("training", "validation", "test")
    renamed = {
        name: tuple(replace(one, subject=f"s{number}x{one.subject}") for one in cohort.section(name))
        for name in sections
    }
    return replace(cohort, **renamed)


def _scores(run: Path, cohort: Cohort) -> dict[str, float]:
    dice = dice_of_run(run, cohort.test)
    scores = {f"dice_{label}": round(float(np.mean(values)), 4) for label, values in dice.items()}
    return {
        **scores,
        "dice_mean": round(float(np.mean(list(dice.values()))), 4),
        "test_scans": len(cohort.test),
    }


def _keep_last_step(run: Path) -> None:
    model = run / "models" / "model.pt"
    card = card_of(read_checkpoint(model))
    last = read_checkpoint(run / "checkpoints" / "resume.pt")["model"]
    save_atomically(card.attached_to(last), model)


def _install(run: Path, scores: dict[str, float], bundle: Path) -> None:
    if run != bundle:
        shutil.copyfile(run / "models" / "model.pt", bundle / "models" / "model.pt")
    metadata = read_json(bundle / "configs" / "metadata.json")
    metadata["eval_metrics"] = scores
    write_json(bundle / "configs" / "metadata.json", metadata)


if __name__ == "__main__":
    main()
