"""The tables of docs/classification.md say no more than the runs do."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module("classification_tables")
    for name in ("classification_tables", "classification", "performance_tables", "studies"):
        sys.modules.pop(name, None)


def run(method, seed, f1, network="a", **more):
    facts = {"method": method, "seed": seed, "macro_f1": f1, "network": network}
    return {**facts, "labels_per_class": 5, "steps": 1000, "set": {}, **more}


def grid(tables, best):
    """Every method with two networks and three seeds; `best` is what SSLDEC reaches with the first network's seed 2."""
    found = [
        run(method, seed, 0.5 + 0.01 * seed, network)
        for method in tables.METHODS
        for seed in range(3)
        for network in ("a", "b")
        if method != "ssldec"
    ]
    own = {("a", 2): best}
    found += [
        run("ssldec", seed, own.get((network, seed), 0.9), network) for seed in range(3) for network in "ab"
    ]
    return found


def test_a_method_tells_mean_spread_and_seeds_above_supervised(tables):
    runs = [
        run("supervised", 0, 0.6),
        run("supervised", 1, 0.8),
        run("ssldec", 0, 0.7),
        run("ssldec", 1, 0.8),
    ]
    others = [run("ssldec", 0, 0.1, labels_per_class=1), run("ssldec", 0, 0.1, steps=10)]
    others += [run("ssldec", 0, 0.1, set={"amp": True}), run("ssldec", 1, 0.5, "b")]
    text = tables.methods_table([*runs, run("supervised", 0, 0.5, "b"), *others])
    assert "| method | a | b |" in text
    assert "| supervised | 70.0 (sd 14.1, n = 2) | 50.0 (n = 1) |" in text
    assert "| ssldec | 75.0 (sd 7.1, n = 2, above supervised in 1 of 2) | 50.0 (n = 1) |" in text
    assert "not run" in tables.methods_table([*runs[:2], run("ssldec", 0, 0.5, "b")])
    assert tables.methods_table([]) == "Not run.\n"


def test_a_network_of_standard_size_stands_beside_small_ones_in_8_bits(tables):
    runs = [run("ssldec", seed, 0.9, tables.STANDARD) for seed in range(2)]
    runs += [run("ssldec", seed, 0.8 + 0.1 * seed, "a") for seed in range(2)]
    runs += [run("ssldec", 0, 0.7, "a", int8=True, int8_mb=0.25), run("ssldec", 1, 0.1, "a", int8=True)]
    runs += [run("fixmatch", 0, 0.6, "a", int8=True, int8_mb=0.25)]
    compact = {"rows": {name: {"float32_mb": size} for name, size in ((tables.STANDARD, 94), ("a", 1))}}
    text = tables.standard_table(runs, compact)
    assert f"| {tables.STANDARD} | ssldec | 94.0 | 90.0 (sd 0.0, n = 2) |" in text
    assert "| a | ssldec | 1.0 / 0.2 | 85.0 (sd 7.1, n = 2) / 70.0 (n = 1) |" in text, (
        "a refused file is none"
    )
    assert "fixmatch" not in text, "the large network has no such run"
    assert tables.STANDARD not in tables.methods_table(runs)
    assert "85.0 (sd 7.1, n = 2)" in tables.methods_table(runs), "8-bit files stand apart"
    assert tables.standard_table(runs[2:], compact) == "Not run.\n"


def test_precisions_are_not_mixed(tables):
    runs = [run("supervised", 0, 0.6), run("supervised", 1, 0.8, precision="bfloat16")]
    with pytest.raises(ValueError, match=r"different precisions.*bfloat16.*float32"):
        tables.methods_table(runs)
    apart = [runs[0], run("supervised", 1, 0.8, "b", precision="bfloat16")]
    assert "| supervised | 60.0 (n = 1) | 80.0 (n = 1) |" in tables.methods_table(apart)


def test_the_mark_asks_for_all_cells_and_every_seed(tables):
    full = grid(tables, 0.9)
    assert tables.mednist_mark(full)[3] == "met"
    assert tables.mednist_mark(grid(tables, 0.51))[3] == "missed"
    cells = 2 * len(tables.METHODS)
    assert tables.mednist_mark(full[1:])[2:] == (f"{cells - 1} of {cells} cells have 3 seeds", "open")
    assert tables.mednist_mark([*full, run("ssldec", 7, 0.9)])[3] == "met"
    assert tables.mednist_mark([])[2:] == (f"0 of {cells} cells have 3 seeds", "open")
    assert tables.mednist_mark([one for one in full if one["network"] == "a"])[3] == "open"


def errors(method, *found, labels=100):
    return [run(method, seed, 0.5, error=one, labels_per_class=labels) for seed, one in enumerate(found)]


@pytest.mark.parametrize(
    ("labels", "found", "word"),
    [
        (100, [0.004], "open"),
        (100, [0.004] * 4, "open"),
        (100, [0.004] * 5, "met"),
        (100, [0.006], "missed"),
        (10, [0.004] * 4, "open"),
        (10, [0.004] * 5, "met"),
    ],
)
def test_few_seeds_can_miss_an_aim_and_not_meet_it(tables, labels, found, word):
    runs = errors("ssldec", *found, labels=labels)
    assert tables.mnist_mark(runs, labels, 0.46, "SSLDEC", "ssldec")[3] == word


