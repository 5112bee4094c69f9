"""Does labeling the scans that `medssl rank` puts first beat labeling scans at random?

    python benchmarks/label_next.py --json benchmarks/results/label_next.json --cohort simulated --spacing 3
    python benchmarks/label_next.py --json ... --cohort hippocampus --data HIPPOCAMPUS --pool 40

For each seed: two labeled scans, a labeled-only network; it ranks the other scans; two more are labeled and a
network is trained anew with as many steps. The two are the first by rank, by one part of the rank alone, or drawn
at random. The seed changes the first two scans, the draws, the initialization and the crops; test scans are in no
training and no ranking. One JSON row a finished run; a second call goes on where one stopped.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from studies import (
    COHORTS,
    OTHER_SITE,
    add_row,
    cohort_of_study,
    folder_of,
    random_order,
    rows_of,
    scores,
    with_labels_of,
)

from medssl.io.datalist import write_datalist
from medssl.io.subjects import Cohort
from medssl.workflows.models import quiet_libraries
from medssl.workflows.ranking import Ranked, RankOptions, rank
from medssl.workflows.train import TrainOptions, train

STEPS_PER_EPOCH = 25
ORDERS = {
    "rank": lambda one: one.score,
    "entropy alone": lambda one: one.entropy,
    "distance alone": lambda one: one.distance,
}
"""What the next scans are chosen by, the largest first."""


@click.command()
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
@click.option(
    "--cohort",
    "name",
    type=click.Choice([name for name in COHORTS if name != OTHER_SITE]),
    default="simulated",
    show_default=True,
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the real cohort.")
@click.option("--spacing", default=2.0, show_default=True, help="Of the simulated cohort, in mm.")
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2), show_default=True)
@click.option("--start", default=2, show_default=True, help="Labeled scans to begin with.")
@click.option("--next", "count", default=2, show_default=True, help="Scans to label then.")
@click.option("--draws", default=3, show_default=True, help="Random choices to compare with, a seed.")
@click.option("--order", "orders", multiple=True, type=click.Choice(list(ORDERS)), default=("rank",),
              show_default=True)  # fmt: skip
@click.option("--pool", type=int, help="Unlabeled scans to rank.  [default: all others]")
@click.option("--steps", default=300, show_default=True, help="Of every training.")
@click.option("--network", default="basic-unet", show_default=True)
@click.option("--crop", type=int, help="Side of the crops.  [default: that of the cohort]")
@click.option("--set", "changes", multiple=True, help="KEY=JSON, a further value; becomes part of the row.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("label-next-work"), show_default=True)
def main(
    out: Path,
    name: str,
    data: Path | None,
    seeds: Sequence[int],
    orders: Sequence[str],
    draws: int,
    changes: Sequence[str],
    work: Path,
    **setting: Any,
) -> None:
    """Train, rank, label, train again, and write one row a run."""
    quiet_libraries()
    setting["set"] = {key: json.loads(value) for key, _, value in (one.partition("=") for one in changes)}
    cohort = cohort_of_study(name, data, work, setting["spacing"])
    for seed in seeds:
        study = Study(cohort, out, work, {"cohort": name, "seed": seed, **setting})
        first = study.row("start", ())
        for order in orders:
            study.row(order, first["orders"][order])
        for draw in range(draws):
            study.row(f"random {draw}", study.drawn(draw))
    print_table([row for row in rows_of(out) if row["cohort"] == name])


class Study:
    """The runs of one seed.

    Args:
        cohort: All scans, their labels included.
        out: File of rows.
        work: Folder for what is made on the way.
        facts: Cohort, seed and setting; part of every row.
    """

    def __init__(self, cohort: Cohort, out: Path, work: Path, facts: Mapping[str, Any]) -> None:
        order = random_order(cohort, facts["seed"])
        start, pool = facts["start"], facts["pool"]
        self.cohort, self.out, self.work, self.facts = cohort, out, work, facts
        self.first, self.pool = order[:start], order[start : None if pool is None else start + pool]

    def drawn(self, draw: int) -> list[str]:
        """Return scans of the pool that are drawn at random."""
        rng = np.random.default_rng([self.facts["seed"], draw])
        places = rng.choice(len(self.pool), self.facts["count"], replace=False)
        return [self.pool[place].key for place in places]

    def row(self, arm: str, chosen: Sequence[str]) -> dict[str, Any]:
        """Return the row of an arm, after the run if it was not made yet."""
        facts = {**self.facts, "arm": arm}
        for row in rows_of(self.out):
            if all(row.get(key) == value for key, value in facts.items()):
                return row
        row = facts | self.run(facts, chosen)
        add_row(self.out, row)
        print(self.facts["seed"], arm, *chosen, f"{row['dice']:.4f}", f"{row['seconds']} s", flush=True)
        return row

    def run(self, facts: Mapping[str, Any], chosen: Sequence[str]) -> dict[str, Any]:
        """Train with the first labeled scans and those that were chosen, and score."""
        extra = [subject for subject in self.pool if subject.key in chosen]
        rest = [subject for subject in self.pool if subject.key not in chosen]
        folder = folder_of(self.work, facts)
        shutil.rmtree(folder, ignore_errors=True)
        write_datalist(
            folder / "data" / "datalist.json", with_labels_of(self.cohort, self.first + extra, rest)
        )
        started = time.monotonic()
        trained = train(folder / "data", folder / "run", self.options())
        row: dict[str, Any] = {
            "labeled": [subject.key for subject in self.first + extra],
            "trained_steps": trained.steps,
            "seconds": round(time.monotonic() - started),
            **scores(folder / "run", self.cohort.test),
        }
        if facts["arm"] == "start":
            row |= self.rank_pool(folder)
        shutil.rmtree(folder)
        return row

    def options(self) -> TrainOptions:
        """Return how every network is trained."""
        facts = self.facts
        crop = [facts["crop"]] * 3 if facts["crop"] else COHORTS[facts["cohort"]]["crop_size"]
        settings = {
            "epochs": facts["steps"] // STEPS_PER_EPOCH,
            "steps_per_epoch": STEPS_PER_EPOCH,
            "crop_size": crop,
            "batch_size": 4,
            **facts["set"],
        }
        return TrainOptions(network=facts["network"], budget="quick", seed=facts["seed"], settings=settings)

    def rank_pool(self, folder: Path) -> dict[str, Any]:
        """Rank the pool with the first network; return the whole ranking and what each order chooses."""
        started = time.monotonic()
        mask = "none" if self.facts["cohort"] == "hippocampus" else None
        ranked = rank(folder / "data", folder / "run", folder / "measures", options=RankOptions(mask=mask))
        return {
            "rank_seconds": round(time.monotonic() - started),
            "orders": {name: first_by(ranked, key, self.facts["count"]) for name, key in ORDERS.items()},
            "ranking": [
                {
                    "subject": one.subject,
                    "score": one.score,
                    "entropy": one.entropy,
                    "disagreement": one.disagreement,
                    "distance": one.distance,
                    "reason": one.reason,
                }
                for one in ranked
            ],
        }


def first_by(ranked: Sequence[Ranked], key: Any, count: int) -> list[str]:
    """Return the subjects with the largest values."""
    return [one.subject for one in sorted(ranked, key=key, reverse=True)[:count]]


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print, a setting and seed, what the orders gain over the mean of the random draws."""
    settings = sorted({_setting(row) for row in rows})
    for setting in settings:
        print("\n" + setting)
        some = [row for row in rows if _setting(row) == setting]
        gains: dict[str, list[float]] = {}
        for seed in sorted({row["seed"] for row in some}):
            dice = {row["arm"]: row["dice"] for row in some if row["seed"] == seed}
            random = [value for arm, value in dice.items() if arm.startswith("random")]
            others = {arm: value for arm, value in dice.items() if not arm.startswith("random")}
            known = "  ".join(f"{arm} {value:.4f}" for arm, value in others.items())
            draws = " ".join(f"{value:.4f}" for value in random)
            if random:
                mean = statistics.mean(random)
                print(f"  seed {seed}: {known}  random {mean:.4f} ({draws})")
                for arm, value in others.items():
                    gains.setdefault(arm, []).append(value - mean)
        for arm, values in gains.items():
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            told = " ".join(f"{value:+.4f}" for value in values)
            print(f"  {arm} - random: {statistics.mean(values):+.4f} +- {spread:.4f}  ({told})")


def _setting(row: Mapping[str, Any]) -> str:
    names = ("cohort", "network", "steps", "spacing", "crop", "start", "count", "pool", "set")
    return ", ".join(f"{name} {row[name]}" for name in names)


if __name__ == "__main__":
    main()
