"""Do unlabeled scans help? Every arm at equal total steps, crops and augmentation, over seeds.

    python benchmarks/ssl_segmentation.py --json benchmarks/results/ssl_segmentation.json --cohort simulated
    python benchmarks/ssl_segmentation.py --json ... --cohort "simulated, other site"
    python benchmarks/ssl_segmentation.py --json ... --cohort hippocampus --data HIPPOCAMPUS

One JSON row a finished run; a second call goes on where one stopped. The seed changes which scans are labeled,
the initialization and the order of crops. Test scans are never in training. Dice on the unlabeled scans
themselves is transductive and is named so.
"""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from studies import (
    COHORTS,
    OTHER_SITE,
    add_row,
    cohort_of_study,
    folder_of,
    random_order,
    rows_of,
    scores,
    shared_registrations,
    with_labels_of,
)

from medssl.io.datalist import write_datalist
from medssl.io.subjects import Cohort
from medssl.workflows.anatomical_factor import AnatomicalFactor
from medssl.workflows.models import quiet_libraries
from medssl.workflows.train import TrainOptions, train, training_spacing

FAITHFUL: dict[str, Any] = {
    "method": "ssldec",
    "target_rule": "dec",
    "schedule": "union_reinit",
    "rounds": 2,
    "settings": {
        "network_def#alpha": 1.0,
        "loss#labeled_loss": {"_target_": "medssl.objectives.SupervisedLoss", "dice_weight": 0.0},
    },
}
PUBLISHED = {
    **FAITHFUL,
    "settings": {
        **FAITHFUL["settings"],
        "features": 3,
        "scope": "subject",
        "flips": False,
    },  # D = K of both cohorts
}
ANATOMICAL = {"method": "ssldec", "prior": "anatomical"}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "labeled-only": {},
    "labeled-only, clustering head": {"clustering_head": True},
    "ceiling": {},
    "pseudo-label, online": {"method": "pseudo-label"},
    "pseudo-label, 1 round": {"method": "pseudo-label", "rounds": 1},
    "pseudo-label, 2 rounds": {"method": "pseudo-label", "rounds": 2},
    "mean teacher": {"method": "mean-teacher"},
    "soft targets, 1 round": {"method": "ssldec", "rounds": 1, "target_rule": "soft"},
    "ssldec dec, 2 rounds": {"method": "ssldec", "rounds": 2, "target_rule": "dec"},
    "ssldec sharpen, 2 rounds": {"method": "ssldec", "rounds": 2, "target_rule": "sharpen"},
    "ssldec prior, 2 rounds": {"method": "ssldec", "rounds": 2, "target_rule": "prior"},
    "ssldec dec, online": {"method": "ssldec", "target_rule": "dec", "prior": "class"},
    "ssldec sharpen, online": {"method": "ssldec", "target_rule": "sharpen", "prior": "class"},
    "ssldec prior, online": {"method": "ssldec", "target_rule": "prior", "prior": "class"},
    "ssldec anatomical": ANATOMICAL,
    "ssldec anatomical, 2 rounds": {**ANATOMICAL, "rounds": 2, "target_rule": "prior"},
    "ssldec anatomical, 2 rounds, reinitialized": {
        **ANATOMICAL,
        "rounds": 2,
        "target_rule": "prior",
        "schedule": "union_reinit",
    },
    "ssldec prior, alternate": {
        "method": "ssldec",
        "rounds": 2,
        "target_rule": "prior",
        "schedule": "alternate",
    },
    "ssldec anatomical, softmax head": {**ANATOMICAL, "clustering_head": False},
    "ssldec anatomical, targets only": {**ANATOMICAL, "settings": {"registered_share": 0.0}},
    "registered crops only": {**ANATOMICAL, "clustering_head": False, "settings": {"unlabeled_start": 1.0}},
    "ssldec dec, reinitialized (faithful)": FAITHFUL,
    "ssldec as published": PUBLISHED,
}
"""What each arm is, as `TrainOptions`; the last two train without a Dice term."""

WITH_ANATOMY = ("labeled-only", "ssldec anatomical")
"""Arms that are scored a second time with the registered labels as a factor at inference."""

UNLABELED_SCORED = 20
"""At most so many unlabeled scans are scored, the first ones."""


