"""Which weight w of registered labels is chosen on held-out scans, and what it is worth on others.

    python benchmarks/anatomy_weight.py --data HIPPOCAMPUS --json benchmarks/results/anatomy_weight.json

A labeled-only network is trained on some hippocampi. w is chosen as `medssl train` does, on one, two and four further
labeled scans (what a check has), for each target rule; then likelihood and Dice of the targets of 20 other scans, which
neither saw, tell how good that choice was, beside every other w. No test scan is opened. One JSON row a run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from medssl.functional.anatomy_weight import WeightChoice
from medssl.functional.clustering import RULES
from medssl.io.cohort import read_cohort
from medssl.io.datalist import write_datalist
from medssl.io.files import write_json
from medssl.io.subjects import Cohort
from medssl.workflows.anatomy_weight import weigh_anatomy
from medssl.workflows.models import quiet_libraries
from medssl.workflows.train import TrainOptions, train

CHOOSING = (1, 2, 4)
JUDGING = 20


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
@click.option("--labeled", multiple=True, type=int, default=(2, 4), show_default=True)
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2), show_default=True)
@click.option("--epochs", default=24, show_default=True, help="Of 25 steps with 4 crops.")
def main(data: Path, out: Path, labeled: Sequence[int], seeds: Sequence[int], epochs: int) -> None:
    """Train, choose, judge, write; go on where an earlier call stopped."""
    quiet_libraries()
    torch.set_num_threads(1)
    cohort = read_cohort(data, ("T1w",), mask="none")
    rows: list[dict[str, Any]] = json.loads(out.read_text())["runs"] if out.is_file() else []
    for seed in seeds:
        for count in labeled:
            facts = {"labeled": count, "seed": seed, "epochs": epochs}
            if not any(facts.items() <= row.items() for row in rows):
                rows.append(facts | _run(cohort, **facts))
                write_json(out, {"runs": rows})
                print(json.dumps(rows[-1]), flush=True)


def _run(cohort: Cohort, labeled: int, seed: int, epochs: int) -> dict[str, Any]:
    order = np.random.default_rng(seed).permutation(len(cohort.training))
    scans = [cohort.training[place] for place in order]
    others = scans[labeled:]
    seen = replace(cohort, training=tuple(scans[:labeled]), validation=(), unlabeled=(), test=())
    work = Path(tempfile.mkdtemp())
    try:
        write_datalist(work / "data" / "datalist.json", seen)
        settings = {"epochs": epochs, "crop_size": [32, 48, 32], "batch_size": 4}
        chosen = TrainOptions(network="basic-unet", budget="quick", seed=seed, settings=settings)
        train(work / "data", work / "run", chosen)
        return {rule: _judged(work, seen, others, rule) for rule in RULES}
    finally:
        shutil.rmtree(work)


def _judged(work: Path, seen: Cohort, others: Sequence[Any], rule: str) -> dict[str, Any]:
    """Choose w on the first of the other scans, and look at every w on those that follow."""
    options = TrainOptions(method="ssldec", prior="anatomical", target_rule=rule)
    held_out = {n: replace(seen, validation=tuple(others[:n])) for n in CHOOSING}
    choices = {n: _choice(work, part, options) for n, part in held_out.items()}
    last = max(CHOOSING)
    judged = replace(seen, validation=tuple(others[last : last + JUDGING]))
    known = _choice(work, judged, options)
    return {
        "chosen": {str(n): choice.weight for n, choice in choices.items()},
        "likelihood": {str(w): value for w, value in known.likelihood.items()},
        "dice": {str(w): value for w, value in known.dice.items()},
    }


def _choice(work: Path, part: Cohort, options: TrainOptions) -> WeightChoice:
    """Choose w.

    Raises:
        RuntimeError: No scan could be registered.
    """
    choice = weigh_anatomy(work / "run", part, options, work).choice
    if choice is None:
        msg = "None of the labeled scans could be laid over a held-out one."
        raise RuntimeError(msg)
    return choice


if __name__ == "__main__":
    main()
