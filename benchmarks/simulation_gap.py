"""Is the simulated cohort hard enough? Train on 2 and on 18 labeled scans at equal steps and compare.

    python benchmarks/simulation_gap.py --json benchmarks/results/simulation_gap.json

18 training and 6 test scans at 2 mm; the seed changes which two scans are labeled, the initialization and
the order of crops. Every finished run is a row in the JSON file; a second call goes on where one stopped.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from medssl.io.cohort import read_cohort
from medssl.io.datalist import write_datalist
from medssl.io.files import write_json
from medssl.io.subjects import Cohort
from medssl.workflows.models import quiet_libraries
from medssl.workflows.simulate import simulate_cohort
from medssl.workflows.study import dice_of_run
from medssl.workflows.train import TrainOptions, train

TRAINING, TEST, SPACING = 18, 6, 2.0


@click.command()
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
@click.option("--labeled", multiple=True, type=int, default=(2, 18), show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--epochs", default=12, show_default=True, help="Of 25 steps with 4 crops of 32^3 voxels.")
@click.option("--network", default="dense-fcn", show_default=True)
@click.option("--augmentation", default=1.0, show_default=True, help="Strength; 0: crops and flips only.")
@click.option("--work", type=click.Path(path_type=Path), help="Keep the cohort and the runs here.")
def main(out: Path, labeled: tuple[int, ...], seeds: int, work: Path | None, **setting: Any) -> None:
    """Train, score, and write one row a run."""
    quiet_libraries()
    rows = json.loads(out.read_text())["runs"] if out.is_file() else []
    with tempfile.TemporaryDirectory() as temporary:
        place = work or Path(temporary)
        cohort = _cohort(place / "cohort")
        for seed in range(seeds):
            for count in labeled:
                facts = {"seed": seed, "labeled": count, **setting}
                if not any(facts.items() <= row.items() for row in rows):
                    rows.append(facts | _run(cohort, place, facts))
                    sizes = {"spacing_mm": SPACING, "training_scans": TRAINING, "test_scans": TEST}
                    write_json(out, {**sizes, "runs": rows})
                    print(json.dumps(rows[-1]), flush=True)
    for count in labeled:
        wanted = {"labeled": count, **setting}
        dice = [row["dice"] for row in rows if wanted.items() <= row.items()]
        print(
            f"{count:3d} labeled: mean Dice {statistics.mean(dice):.4f}, seeds {[round(d, 4) for d in dice]}"
        )


def _cohort(folder: Path) -> Cohort:
    if not folder.exists():
        simulate_cohort(folder, TRAINING + TEST, TRAINING, 0, seed=2024, spacing=SPACING)
    return read_cohort(folder)


def _run(cohort: Cohort, place: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Train on some of the training scans and score the test scans."""
    order = np.random.default_rng(facts["seed"]).permutation(len(cohort.training))[: facts["labeled"]]
    chosen = replace(cohort, training=tuple(cohort.training[number] for number in sorted(order)), test=())
    folder = place / "-".join(f"{name}-{value}" for name, value in facts.items())
    write_datalist(folder / "data" / "datalist.json", chosen)
    settings = {"epochs": facts["epochs"], "augmentation_strength": facts["augmentation"]}
    options = TrainOptions(network=facts["network"], budget="quick", seed=facts["seed"], settings=settings)
    started = time.monotonic()
    train(folder / "data", folder / "run", options)
    seconds = round(time.monotonic() - started)
    dice = {label: float(np.mean(some)) for label, some in dice_of_run(folder / "run", cohort.test).items()}
    return {"dice": float(np.mean(list(dice.values()))), "dice_per_label": dice, "seconds": seconds}


if __name__ == "__main__":
    main()