def test_a_method_that_was_picked_by_its_test_error_is_called_so(tables):
    runs = [*errors("ssldec", 0.004), *errors("fixmatch", 0.005), *errors("supervised", 0.02)]
    best = tables.mnist_mark(runs, 100, 1.0, "best method", "")
    assert best[2] == "1,000 steps: ssldec (chosen afterwards) 0.40 % (1 seed); supervised 2.00 % (1 seed)"
    asked = tables.mnist_mark(runs, 100, 1.0, "SSLDEC", "ssldec")
    assert asked[2].startswith("1,000 steps: ssldec 0.40 %")
    fewer = [{**one, "steps": 500} for one in errors("supervised", 0.02)]
    others = tables.mnist_mark([*errors("ssldec", 0.004), *fewer], 100, 1.0, "best method", "")
    assert others[2].endswith("0.40 % (1 seed); supervised, 500 steps: 2.00 % (1 seed)")
    alone = tables.mnist_mark(errors("ssldec", 0.004), 100, 1.0, "best method", "")
    assert alone[2].startswith("1,000 steps: ssldec (no other method was run) 0.40 %")
    both = tables.mnist_mark([*runs, *errors("ssldec in rounds", 0.003)], 100, 1.0, "SSLDEC", "ssldec")
    assert both[2].startswith("1,000 steps: ssldec in rounds (chosen afterwards) 0.30 %")
    assert "ssldec (chosen afterwards) 90.0" in tables.mednist_mark(grid(tables, 0.9))[2]


def test_scores_averaged_over_views_stand_beside(tables):
    views = list(tables.VIEW_PRESETS["digits"])
    seen = [{**one, "views": views} for one in errors("ssldec", *[0.004] * 5)]
    others = [{**one, "views": views[:1]} for one in errors("ssldec", *[0.002] * 5)]
    runs = [*errors("ssldec", *[0.006] * 5), *seen, *others]
    asked = tables.mnist_mark(runs, 100, 0.46, "SSLDEC", "ssldec")
    assert asked[2].endswith(
        "ssldec 0.60 % (sd 0.00, 5 seeds). Averaged over the preset's views: ssldec 0.40 % (sd 0.00, 5 seeds)"
    )
    assert asked[3] == "missed; with views: met"
    assert tables.of_the_task(seen, 100) == []


def test_the_mark_of_the_networks_asks_for_all_of_the_registry(tables):
    rows = [
        {"name": name, "failed": None} for name, facts in tables.NETWORKS.items() if facts.family != "test"
    ]
    assert tables.networks_mark(rows)[3] == "met"
    assert tables.networks_mark(rows[1:])[2:] == (
        f"{len(rows) - 1} measured; failed: none; not measured: {rows[0]['name']}",
        "open",
    )
    assert tables.networks_mark([{**rows[0], "failed": "export"}, *rows[1:]])[3] == "missed"


def test_results_are_of_the_methods_that_the_benchmark_knows(tables):
    for name in ("mnist", "mednist"):
        runs = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["runs"]
        assert {one["method"] for one in runs} <= set(tables.METHODS)


def test_a_score_with_views_is_a_row_of_its_own_of_the_same_training(tables, tmp_path, monkeypatch):
    benchmark = sys.modules["classification"]
    runs, out = [], tmp_path / "rows.json"
    out.write_text('{"runs": []}')

    def scored(data, run, views):
        runs.append((run, views))
        return SimpleNamespace(scores=SimpleNamespace(measures={"accuracy": 0.9, "macro_f1": 0.8}, n=10))

    def trained(run, *others):
        run.mkdir(parents=True, exist_ok=True)
        facts = {"steps": 3000, "best_validation_score": None, "seconds": 1.0, "precision": "float32"}
        (run / "run.json").write_text(json.dumps({**facts, "finished": True}))
        return SimpleNamespace(run=run)

    monkeypatch.setattr(benchmark, "evaluate_classifier", scored)
    monkeypatch.setattr(benchmark, "usable_cohort", lambda *others: None)
    monkeypatch.setattr(
        benchmark, "train_method", lambda run, *others: SimpleNamespace(run=run) if runs else trained(run)
    )
    call = [
        "--json",
        str(out),
        "--data",
        str(tmp_path),
        "--task",
        "mnist",
        "--method",
        "ssldec",
        "--seed",
        "0",
    ]
    call += ["--work", str(tmp_path / "work")]
    for more in ([], ["--view", "gamma_0.8"], [], ["--view", "gamma_0.8"]):
        done = CliRunner().invoke(benchmark.main, [*call, *more])
        assert done.exit_code == 0, done.output
    rows = json.loads(out.read_text())["runs"]
    assert [row["views"] for row in rows] == [None, ["gamma_0.8"]]
    assert [row["seconds"] is None for row in rows] == [False, True]
    assert [views for _, views in runs] == [("identity",), ("identity", "gamma_0.8")]
    assert len({run for run, _ in runs}) == 1
