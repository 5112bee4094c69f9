import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compare_arms.py"
SETTING = {
    "cohort": "hippocampus",
    "network": "basic-unet",
    "epochs": 24,
    "augmentation": 1.0,
    "set": {},
    "steps": 600,
}


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("compare_arms", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores(**dice):
    return {"dice": sum(dice.values()) / len(dice), "dice_per_scan": dice}


def row(arm, seed, gain):
    """A run; each draw has unlabeled scans of its own, of which the second one gains a point more."""
    unlabeled = {f"{seed}{name}": 0.5 + gain + 0.01 * extra for extra, name in enumerate("ab")}
    some = {"test": scores(x=0.7 + gain, y=0.8 + gain), "unlabeled (transductive)": scores(**unlabeled)}
    return {**SETTING, "arm": arm, "seed": seed, "labeled": 2, **some}


def test_each_draw_has_its_gain_on_its_own_unlabeled_scans(benchmark, tmp_path):
    runs = [row("labeled-only", 0, 0.0), row("labeled-only", 1, 0.1)]
    runs += [
        row("ssldec", 1, 0.125),
        row("ssldec", 0, -0.03),
        row("ssldec", 2, 0.3),
        row("mean teacher", 2, 0.3),
    ]
    for one in runs[:2]:  # the second scan of a draw is as good as the first without the method
        found = one["unlabeled (transductive)"]["dice_per_scan"]
        found |= dict.fromkeys(found, min(found.values()))
    (tmp_path / "runs.json").write_text(json.dumps({"runs": runs}))
    done = CliRunner().invoke(benchmark.main, ["--json", str(tmp_path / "runs.json")])
    assert done.exit_code == 0, done.output
    lines = {line.split("  ")[1]: line for line in done.output.splitlines() if line.startswith("  ")}
    told = "gain on the unlabeled scans: seed 0 -2.50 [-3.00, -2.00], seed 1 +3.00 [+2.50, +3.50] points"
    assert lines["ssldec"].endswith(told)
    assert "-0.25 [-0.25, -0.25] points" in lines["ssldec"]  # on test scans, seeds averaged
    assert "gain on" not in lines["mean teacher"] + lines["labeled-only"]  # of no draw that labeled-only has


def test_runs_without_scores_of_unlabeled_scans_have_no_such_gain(benchmark):
    base = {0: {"test": scores(x=0.5)}}
    assert benchmark.gains_of_draws({0: {"test": scores(x=0.6)}}, base) == {}
    assert benchmark.in_words({}) == ""
