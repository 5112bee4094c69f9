r"""Tables, tests and a figure of what `ssl_segmentation.py` measured.

    python benchmarks/compare_arms.py --json benchmarks/results/ssl_segmentation.json --cohort hippocampus \
        --network basic-unet --epochs 24 --figure docs/images/unlabeled_hippocampus.png

An arm is compared with labeled-only on the seeds that both have, scan by scan with the seeds averaged: mean
difference with a 95 % bootstrap interval over scans, Wilcoxon's signed-rank test, Holm's correction over the
arms of a table. Scans of one test set are the units; seeds are not.

On the unlabeled scans, which are others with each draw of the labeled ones, the gain is that of each draw (seed), with
its interval over the scans of that draw. It is transductive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from medssl.evaluation.bootstrap import mean_interval
from medssl.evaluation.ranks import holm, wilcoxon

BASELINE = "labeled-only"
CEILING = "ceiling"
SCORES = ("test", "unlabeled (transductive)")
FACTOR = ", with anatomy"
EXACT_SCANS = 50
"""Test scans up to which the signed-rank test is exact."""

Rows = Sequence[Mapping[str, Any]]


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--cohort", default="hippocampus", show_default=True)
@click.option("--network", default="basic-unet", show_default=True)
@click.option("--epochs", default=24, show_default=True)
@click.option("--augmentation", default=1.0, show_default=True)
@click.option("--figure", type=click.Path(path_type=Path), help="PNG to draw.")
def main(
    path: Path, cohort: str, network: str, epochs: int, augmentation: float, figure: Path | None
) -> None:
    """Print one table for each number of labeled scans."""
    rows = [
        row
        for row in json.loads(path.read_text())["runs"]
        if (row["cohort"], row["network"], row["epochs"], row["augmentation"])
        == (cohort, network, epochs, augmentation)
        and not row["set"]
        and "superseded" not in row["arm"]
    ]
    ceiling = {row["seed"]: row["test"]["dice"] for row in rows if row["arm"] == CEILING}
    counts = sorted({row["labeled"] for row in rows if row["arm"] != CEILING})
    for labeled in counts:
        some = arms_of([row for row in rows if row["labeled"] == labeled and row["arm"] != CEILING])
        if BASELINE not in some:
            continue
        print(f"\n{cohort}, {network}, {rows[0]['steps']} steps, {labeled} labeled; ceiling {text(ceiling)}")
        print_table(some, ceiling)
    if figure is not None:
        draw(rows, counts, ceiling, figure)


def arms_of(rows: Rows) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Return arm -> seed -> scores; the anatomical factor at inference makes an arm of its own."""
    arms: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        plain = {name: row[name] for name in SCORES if name in row}
        arms.setdefault(row["arm"], {})[row["seed"]] = plain
        if SCORES[0] + FACTOR in row:
            fused = {name: row[name + FACTOR] for name in SCORES if name + FACTOR in row}
            arms.setdefault(row["arm"] + FACTOR, {})[row["seed"]] = fused
    return arms


def print_table(arms: Mapping[str, Mapping[int, Mapping[str, Any]]], ceiling: Mapping[int, float]) -> None:
    """Print Dice, gain over labeled-only, share of the gap, and p of each arm."""
    found = {arm: against(seeds, arms[BASELINE]) for arm, seeds in arms.items() if arm != BASELINE}
    corrected = holm({arm: one["p"] for arm, one in found.items() if one})
    for arm, seeds in sorted(arms.items(), key=lambda pair: pair[0] != BASELINE):
        dice = {seed: one[SCORES[0]]["dice"] for seed, one in sorted(seeds.items())}
        seen = [one[SCORES[1]]["dice"] for one in seeds.values() if SCORES[1] in one]
        line = f"  {arm:45s} test {text(dice)}; unlabeled {np.mean(seen):.4f}"
        if found.get(arm):
            one = found[arm]
            line += (
                f"; {one['gain']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}] points, p {corrected[arm]:.2g}"
            )
            shared = [seed for seed in dice if seed in arms[BASELINE]]
            if ceiling and shared:
                base = np.mean([arms[BASELINE][seed][SCORES[0]]["dice"] for seed in shared])
                top = np.mean(list(ceiling.values()))
                share = (np.mean([dice[seed] for seed in shared]) - base) / (top - base)
                line += f", {share:.0%} of the gap"
            line += in_words(gains_of_draws(seeds, arms[BASELINE]))
        print(line)


