import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from phantoms import TINY, write_subject

from medssl.io.cohort import read_cohort

FOLDER = Path(__file__).parents[2] / "benchmarks"
SETTING = {"cohort": "simulated", "seed": 0, "spacing": 2.0, "start": 1, "count": 1, "pool": None}


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("label_next_benchmark", FOLDER / "label_next.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("studies", None)


@pytest.fixture
def phantoms(tmp_path):
    for seed, name in enumerate(("01", "02", "03", "04")):
        write_subject(tmp_path / "cohort", name, 10 * seed)
    cohort = read_cohort(tmp_path / "cohort")
    return replace(cohort, training=cohort.training[:3], test=cohort.training[3:])


@pytest.fixture
def study(benchmark, phantoms, tmp_path):
    changes = {**TINY, "epochs": 1}
    facts = {**SETTING, "steps": 25, "crop": 16, "network": "dense-fcn", "set": changes}
    return benchmark.Study(phantoms, tmp_path / "rows.json", tmp_path / "work", facts)


def test_the_next_scan_is_chosen_without_its_label_and_runs_are_not_repeated(study, tmp_path, monkeypatch):
    first = study.row("start", ())
    chosen = first["orders"]["rank"]
    second = study.row("rank", chosen)
    assert len(first["labeled"]) == 1
    assert second["labeled"] == first["labeled"] + chosen
    assert {one["subject"] for one in first["ranking"]} == {one.key for one in study.pool}
    assert set(first["dice_per_scan"]) == {"sub-04"}
    assert first["trained_steps"] == second["trained_steps"] == 3
    monkeypatch.setattr(study, "run", None)
    assert study.row("start", ()) == first
    assert [row["arm"] for row in json.loads((tmp_path / "rows.json").read_text())["runs"]] == [
        "start",
        "rank",
    ]
    assert not list((tmp_path / "work").iterdir())


def test_draws_are_of_the_pool_and_repeatable(study):
    keys = {one.key for one in study.pool}
    draws = [study.drawn(draw)[0] for draw in range(8)]
    assert set(draws) == keys
    assert draws == [study.drawn(draw)[0] for draw in range(8)]


def test_the_table_compares_with_the_mean_of_the_draws(benchmark, capsys):
    fixed = {**SETTING, "network": "x", "steps": 1, "crop": None, "set": {}}
    dice = {"start": 0.5, "rank": 0.7, "random 0": 0.6, "random 1": 0.62}
    rows = [
        {**fixed, "seed": seed, "arm": arm, "dice": value} for seed in (0, 1) for arm, value in dice.items()
    ]
    benchmark.print_table(rows)
    said = capsys.readouterr().out
    assert "rank - random: +0.0900 +- 0.0000  (+0.0900 +0.0900)" in said
