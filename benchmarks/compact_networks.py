"""Size and speed of every compact network: forward, backward, export, int8, latency, memory; weights are random.

    python benchmarks/compact_networks.py --json benchmarks/results/compact_networks.json

One row a network, written as soon as it is measured; a second call goes on with those that are missing (`--again`
measures all anew, `--retry` those that failed). Accuracy is no part of it: int8 is calibrated on noise.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

import medssl
from medssl.inference.int8 import quantize
from medssl.inference.int8_ladder import Recipe
from medssl.inference.latency import CONVENTION, Forms, benchmark, file_mb, speed_gate, this_machine
from medssl.inference.onnx_classifier import export_classifier, parity
from medssl.inference.peak_memory import Subject, peak_memory
from medssl.networks.compact import (
    NETWORKS,
    Classifier,
    build_classifier,
    multiply_adds,
    network_facts,
    parameter_count,
    reparameterized,
)

CLASSES = ["a", "b", "c", "d"]
STANDARD_SIZE = 224
CALIBRATED_ON = 8
COMPARED_ON = 32


def main() -> None:
    """Measure what is missing, write a row each, print the table."""
    arguments = parse()
    torch.set_num_threads(1)
    report = start(arguments.json, arguments.again)
    for name in arguments.networks or list(NETWORKS):
        known = report["rows"].get(network_facts(name).name)
        if known and not (arguments.retry and known["failed"]):
            continue
        print(f"{name} ...", flush=True)
        report["rows"][network_facts(name).name] = row = measure(name, arguments)
        write(arguments.json, report)
        print(line(row), flush=True)
    print(HEADER)
    for row in report["rows"].values():
        print(line(row))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file for the numbers, one row a network")
    parser.add_argument("--networks", nargs="+", help="names; all without it")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="numbers of threads to run with")
    parser.add_argument("--runs", type=int, default=50, help="timed runs of each form")
    parser.add_argument(
        "--size", type=int, help="pixels a side for all; else 224, or what the network is meant for"
    )
    parser.add_argument("--openvino", action="store_true", help="time OpenVINO too")
    parser.add_argument("--again", action="store_true", help="forget the rows that are there")
    parser.add_argument("--retry", action="store_true", help="measure those that failed once more")
    return parser.parse_args()


def start(path: Path, again: bool) -> dict[str, Any]:
    """Return the report to go on with."""
    if path.is_file() and not again:
        return json.loads(path.read_text())
    return {
        "command": "benchmarks/compact_networks.py",
        "medssl": medssl.__version__,
        "machine": dataclasses.asdict(this_machine()),
        "multiply_adds": CONVENTION,
        "weights": "random: sizes and times are those of trained networks, accuracies are not measured",
        "rows": {},
    }


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the report whole."""
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    temporary.replace(path)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the row of a network: what was measured, and at which step it failed, if it did."""
    facts = network_facts(name)
    size = arguments.size or (facts.input_size if facts.family in ("small", "test") else STANDARD_SIZE)
    channels = 1 if facts.family == "small" else 3
    row: dict[str, Any] = {
        **dataclasses.asdict(facts),
        "size": size,
        "channels": channels,
        "failed": None,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg()[0],
    }
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        bench = Bench(name, size, channels, Path(folder), arguments)
        for step in (bench.build, bench.train, bench.export, bench.int8, bench.latency, bench.memory):
            begin = time.perf_counter()
            failed = attempt(step, row)
            row[f"{step.__name__}_seconds"] = round(time.perf_counter() - begin, 2)
            if failed and step in (bench.build, bench.export):
                break
    return row


def attempt(step: Callable[[], dict[str, Any]], row: dict[str, Any]) -> bool:
    """Add what a step measured to the row, or the reason why it failed; tell whether it did."""
    try:
        row.update(step())
    except Exception as error:  # noqa: BLE001 (one network must not stop the others)
        reason = f"{step.__name__}: {type(error).__name__}: {str(error).strip()[:300]}"
        row["failed"] = f"{row['failed']}; {reason}" if row["failed"] else reason
        return True
    return False


class Bench:
    """The steps of one network."""

    def __init__(
        self, name: str, size: int, channels: int, folder: Path, arguments: argparse.Namespace
    ) -> None:
        self.name = name
        self.size = size
        self.shape = (channels, size, size)
        self.float32 = folder / "float32.onnx"
        self.quantized = folder / "int8.onnx"
        self.arguments = arguments
        self.network: Classifier

    def images(self, number: int) -> Tensor:
        """Return noise in [0, 1]."""
        return torch.rand(number, *self.shape, generator=torch.Generator().manual_seed(0))

    def build(self) -> dict[str, Any]:
        """Count."""
        self.network = build_classifier(self.name, len(CLASSES), self.shape[0], size=self.size)
        enliven(self.network, self.images(8))
        still = reparameterized(self.network)
        return {
            "parameters": parameter_count(self.network),
            "parameters_merged": parameter_count(still),
            "multiply_adds": multiply_adds(still, self.shape[0], self.size),
        }

    def train(self) -> dict[str, Any]:
        """Go forward and backward once, batch of two."""
        self.network.train()
        begin = time.perf_counter()
        scores = self.network(self.images(2))
        torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1])).backward()
        silent = [name for name, value in self.network.named_parameters() if value.grad is None]
        self.network.zero_grad(set_to_none=True)
        return {"step_of_two_ms": 1000 * (time.perf_counter() - begin), "without_gradient": silent}

    def export(self) -> dict[str, Any]:
        """Write ONNX and hold it to the network."""
        self.network.eval()
        export_classifier(self.network, self.float32, CLASSES)
        found = parity(self.network, self.float32, self.images(COMPARED_ON))
        return {
            "float32_mb": file_mb(self.float32),
            "parity": dataclasses.asdict(found) | {"passed": found.passed},
        }

    def int8(self) -> dict[str, Any]:
        """Make it int8."""
        recipe = Recipe(images=CALIBRATED_ON)
        quantize(self.float32, self.quantized, self.images(CALIBRATED_ON).numpy(), recipe)
        return {"int8_mb": file_mb(self.quantized)}

    def latency(self) -> dict[str, Any]:
        """Time all forms in turn."""
        int8 = self.quantized if self.quantized.is_file() else None
        forms = Forms(self.network, self.float32, int8, openvino=self.arguments.openvino)
        rows = benchmark(forms, self.shape, threads=self.arguments.threads, runs=self.arguments.runs)
        gain = speed_gate(rows) if int8 else None
        return {
            "latency": [dataclasses.asdict(row) for row in rows],
            "int8_gain": gain and gain.float32_ms / gain.int8_ms,
            "int8_is_faster": gain and gain.passed,
        }

    def memory(self) -> dict[str, Any]:
        """Measure the resident memory of a process that runs nothing else."""
        found = {"float32": self.float32, "int8": self.quantized}
        return {
            "peak_memory": {
                precision: dataclasses.asdict(peak_memory(Subject("onnxruntime", str(path), self.shape)))
                for precision, path in found.items()
                if path.is_file()
            }
        }


@torch.no_grad()
def enliven(network: nn.Module, images: Tensor) -> None:
    """Give a fresh network what training would: no branch that is switched off, running statistics of images.

    Branches start at zero in many networks; exported as they are, their equal weights would be stored once.
    """
    for module in network.modules():
        if isinstance(getattr(module, "weight", None), Tensor) and module.weight.ndim == 1:
            module.weight.uniform_(0.2, 0.6)  # more makes deep ones chaotic
            if module.bias is not None:
                module.bias.normal_(0, 0.1)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.reset_running_stats()
            module.momentum = None  # the statistics of this very batch
    for name, value in network.named_parameters():
        if name.rpartition(".")[2].startswith("gamma"):  # scales of layers
            value.uniform_(0.5, 1.5)
    network.train()
    network(images)
    network.eval()


HEADER = (
    f"{'network':<26}{'px':>4} {'params M':>9}{'MMAC':>8}{'fp32 MB':>9}{'int8 MB':>9}"
    f"{'torch ms':>10}{'ort ms':>8}{'int8 ms':>9}{'gain':>6}{'RSS MB':>8}  parity"
)


def line(row: dict[str, Any]) -> str:
    """Format one row of the table; times with one thread."""
    times = {one["name"]: one["p50_ms"] for one in row.get("latency", []) if one["threads"] == 1}
    memory = row.get("peak_memory", {}).get("float32", {}).get("peak_mb")
    cells = [
        (row.get("parameters", 0) / 1e6, 9, 2),
        (row.get("multiply_adds", 0) / 1e6, 8, 0),
        (row.get("float32_mb"), 9, 1),
        (row.get("int8_mb"), 9, 1),
        (times.get("torch float32"), 10, 1),
        (times.get("onnxruntime float32"), 8, 2),
        (times.get("onnxruntime int8"), 9, 2),
        (row.get("int8_gain"), 6, 1),
        (memory, 8, 0),
    ]
    text = "".join(
        f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}" for value, width, digits in cells
    )
    held = row.get("parity", {})
    word = "-" if not held else ("ok" if held["passed"] else f"NO ({held['largest']:.2g})")
    failed = f"  FAILED {row['failed']}" if row["failed"] else ""
    return f"{row['name']:<26}{row['size']:>4} {text}  {word}{failed}"


if __name__ == "__main__":
    main()
