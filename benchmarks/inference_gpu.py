"""Measure the network on a GPU: layouts, precisions, `torch.compile`, CUDA graphs, windows in batches; interleaved.

    python benchmarks/inference_gpu.py --json inference_gpu.json --model bundles/infant_brain_segmentation

The brain box of a 144 x 192 x 256 pair that lies on the device already, as in `benchmarks/inference.py`, and MONAI's
sliding window with batches of windows. Every method runs once before it is timed (that time is kept: it holds the
compilation), then all take turns. Dice and labels are held to one pass of torch in float32. The JSON names the device,
its driver and its clock; its "float32" convolutions run in TF32 unless torch is told otherwise, which is noted, and are
then no share of the ceiling of "float32". `--device cpu --quick` sees that everything runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from inference import SMALL, dices, load_network, machine, resized_brain, spread, without_windows
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from medssl.inference.choice import build
from medssl.inference.machine import has_bfloat16
from medssl.inference.plan import box_of, region_around
from medssl.inference.predictor import MARGIN, Predictor

OURS = "one pass, float32, channels last"
BATCHES = (1, 4, 16)
"""Windows that MONAI's sliding window runs at once."""

NVIDIA_SMI = (
    "name",
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "memory.total",
)

Run = Callable[[], Tensor]
"""Takes nothing, returns the probabilities of a volume `(L, I, J, K)`."""


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--model", type=Path, help="bundle folder, or file with the weights of a DenseFCN")
    parser.add_argument("--device", type=torch.device, default="cuda", help="where the network runs")
    parser.add_argument("--repeats", type=int, default=10, help="timed runs of each method")
    parser.add_argument("--quick", action="store_true", help="everything small, one run, nothing compiled")
    arguments = parser.parse_args()
    device, quick = arguments.device, arguments.quick
    if device.type == "cuda" and not torch.cuda.is_available():
        msg = "No GPU: found none that torch can use, expected one. --device cpu --quick runs without."
        raise SystemExit(msg)
    torch.manual_seed(0)
    load, before = os.getloadavg(), device_facts(device)
    network = load_network(arguments.model, SMALL if quick else {})
    image, labels, mask = resized_brain((64, 64, 96) if quick else (144, 192, 256))
    box = region_around(box_of(mask), mask.shape, margin=MARGIN, multiple=network.multiple)
    ways = methods(
        network, image.to(device), mask.to(device), device, window=32 if quick else 64, compiled=not quick
    )
    found, ceilings = measured(ways, device, 1 if quick else arguments.repeats, 256 if quick else 8192)
    report = {
        "command": "benchmarks/inference_gpu.py",
        "model": arguments.model.name if arguments.model else "random weights",
        "brain_box_read": box.shape,
        "machine": {**machine(), "load_average": load, "load_average_at_the_end": os.getloadavg()},
        "device": {"before": before, "after": device_facts(device)},
        "ceiling_gflops": ceilings,
        "rows": compared(found, labels, mask),
    }
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def methods(
    network: nn.Module, image: Tensor, mask: Tensor, device: torch.device, *, window: int, compiled: bool
) -> dict[str, Run]:
    """Return each way from the image to probabilities, by name."""
    precisions = ["float32", *["bfloat16"] * (has_bfloat16(device) or device.type == "cpu")]
    found: dict[str, Run] = {}
    for precision, last in itertools.product(precisions, (True, False)):
        name = f"one pass, {precision}, channels {'last' if last else 'first'}"
        found[name] = one_pass(network, image, mask, device, precision, channels_last=last)
    for precision, (said, mode) in itertools.product(precisions if compiled else (), COMPILED.items()):
        name = f"one pass, {precision}, channels last, {said}"
        found[name] = one_pass(network, image, mask, device, precision, mode=mode)
    alone = without_windows(network).to(device)
    for precision, batch in itertools.product(precisions, BATCHES):
        inferer = SlidingWindowInferer((window,) * 3, batch, overlap=0.25, mode="gaussian")
        name = f"MONAI sliding window {window}^3, overlap 0.25, {precision}, {batch} at once"
        found[name] = partial(windows, inferer, alone, image, precision)
    return found


COMPILED = {"torch.compile": "default", "torch.compile with CUDA graphs": "reduce-overhead"}
"""What stands in the table -> the mode of `torch.compile`."""


class ChannelsFirst(nn.Module):
    """Lay a tile out with the channels first."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the same values."""
        return x.contiguous()


