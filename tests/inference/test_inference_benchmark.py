import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "inference.py"


def benchmark_module():
    spec = importlib.util.spec_from_file_location("inference_benchmark", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark  # dataclasses look their module up
    spec.loader.exec_module(benchmark)
    return benchmark


@pytest.mark.slow
def test_quick_benchmark_compares_ours_with_monai(tmp_path, monkeypatch, capsys):
    benchmark = benchmark_module()
    monkeypatch.setattr("sys.argv", ["inference.py", "--quick", "--json", str(tmp_path / "out.json")])
    benchmark.main()
    report = json.loads((tmp_path / "out.json").read_text())
    rows = {row["method"]: row for row in report["rows"]}
    others = {
        f"ours: brain box, {name} {precision}"
        for name, precision in benchmark.candidates(benchmark.Wish(), benchmark.torch.device("cpu"))
        if (name, precision) != benchmark.REFERENCE
    }
    fast = " ".join(benchmark.fastest_in_float32())
    assert set(rows) == {
        *others,
        *(f"ours: brain box, {fast}, margin {margin}" for margin in (16, 32, 48)),
        "plain network: brain box, torch float32",
        "ours: brain box, one pass",
        "ours: brain box, tiles with a halo of 32",
        "ours: brain box, windows of 32",
        "ours: whole volume, one pass",
        "MONAI sliding window 32^3, overlap 0.25",
        "MONAI sliding window 32^3, overlap 0.5",
    }
    assert rows["ours: brain box, one pass"]["times_ours"] == {"min": 1, "median": 1, "max": 1, "runs": 1}
    assert all(rows[name]["labels_changed_percent"] < 1 for name in others)
    assert rows["plain network: brain box, torch float32"]["largest_probability_difference"] < 1e-5
    for row in rows.values():
        assert row["gflops"] == pytest.approx(row["gflop"] / row["seconds"]["median"])
        assert row["percent_of_ceiling"]["min"] <= row["percent_of_ceiling"]["max"]
        if not row["method"].endswith("bfloat16"):
            least, most = (report["ceiling_gflops"]["float32"][end] for end in ("min", "max"))
            assert (
                100 * row["gflop"] / row["seconds"]["max"] / most
                <= row["percent_of_ceiling"]["min"] * 1.000001
            )
            assert (
                100 * row["gflop"] / row["seconds"]["min"] / least
                >= row["percent_of_ceiling"]["max"] * 0.999999
            )
    assert rows["MONAI sliding window 32^3, overlap 0.5"]["largest_probability_difference"] > 0
    shares = report["percent_of_torch_float32"]
    assert sum(shares.values()) == pytest.approx(100)
    assert {
        "stem",
        "last_head",
        "downs, scale 1",
        "blocks, scale 4",
        "ups, scale 2",
        "heads, scale 1",
    } <= set(shares)
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + len(shares)


def test_operations_are_counted_as_the_convolutions_have_them():
    network = benchmark_module().DenseFCN(2, 4, stem_channels=8, growth_rate=4, block_layers=1, levels=1)
    inside = 2 * 27 * (2 * 8 + 8 * 8 + 8 * 8)  # three convolutions of the stem
    coarse = 2 * (8 * 8 * 8 + 8 * 16 + 27 * 16 * 4 + 12 * 64) / 8  # down, dense layer, up by groups of 3 maps
    assert benchmark_module().flops(network, (16, 16, 16)) == 16**3 * (inside + coarse + 2 * 12 * 4)


def test_windows_are_counted_as_monai_lays_them():
    benchmark, calls = benchmark_module(), []

    def network(x):
        calls.append(tuple(x.shape[2:]))
        return x

    for overlap in (0.25, 0.5):
        calls.clear()
        method = benchmark.stock(network, benchmark.torch.zeros(1, 40, 33, 70), 32, overlap)
        method.run()
        assert method.tiles == {(32, 32, 32): len(calls)}