def against(
    seeds: Mapping[int, Mapping[str, Any]], base: Mapping[int, Mapping[str, Any]]
) -> dict[str, float]:
    """Compare an arm with the baseline on the seeds that both have, in points of Dice."""
    shared = [seed for seed in seeds if seed in base]
    if not shared:
        return {}
    per_scan = [differences(seeds[seed][SCORES[0]], base[seed][SCORES[0]]) for seed in shared]
    difference = np.mean(per_scan, axis=0)
    low, high = mean_interval(difference)
    p = wilcoxon(difference, exact_up_to=EXACT_SCANS).p
    return {"gain": difference.mean(), "low": low, "high": high, "p": p}


def gains_of_draws(
    seeds: Mapping[int, Mapping[str, Any]], base: Mapping[int, Mapping[str, Any]]
) -> dict[int, tuple[float, float, float]]:
    """Return seed -> gain on the unlabeled scans over the baseline of the same draw, and its interval over scans."""
    found = {}
    for seed in sorted(set(seeds) & set(base)):
        if SCORES[1] in seeds[seed] and SCORES[1] in base[seed]:
            difference = differences(seeds[seed][SCORES[1]], base[seed][SCORES[1]])
            found[seed] = (float(difference.mean()), *mean_interval(difference))
    return found


def differences(scores: Mapping[str, Any], base: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return how much better each scan is, in points of Dice, in the order of their names."""
    with_it, without = scores["dice_per_scan"], base["dice_per_scan"]
    return np.array([100 * (with_it[scan] - without[scan]) for scan in sorted(with_it)])


def in_words(gains: Mapping[int, tuple[float, float, float]]) -> str:
    """Write the gain of each draw on its unlabeled scans."""
    if not gains:
        return ""
    told = [f"seed {seed} {gain:+.2f} [{low:+.2f}, {high:+.2f}]" for seed, (gain, low, high) in gains.items()]
    return f"; gain on the unlabeled scans: {', '.join(told)} points"


def text(dice: Mapping[int, float]) -> str:
    """Write mean, sd and the single seeds."""
    values = list(dice.values())
    if not values:
        return "n/a"
    sd = f" (sd {np.std(values, ddof=1):.4f})" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{sd}: " + ", ".join(f"seed {seed} {one:.4f}" for seed, one in dice.items())


def draw(rows: Rows, counts: Sequence[int], ceiling: Mapping[int, float], path: Path) -> None:
    """Draw each run as a dot, each arm's mean as a bar, the ceiling as a line; a mean far below is a number."""
    panels = {
        labeled: arms_of([row for row in rows if row["labeled"] == labeled and row["arm"] != CEILING])
        for labeled in counts
    }
    found = [dice_of(runs) for arms in panels.values() for runs in arms.values()]
    worst = min(min(dice_of(arms[BASELINE])) for arms in panels.values())
    left = max(min(map(min, found)), worst) - 0.02
    heights = [len(arms) for arms in panels.values()]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(7.6, 0.27 * sum(heights) + 0.3 * len(panels) + 0.5), sharex=True, squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for axis, (labeled, arms) in zip(axes[:, 0], panels.items(), strict=True):
        names = sorted(arms, key=lambda arm: np.mean(dice_of(arms[arm])))
        for place, arm in enumerate(names):
            dice = dice_of(arms[arm])
            color = "#c0504d" if arm == BASELINE else "#2f6f9f" if arm.startswith("ssldec") else "#808080"
            if np.mean(dice) < left:
                axis.text(left, place, f" \u25c2 {np.mean(dice):.3f}", color=color, fontsize=8, va="center")
                continue
            axis.plot(dice, [place] * len(dice), "o", color=color, alpha=0.7, markersize=5)
            axis.plot([np.mean(dice)] * 2, [place - 0.3, place + 0.3], color=color, linewidth=2)
        axis.set_yticks(
            range(len(names)), [arm.replace(FACTOR, " + registered at inference") for arm in names]
        )
        axis.tick_params(labelsize=8, length=0)
        for dice in ceiling.values():
            axis.axvline(dice, color="#7a7a7a", linewidth=0.8, linestyle=":")
        axis.set_ylim(-0.6, len(names) - 0.4)
        axis.set_title(f"{labeled} labeled scan{'' if labeled == 1 else 's'}", fontsize=9, loc="left", pad=3)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        axis.set_axisbelow(True)
    axes[0, 0].set_xlim(left, max(*map(max, found), *ceiling.values()) + 0.01)
    axes[-1, 0].set_xlabel("mean Dice on the test scans (a dot a seed; dotted: all labels)", fontsize=8)
    figure.tight_layout(h_pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def dice_of(runs: Mapping[int, Any]) -> list[float]:
    """Return the test Dice of an arm, seed by seed."""
    return [one[SCORES[0]]["dice"] for one in runs.values()]


if __name__ == "__main__":
    main()