@click.command()
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
@click.option("--cohort", "name", type=click.Choice(list(COHORTS)), default="simulated", show_default=True)
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the real cohort.")
@click.option("--arm", "arms", multiple=True, type=click.Choice(list(ARMS)), default=tuple(ARMS))
@click.option("--labeled", multiple=True, type=int, default=(1, 2, 4), show_default=True)
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2), show_default=True)
@click.option("--epochs", default=48, show_default=True, help="Of 25 steps with 4 crops.")
@click.option("--network", default="dense-fcn-small", show_default=True)
@click.option("--augmentation", default=1.0, show_default=True, help="Strength.")
@click.option("--set", "changes", multiple=True, help="KEY=JSON, a further value; becomes part of the row.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("ssl-work"), show_default=True)
def main(
    out: Path,
    name: str,
    data: Path | None,
    arms: Sequence[str],
    labeled: Sequence[int],
    seeds: Sequence[int],
    changes: Sequence[str],
    work: Path,
    **setting: Any,
) -> None:
    """Train, score, and write one row a run."""
    quiet_libraries()
    rows = rows_of(out)
    cohort = cohort_of_study(name, data, work)
    extra = {key: json.loads(value) for key, _, value in (change.partition("=") for change in changes)}
    for seed, count, arm in itertools.product(seeds, labeled, arms):
        used = len(cohort.training) if arm == "ceiling" else count
        facts = {"cohort": name, "arm": arm, "labeled": used, "seed": seed, **setting, "set": extra}
        if not any(all(row.get(key) == value for key, value in facts.items()) for row in rows):
            row = facts | _run(cohort, work, facts)
            rows = add_row(out, row)
            print(arm, used, seed, f"{row['dice']:.4f}", f"{row['seconds']} s", flush=True)
    _print_table(rows)


def _run(cohort: Cohort, work: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    order, count = random_order(cohort, facts["seed"]), facts["labeled"]
    others = list(cohort.unlabeled) if facts["cohort"] == OTHER_SITE else order[count:]
    seen = with_labels_of(cohort, order[:count], others)
    folder = folder_of(work, facts)
    shutil.rmtree(folder, ignore_errors=True)
    write_datalist(folder / "data" / "datalist.json", seen)
    arm = dict(ARMS[facts["arm"]])
    settings = {
        "epochs": facts["epochs"],
        "augmentation_strength": facts["augmentation"],
        "crop_size": COHORTS[facts["cohort"]]["crop_size"],
        "batch_size": 4,
        **(shared_registrations(work) if arm.get("prior") == "anatomical" else {}),
        **arm.pop("settings", {}),
        **facts["set"],
    }
    options = TrainOptions(
        network=facts["network"], budget="quick", seed=facts["seed"], settings=settings, **arm
    )
    started = time.monotonic()
    trained = train(folder / "data", folder / "run", options)
    seconds = round(time.monotonic() - started)
    row: dict[str, Any] = {"steps": trained.steps, "seconds": seconds}
    for key, subjects in (("test", cohort.test), ("unlabeled (transductive)", others[:UNLABELED_SCORED])):
        if subjects:
            row[key] = scores(folder / "run", subjects)
            if facts["arm"] in WITH_ANATOMY:
                anatomy = AnatomicalFactor(
                    folder / "run",
                    contrasts=cohort.contrasts,
                    table=cohort.table,
                    spacing=training_spacing(seen),
                    folder=work / "inference",
                    processes=1,
                )
                row[f"{key}, with anatomy"] = scores(folder / "run", subjects, anatomy)
    row["dice"] = row["test"]["dice"]
    shutil.rmtree(folder)
    return row


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    settings = sorted({_setting(row) for row in rows})
    for setting in settings:
        print("\n" + setting)
        some = [row for row in rows if _setting(row) == setting]
        for arm, labeled in sorted(
            {(row["arm"], row["labeled"]) for row in some}, key=lambda pair: pair[::-1]
        ):
            found = [row for row in some if (row["arm"], row["labeled"]) == (arm, labeled)]
            dice = [row["dice"] for row in sorted(found, key=lambda row: row["seed"])]
            spread = statistics.stdev(dice) if len(dice) > 1 else float("nan")
            values = " ".join(f"{one:.4f}" for one in dice)
            print(f"  {labeled:4d}  {arm:38s} {statistics.mean(dice):.4f} +- {spread:.4f}   {values}")


def _setting(row: Mapping[str, Any]) -> str:
    return f"{row['cohort']}, {row['network']}, {row['steps']} steps, augmentation {row['augmentation']}, {row['set']}"


if __name__ == "__main__":
    main()
