"""What the experiments on cohorts share: reading or simulating one, hiding labels, scoring a run, keeping rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from medssl.io.cohort import read_cohort
from medssl.io.files import write_json
from medssl.io.lock import locked
from medssl.io.subjects import Cohort, Subject
from medssl.workflows.anatomical_factor import AnatomicalFactor
from medssl.workflows.simulate import simulate_cohort
from medssl.workflows.study import dice_of_run, mean_over_labels

OTHER_SITE = "simulated, other site"
COHORTS: Mapping[str, Mapping[str, Any]] = {
    "simulated": {"crop_size": [32, 32, 32], "spacing_mm": 2.0, "training": 18},
    OTHER_SITE: {"crop_size": [32, 32, 32], "spacing_mm": 2.0, "training": 18},
    "hippocampus": {"crop_size": [32, 48, 32], "spacing_mm": 1.0, "training": 160},
}


def cohort_of_study(name: str, data: Path | None, work: Path, spacing_mm: float | None = None) -> Cohort:
    """Read the real cohort, or simulate 18 scans for training and 6 for testing where they are not there yet.

    Of "simulated, other site" the scans with labels are those of site A; as many unlabeled ones, whose labels score
    them, and the test scans are of site B.

    Args:
        name: A key of `COHORTS`.
        data: Folder of the real cohort.
        work: Where the simulated one is kept.
        spacing_mm: Voxel size of the simulated one; None for that of `COHORTS`.
    """
    if name == "hippocampus":
        if data is None:
            msg = "--cohort hippocampus needs --data FOLDER."
            raise click.UsageError(msg)
        return read_cohort(data, ("T1w",), mask="none")
    spacing = spacing_mm or COHORTS[name]["spacing_mm"]
    cohort = _simulated(work / "cohort", COHORTS[name]["training"], spacing, "A")
    if name == "simulated":
        return cohort
    other = _simulated(work / "cohort-b", COHORTS[name]["training"], spacing, "B")
    unlabeled, test = (
        tuple(replace(scan, subject=f"b{scan.subject}") for scan in some)
        for some in (other.training, other.test)
    )  # other children than those of site A, whose numbers they have
    return replace(cohort, unlabeled=unlabeled, test=test)


def _simulated(folder: Path, training: int, spacing: float, site: str) -> Cohort:
    if not folder.exists():
        seed = {"A": 2024, "B": 2025}[site]
        simulate_cohort(folder, training + 6, training, 0, seed=seed, spacing=spacing, site=site)
    return read_cohort(folder)


def random_order(cohort: Cohort, seed: int) -> list[Subject]:
    """Return the training scans in an order that the seed decides; the first ones keep their labels."""
    order = np.random.default_rng(seed).permutation(len(cohort.training))
    return [cohort.training[place] for place in order]


def with_labels_of(cohort: Cohort, labeled: Sequence[Subject], pool: Collection[Subject]) -> Cohort:
    """Return what training may see: some scans with their labels, others without; no test scans."""
    hidden = tuple(replace(subject, label=None) for subject in pool)
    return replace(cohort, training=tuple(labeled), unlabeled=hidden, test=())


def shared_registrations(work: Path) -> dict[str, Any]:
    """Return settings with which all runs share their registrations: these depend on the pairs of scans alone."""
    place = "train#dataset#registered"
    return {f"{place}#folder": str(work.resolve()), f"{place}#processes": 1}


def scores(run: Path, subjects: Sequence[Subject], anatomy: AnatomicalFactor | None = None) -> dict[str, Any]:
    """Return the Dice of a run: the mean over labels and scans, and over one of them."""
    per_label = dice_of_run(run, subjects, anatomy)
    scans = mean_over_labels(per_label, subjects)
    return {
        "dice": float(np.mean(list(scans.values()))),
        "dice_per_label": {label: float(np.nanmean(values)) for label, values in per_label.items()},
        "dice_per_scan": scans,
    }


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return the finished runs of a file."""
    return json.loads(out.read_text())["runs"] if out.is_file() else []


def add_row(out: Path, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add a finished run to a file that other processes may have added to; return all."""
    with locked(out.with_name(f"{out.name}.lock"), str(out), patience_s=60):
        rows = [*rows_of(out), dict(row)]
        write_json(out, {"runs": rows})
    return rows


def folder_of(work: Path, facts: Mapping[str, Any]) -> Path:
    """Return a folder for a run, another one for every other run."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    arm = "".join(letter if letter.isalnum() else "-" for letter in str(facts.get("arm", "run")))
    return work / f"{arm}-{digest[:16]}"
