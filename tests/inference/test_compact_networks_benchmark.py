import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compact_networks.py"


@pytest.fixture
def run(tmp_path, monkeypatch, needs):
    """Return the benchmark as a function of further arguments; it returns its report."""
    needs("timm", "torchvision", "onnxruntime", "onnx")
    spec = importlib.util.spec_from_file_location("compact_networks_benchmark", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)

    def call(*arguments):
        path = tmp_path / "rows.json"
        monkeypatch.setattr(
            "sys.argv", ["compact_networks.py", "--json", str(path), "--runs", "1", *arguments]
        )
        benchmark.main()
        return json.loads(path.read_text())

    call.module = benchmark
    return call


@pytest.mark.slow
def test_a_row_holds_sizes_times_and_memory(run, capsys):
    report = run("--networks", "vgg-small-28", "ResNet18", "--size", "32")
    assert list(report["rows"]) == ["vgg-small-28", "resnet18"]
    row = report["rows"]["resnet18"]
    assert row["failed"] is None
    assert row["parity"]["passed"]
    assert row["without_gradient"] == []
    assert row["int8_mb"] < 0.3 * row["float32_mb"]
    assert row["float32_mb"] == pytest.approx(row["parameters"] * 4 / 1e6, rel=0.02)  # no weight is left out
    names = ["torch float32", "onnxruntime float32", "onnxruntime int8"]
    assert [one["name"] for one in row["latency"]] == names
    assert row["peak_memory"]["float32"]["peak_mb"] > row["float32_mb"]
    assert "resnet18" in capsys.readouterr().out


def test_a_second_call_goes_on_and_a_failure_is_a_row_with_its_reason(run, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("no such operator")  # noqa: EM101

    monkeypatch.setattr(run.module, "export_classifier", fail)
    row = run("--networks", "vgg-small-28")["rows"]["vgg-small-28"]
    assert row["failed"] == "export: RuntimeError: no such operator"
    assert row["parameters"] > 0
    assert "latency" not in row
    monkeypatch.undo()
    monkeypatch.setattr(run.module, "measure", lambda name, arguments: pytest.fail("measured again"))
    assert run("--networks", "vgg-small-28")["rows"]["vgg-small-28"] == row
    assert "FAILED export" in capsys.readouterr().out
