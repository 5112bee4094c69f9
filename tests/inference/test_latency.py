import itertools
import sys

import pytest
import torch
from torch import nn

from medssl.errors import CheckpointError, ConfigError
from medssl.inference.latency import (
    BLOCK,
    Forms,
    Latency,
    benchmark,
    file_mb,
    interleaved,
    latency,
    speed_gate,
    this_machine,
)
from medssl.inference.onnx_classifier import export_classifier
from medssl.networks.compact import build_classifier


def test_candidates_take_turns_and_neither_warm_up_nor_the_first_run_of_a_turn_is_counted():
    turns, clock = [], itertools.count().__next__
    candidates = {name: lambda name=name: turns.append(name) for name in "ab"}
    seconds = interleaved(candidates, warmup=2, runs=BLOCK + 1, clock=clock)
    first, second = 2 + BLOCK, 1 + 1
    assert "".join(turns) == first * "a" + first * "b" + second * "a" + second * "b"
    assert {name: len(times) for name, times in seconds.items()} == {"a": BLOCK + 1, "b": BLOCK + 1}


def test_the_time_of_a_candidate_does_not_depend_on_what_else_is_measured():
    cached, now = [""], [0]

    def candidate(name, cold):
        now[0] += 1 if cached[0] == name else cold
        cached[0] = name

    candidates = {"small": lambda: candidate("small", 3), "large": lambda: candidate("large", 30)}
    seconds = interleaved(candidates, warmup=0, runs=2 * BLOCK, clock=lambda: now[0])
    assert set(seconds["small"]) == set(seconds["large"]) == {1}


def test_median_and_95th_percentile_are_in_milliseconds():
    row = latency("torch float32", 2, 4, [0.001 * number for number in range(1, 102)])
    assert (row.p50_ms, row.p95_ms, row.runs) == (pytest.approx(51), pytest.approx(96), 101)
    assert row.images_per_second == pytest.approx(4 / 0.051)


@pytest.mark.parametrize(("candidates", "runs"), [({}, 5), ({"a": int}, 0)])
def test_nothing_to_time_is_refused(candidates, runs):
    with pytest.raises(ConfigError, match="Nothing can be timed"):
        interleaved(candidates, runs=runs)


def test_every_form_is_timed_at_every_number_of_threads(tmp_path, needs):
    needs("openvino")
    network = build_classifier("vgg-small-28", 2, 1).train()
    path = tmp_path / "model.onnx"
    export_classifier(network, path, ["a", "b"])
    threads = torch.get_num_threads()
    forms = Forms(network, float32=path, int8=path, openvino=True)
    rows = benchmark(forms, (1, 28, 28), threads=(1, 2), batch=3, warmup=1, runs=2)
    names = [
        "torch float32",
        "onnxruntime float32",
        "openvino float32",
        "onnxruntime int8",
        "openvino int8",
    ]
    assert [(row.name, row.threads) for row in rows] == [
        (name, number) for number in (1, 2) for name in names
    ]
    assert all(0 < row.p50_ms <= row.p95_ms and row.batch == 3 and row.runs == 2 for row in rows)
    assert network.training
    assert torch.get_num_threads() == threads


def test_torch_runs_in_evaluation_mode():
    modes = []

    class Spy(nn.Module):
        def forward(self, x):
            modes.append((self.training, torch.is_inference_mode_enabled()))
            return x

    benchmark(Forms(Spy()), (1, 2, 2), warmup=0, runs=1)
    assert set(modes) == {(False, True)}


def rows_of(float32: float, int8: float) -> list[Latency]:
    return [
        Latency("onnxruntime float32", 2, 1, 50, 1.0, 1.0),
        Latency("onnxruntime float32", 1, 1, 50, float32, 1.0),
        Latency("onnxruntime int8", 1, 1, 50, int8, 1.0),
        Latency("onnxruntime int8", 1, 8, 50, 99.0, 99.0),
    ]


def test_int8_passes_only_where_it_is_faster():
    assert speed_gate(rows_of(4.0, 2.0)).passed
    assert "2.0 times as fast" in str(speed_gate(rows_of(4.0, 2.0)))
    slower = speed_gate(rows_of(4.0, 4.0))
    assert not slower.passed
    assert "not recommended here" in str(slower)


def test_both_have_to_be_measured():
    with pytest.raises(ConfigError, match="no time of onnxruntime int8"):
        speed_gate(rows_of(1, 1)[:2])


def test_the_machine_and_sizes_are_told(tmp_path):
    (tmp_path / "file").write_bytes(b"0" * 2_500_000)
    assert file_mb(tmp_path / "file") == 2.5
    machine = this_machine()
    assert machine.cores >= 1
    assert "torch" in machine.versions


def test_a_file_that_openvino_cannot_run_is_left_out_with_a_warning(tmp_path, needs, caplog):
    """It ends the process for some int8 files, so it is tried in another one."""
    needs("openvino")
    path = tmp_path / "model.onnx"
    export_classifier(build_classifier("vgg-small-28", 2, 1), path, ["a", "b"])
    (tmp_path / "broken.onnx").write_text("no model")
    threads = torch.get_num_threads()
    with pytest.raises(CheckpointError):
        benchmark(Forms(float32=path, int8=tmp_path / "broken.onnx", openvino=True), (1, 28, 28), runs=1)
    assert "openvino int8 is left out: openvino could not run broken.onnx" in caplog.text
    assert torch.get_num_threads() == threads


def test_without_openvino_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r'pip install "medssl\[fast\]"'):
        benchmark(Forms(float32=tmp_path / "m.onnx", openvino=True), (1, 28, 28))