def one_pass(
    network: nn.Module,
    image: Tensor,
    mask: Tensor,
    device: torch.device,
    precision: str,
    *,
    channels_last: bool = True,
    mode: str | None = None,
) -> Run:
    """Return the package's predictor, with the layout changed or the network compiled."""
    predictor = Predictor(network=network, device=device)
    predictor.backend = backend = build("torch", precision, predictor.reference)
    if not channels_last:
        backend.network = nn.Sequential(
            ChannelsFirst(), backend.network.to(memory_format=torch.contiguous_format)
        )
    if mode is not None:
        backend.network = torch.compile(backend.network, mode=mode)
    return partial(predictor.predict, image, mask)


def windows(inferer: SlidingWindowInferer, network: nn.Module, image: Tensor, precision: str) -> Tensor:
    """Return the probabilities of MONAI's sliding window."""
    with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return inferer(image[None], network)[0].float().softmax(0)


def measured(
    ways: dict[str, Run], device: torch.device, repeats: int, side: int
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Run all ways in turn; keep the first time, the others, peak memory and one answer; the best matrix products."""
    found: dict[str, dict[str, Any]] = {}
    ceilings: dict[str, float] = {}
    with torch.inference_mode():
        for name, run in ways.items():
            first, answer = timed(run, device)
            found[name] = {"first_s": first, "seconds": [], "answer": answer.cpu()}
        for _ in range(repeats):
            for name, run in ways.items():
                before = forget_peak(device)
                found[name]["seconds"].append(timed(run, device)[0])
                found[name]["peak_memory_mib"] = most(
                    found[name].get("peak_memory_mib"), peak_mib(device, before)
                )
            for precision in ("float32", "bfloat16"):
                speed = matrix_gflops(precision, side, device)
                ceilings[precision] = max(speed, ceilings.get(precision, 0.0))
    return found, ceilings


def timed(run: Run, device: torch.device) -> tuple[float, Tensor]:
    """Return the seconds until the device has done its work, and the answer."""
    synchronize(device)
    begin = time.perf_counter()
    answer = run()
    synchronize(device)
    return time.perf_counter() - begin, answer


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> int:
    """Forget the peak of the device's memory; return the bytes in use: weights, and what CUDA graphs keep."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_mib(device: torch.device, before: int) -> float | None:
    """Return the peak of the device's memory beyond what was in use; None on a CPU."""
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20 if device.type == "cuda" else None


def most(one: float | None, other: float | None) -> float | None:
    """Return the larger of what is known."""
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def matrix_gflops(precision: str, side: int, device: torch.device) -> float:
    """Return the speed of a product of two square matrices, the best of three."""
    factor = torch.ones(side, side, dtype=getattr(torch, precision), device=device)
    seconds = min(timed(lambda: factor @ factor, device)[0] for _ in range(3))
    return 2 * side**3 / seconds / 1e9


def compared(found: dict[str, dict[str, Any]], labels: Tensor, mask: Tensor) -> list[dict[str, Any]]:
    """Set each way beside ours in float32: time, labels, Dice."""
    ours = found[OURS]
    rows = []
    for name, result in found.items():
        answer, seconds = result["answer"][:, mask], result["seconds"]
        rows.append({
            "method": name,
            "seconds": spread(seconds),
            "first_s": result["first_s"],
            "times_ours": statistics.median(seconds) / statistics.median(ours["seconds"]),
            "peak_memory_mib": result["peak_memory_mib"],
            "labels_changed_percent": 100
            * float((answer.argmax(0) != ours["answer"][:, mask].argmax(0)).float().mean()),
            "mean_dice": statistics.mean(dices(answer, labels[mask])),
        })  # fmt: skip
    return rows


def device_facts(device: torch.device) -> dict[str, Any]:
    """Return what `nvidia-smi` says of a GPU: driver, clocks, power; and the versions of CUDA and cuDNN."""
    if device.type != "cuda":
        return {"name": "CPU"}
    query = [
        "nvidia-smi",
        f"--query-gpu={','.join(NVIDIA_SMI)}",
        "--format=csv,noheader",
        f"--id={device.index or 0}",
    ]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().split(", ")
    except (OSError, subprocess.CalledProcessError):
        told = [torch.cuda.get_device_name(device)]
    return {
        **dict(zip(NVIDIA_SMI, told, strict=False)),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "convolutions_in_tf32": torch.backends.cudnn.allow_tf32,
    }


if __name__ == "__main__":
    main()
