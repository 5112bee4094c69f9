import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "inference.py"


@pytest.mark.slow
def test_quick_benchmark_compares_ours_with_monai(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("inference_benchmark", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr("sys.argv", ["inference.py", "--quick", "--json", str(tmp_path / "out.json")])
    benchmark.main()
    report = json.loads((tmp_path / "out.json").read_text())
    rows = {row["method"]: row for row in report["rows"]}
    others = {
        f"ours: brain box, {name} {precision}"
        for name, precision in benchmark.candidates(benchmark.Wish(), benchmark.torch.device("cpu"))
        if (name, precision) != benchmark.REFERENCE
    }
    assert set(rows) == {
        *others,
        "ours: brain box, one pass",
        "ours: brain box, tiles with a halo of 32",
        "ours: whole volume, one pass",
        "MONAI sliding window 32^3, overlap 0.25",
        "MONAI sliding window 32^3, overlap 0.5",
    }
    assert rows["ours: brain box, one pass"]["times_ours"] == 1
    assert all(rows[name]["labels_changed_percent"] < 1 for name in others)
    assert rows["MONAI sliding window 32^3, overlap 0.5"]["largest_probability_difference"] > 0
    assert len(capsys.readouterr().out.splitlines()) == 5 + len(others)
