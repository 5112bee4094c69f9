"""Which registration lays labels best, how many atlases make a prior, and what a pair costs.

    python benchmarks/registration.py --data FOLDER --json benchmarks/results/registration.json

Dice of warped labels against the truth, mean over structures without background, on hippocampi (the 160
training scans of the project's datalist; test scans are never opened) and on simulated whole brains at 2 mm.
One process, one thread, CPU seconds. Simulated scans are smooth warps of one template and flatter every
registration: they are here for times and folding.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from medssl.io.cohort import item, read_cohort
from medssl.io.files import read_json, write_json
from medssl.io.subjects import Cohort
from medssl.registration import RegistrationSettings, Scan, anatomical_prior, register
from medssl.transforms import preprocessing
from medssl.workflows.simulate import simulate_cohort

METHODS = {
    "centers only": RegistrationSettings(affine=False, deformation="none"),
    "affine only": RegistrationSettings(deformation="none"),
    "demons without affine": RegistrationSettings(affine=False),
    "affine + diffeomorphic demons": RegistrationSettings(deformation="diffeomorphic"),
    "affine + demons": RegistrationSettings(),
}
SLOW = {"affine + B-spline": RegistrationSettings(deformation="bspline", iterations=(10,))}
"""Run on the first hippocampi only; ten iterations on one level, since more take minutes a pair."""

ATLASES = 8


PARTS = (
    "hippocampus",
    "hippocampus atlases",
    "hippocampus affine or centers",
    "simulated 2 mm",
    "simulated 1 mm",
    "hippocampus slow",
)


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
@click.option(
    "--part", "parts", multiple=True, type=click.Choice(PARTS), default=PARTS, help="Others stay as they are."
)
@click.option("--targets", default=20, show_default=True, help="Hippocampi to register to.")
@click.option("--simulated", default=4, show_default=True, help="Simulated brains to register to.")
@click.option("--slow", default=2, show_default=True, help="Hippocampi to register to by B-splines.")
@click.option("--seed", default=0, show_default=True)
def main(
    data: Path, out: Path, parts: Sequence[str], targets: int, simulated: int, slow: int, seed: int
) -> None:
    """Register, compare, write."""
    torch.set_num_threads(1)
    cohort = read_cohort(data, ("T1w",), mask="none")
    order = np.random.default_rng(seed).permutation(len(cohort.training))[::-1]
    scans, labels = _scans(cohort, order[: 3 * targets], 1.0), len(cohort.table)
    default = {"affine + demons": METHODS["affine + demons"]}
    ways: Mapping[str, Callable[[], object]] = {
        "hippocampus": lambda: _methods(METHODS, scans, targets, targets, labels),
        "hippocampus atlases": lambda: _numbers_of_atlases(
            scans[: targets // 2], scans[targets : targets + ATLASES], labels
        ),
        "hippocampus affine or centers": lambda: _affine_or_centers(scans, targets, labels),
        "simulated 2 mm": lambda: _simulated(METHODS, simulated, 2.0, seed),
        "simulated 1 mm": lambda: _simulated(default, simulated, 1.0, seed),
        "hippocampus slow": lambda: _methods(SLOW, scans, targets, slow, labels),
    }
    found = read_json(out) if out.is_file() else {}
    for part in parts:
        found |= {"seed": seed, part: ways[part]()}
        write_json(out, found)


def _simulated(
    methods: Mapping[str, RegistrationSettings], targets: int, spacing: float, seed: int
) -> dict[str, object]:
    """Simulate whole brains and register them."""
    number = 3 * targets
    with tempfile.TemporaryDirectory() as place:
        folder = simulate_cohort(
            Path(place) / "cohort", number, number, 0, seed, spacing=spacing, processes=1
        )
        cohort = read_cohort(folder)
        brains = _scans(cohort, range(number), spacing)
    return _methods(methods, brains, targets, targets, len(cohort.table))


def _scans(cohort: Cohort, numbers: Sequence[int], spacing: float) -> list[Mapping[str, Any]]:
    """Preprocess some of the training scans as the package does."""
    prepare = preprocessing(table=cohort.table, spacing=(spacing,) * 3)
    scans = []
    for number in numbers:
        sample = prepare(item(cohort.training[number]))
        mask = np.asarray(sample["mask"])[0] > 0.5
        scan = Scan(np.asarray(sample["image"]), np.asarray(sample["image"].affine), mask)
        scans.append({"scan": scan, "label": np.asarray(sample["label"])[0]})
    return scans


def _methods(
    methods: Mapping[str, RegistrationSettings],
    scans: Sequence[Mapping[str, Any]],
    targets: int,
    first: int,
    classes: int,
) -> dict[str, object]:
    """Register two atlases of its own to each of the first targets, with every method."""
    rows: dict[str, Any] = {}
    for name, settings in methods.items():
        single, averaged, folding, seconds = [], [], [], []
        for number, target in enumerate(scans[:first]):
            warped = []
            for atlas in scans[targets + 2 * number : targets + 2 * number + 2]:
                start = time.process_time()
                registration = register(target["scan"], atlas["scan"], settings)
                seconds.append(time.process_time() - start)
                warped.append(registration.warp_labels(atlas["label"], classes))
                folding.append(registration.folding)
                single.append(_dice(warped[-1], target["label"]))
            averaged.append(_dice(anatomical_prior(warped, [1.0, 1.0]), target["label"]))
        rows[name] = {
            "pairs": len(single),
            "dice_one_atlas": float(np.mean(single)),
            "dice_two_averaged": float(np.mean(averaged)),
            "sd_two_averaged": float(np.std(averaged)),
            "folding_mean": float(np.mean(folding)),
            "folding_max": float(np.max(folding)),
            "seconds_median": float(np.median(seconds)),
            "seconds_max": float(np.max(seconds)),
        }
        _tell(name, rows[name])
        rows[name] |= {"dice_by_target": averaged}
    return rows


def _affine_or_centers(scans: Sequence[Mapping[str, Any]], targets: int, classes: int) -> dict[str, object]:
    """Ask whether the affine step should be left out where it lowers the similarity, or where the end is less alike."""
    rows = []
    for number, target in enumerate(scans[:targets]):
        for atlas in scans[targets + 2 * number : targets + 2 * number + 2]:
            found = {
                name: register(target["scan"], atlas["scan"], METHODS[name])
                for name in ("centers only", "affine only", "demons without affine", "affine + demons")
            }
            dice = {
                name: _dice(found[name].warp_labels(atlas["label"], classes), target["label"])
                for name in ("demons without affine", "affine + demons")
            }
            harmed = found["affine only"].similarity < found["centers only"].similarity
            worse = found["affine + demons"].similarity < found["demons without affine"].similarity
            rows.append((*dice.values(), dice["demons without affine" if harmed else "affine + demons"], harmed,
                         dice["demons without affine" if worse else "affine + demons"], worse))  # fmt: skip
    values = np.array(rows, float)
    names = (
        "dice_without",
        "dice_with",
        "dice_fallback",
        "affine_lowers",
        "dice_more_alike",
        "end_less_alike",
    )
    row: dict[str, object] = {"pairs": len(rows)} | {
        name: float(column.mean() if name.startswith("dice") else column.sum())
        for name, column in zip(names, values.T, strict=True)
    }
    _tell("affine or centers", row)
    return row


def _numbers_of_atlases(
    targets: Sequence[Mapping[str, Any]], atlases: Sequence[Mapping[str, Any]], classes: int
) -> dict[str, object]:
    """Average the N most similar of the atlases, and N in a fixed order for comparison."""
    numbers = [n for n in (1, 2, 4, 6, 8) if n <= len(atlases)]
    nearest: dict[int, list[float]] = {n: [] for n in numbers}
    fixed: dict[int, list[float]] = {n: [] for n in numbers}
    for target in targets:
        pairs = [(register(target["scan"], atlas["scan"]), atlas["label"]) for atlas in atlases]
        warped = [registration.warp_labels(label, classes) for registration, label in pairs]
        order = np.argsort([-registration.similarity for registration, _ in pairs], kind="stable")
        for n in numbers:
            near = [warped[number] for number in order[:n]]
            nearest[n].append(_dice(anatomical_prior(near, [1.0] * n), target["label"]))
            fixed[n].append(_dice(anatomical_prior(warped[:n], [1.0] * n), target["label"]))
    rows: dict[str, object] = {
        str(n): {"dice_nearest": float(np.mean(nearest[n])), "dice_any": float(np.mean(fixed[n]))}
        for n in numbers
    }
    for name, row in rows.items():
        _tell(f"{name} of {len(atlases)} atlases", row)
    return rows


def _dice(probabilities: NDArray[np.floating], label: NDArray[Any]) -> float:
    """Return the mean Dice of the likeliest class, background left out."""
    chosen = probabilities.argmax(0)
    scores = []
    for number in range(1, len(probabilities)):
        sizes = np.sum(chosen == number) + np.sum(label == number)
        scores.append(2 * np.sum((chosen == number) & (label == number)) / max(1, sizes))
    return float(np.mean(scores))


def _tell(name: str, row: object) -> None:
    print(f"{name:32s}", *(f"{key} {value:.4g}" for key, value in dict(row).items()), flush=True)


if __name__ == "__main__":
    main()
