"""Measure our inference against MONAI's sliding window: same weights, same volume, interleaved in one run.

    python benchmarks/inference.py --json inference.json --model bundles/infant_brain_segmentation

Without `--model` the weights are random: times and memory are those of the trained network, agreement is not.
All backends that are installed are measured (`pip install "medssl[fast]"`). `--quick` takes a small volume, small
windows and a small network, to see that everything runs.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

import medssl
from medssl.inference.choice import REFERENCE, Wish, build, candidates
from medssl.inference.machine import library_versions
from medssl.inference.plan import box_of, bytes_per_voxel, region_around
from medssl.inference.predictor import HALO, MARGIN, Predictor
from medssl.networks import DenseFCN

OURS = "ours: brain box, one pass"
SMALL = {"stem_channels": 8, "growth_rate": 4, "block_layers": 2}
BOX_SHARE = (112 / 144, 144 / 192, 128 / 256)
"""Sides of the brain's box over those of the volume, as in a 144 x 192 x 256 infant scan."""


def main() -> None:
    """Measure, print a table, write the JSON."""
    arguments = parse()
    torch.manual_seed(0)
    shape, window, repeats = tuple(arguments.shape), 64, arguments.repeats
    if arguments.quick:
        shape, window, repeats = (64, 64, 192), 32, 1
    network = load_network(arguments.model, SMALL if arguments.quick else {})
    image, labels, mask = synthetic_brain(shape)
    start = {"load_average": os.getloadavg(), "available_threads": torch.get_num_threads()}
    methods = make_methods(network, image, mask, window)
    rows = compare(measure(methods, repeats), labels, mask)
    for row in rows:
        print(line(row))
    box = box_of(mask)
    report = {
        "command": "benchmarks/inference.py",
        "model": str(arguments.model or "random weights"),
        "shape": shape,
        "brain_box": box.shape if box else None,
        "window": window,
        "machine": {**machine(), **start},
        "rows": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--model", type=Path, help="bundle folder, or file with the weights of a DenseFCN")
    parser.add_argument("--shape", type=int, nargs=3, default=[144, 192, 256], help="voxels of the volume")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each method")
    parser.add_argument("--quick", action="store_true", help="everything small, one run")
    return parser.parse_args()


def load_network(model: Path | None, options: dict[str, int]) -> nn.Module:
    """Return the network of a bundle, of a weights file, or one with random weights and the given options."""
    if model is None:
        return DenseFCN(2, 4, **options).eval()
    weights = model / "models" / "model.pt" if model.is_dir() else model
    state = torch.load(weights, map_location="cpu", weights_only=True)
    if model.is_dir():
        parser = ConfigParser(globals=False)
        parser.read_config(model / "configs" / "inference.yaml")
        parser["bundle_root"] = str(model)
        network = parser.get_parsed_content("network_def")
    else:
        network = DenseFCN(state["stem.0.weight"].shape[1], state["classifier.2.weight"].shape[0])
    network.load_state_dict(state)
    return network.eval()


def synthetic_brain(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return two noisy contrasts of an ellipsoid of three tissues, its labels and its mask."""
    rng = np.random.default_rng(0)
    axes = [np.linspace(-1, 1, side) / share for side, share in zip(shape, BOX_SHARE, strict=True)]
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
    mask = radius < 1
    depth = 1 - radius + 4 * gaussian_filter(rng.standard_normal(shape), 4)
    low, high = np.quantile(depth[mask], [0.22, 0.69])
    labels = np.where(depth < low, 3, np.where(depth < high, 1, 2)) * mask
    contrasts = []
    for means in ([0, 1.0, 1.25, 0.3], [0, 1.0, 0.9, 1.8]):
        values = np.array(means)[labels] + 0.25 * rng.standard_normal(shape)
        contrasts.append((values - values[mask].mean()) / values[mask].std() * mask)
    image = torch.from_numpy(np.stack(contrasts).astype(np.float32))
    return image, torch.from_numpy(labels), torch.from_numpy(mask)


def make_methods(
    network: nn.Module, image: Tensor, mask: Tensor, window: int
) -> dict[str, Callable[[], Tensor]]:
    """Return each way from the image to probabilities, by name."""

    def stock(overlap: float) -> Callable[[], Tensor]:
        inferer = SlidingWindowInferer((window,) * 3, sw_batch_size=1, overlap=overlap, mode="gaussian")
        return lambda: inferer(image[None], network)[0].softmax(0)

    box = box_of(mask)
    voxels = region_around(box, image.shape[1:], margin=MARGIN, multiple=network.multiple).voxels
    limit = int(0.8 * voxels * bytes_per_voxel(network.peak_maps))
    one, tiles = Predictor(network=network), Predictor(network=network, memory_limit=limit)
    return {
        OURS: lambda: one.predict(image, mask),
        **other_backends(network, image, mask),
        f"ours: brain box, tiles with a halo of {HALO}": lambda: tiles.predict(image, mask),
        "ours: whole volume, one pass": lambda: one.predict(image),
        f"MONAI sliding window {window}^3, overlap 0.25": stock(0.25),
        f"MONAI sliding window {window}^3, overlap 0.5": stock(0.5),
    }


def other_backends(network: nn.Module, image: Tensor, mask: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return the brain box in one pass by each backend that is installed, the accuracy gate left out."""
    methods = {}
    for pair in candidates(Wish(), torch.device("cpu")):
        if pair != REFERENCE:
            predictor = Predictor(network=network)
            predictor.backend = build(*pair, predictor.reference)
            methods["ours: brain box, {} {}".format(*pair)] = partial(predictor.predict, image, mask)
    return methods


def measure(methods: dict[str, Callable[[], Tensor]], repeats: int) -> dict[str, dict[str, Any]]:
    """Run all methods in turn, several times; keep times, peak memory and one answer of each."""
    found: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in methods}
    with torch.inference_mode():
        for _ in range(repeats):
            for name, method in methods.items():
                resident = reset_peak()
                begin = time.perf_counter()
                answer = method()
                found[name]["seconds"].append(time.perf_counter() - begin)
                found[name]["peak_memory_mib"] = (peak() - resident) / 2**20 if resident else None
                found[name].setdefault("answer", answer)
                del answer
    return found


def compare(found: dict[str, dict[str, Any]], labels: Tensor, mask: Tensor) -> list[dict[str, Any]]:
    """Set each method beside ours: time, probabilities, labels, Dice against the truth."""
    ours = found[OURS]
    reference = ours["answer"][:, mask]
    truth = labels[mask]
    rows = []
    for name, result in found.items():
        answer = result["answer"][:, mask]
        dice = [b - a for a, b in zip(dices(answer, truth), dices(reference, truth), strict=True)]
        seconds = result["seconds"]
        rows.append({
            "method": name,
            "seconds": {"min": min(seconds), "median": statistics.median(seconds), "max": max(seconds)},
            "times_ours": statistics.median(seconds) / statistics.median(ours["seconds"]),
            "peak_memory_mib": result["peak_memory_mib"],
            "largest_probability_difference": float((answer - reference).abs().max()),
            "mean_probability_difference": float((answer - reference).abs().mean()),
            "labels_changed_percent": 100 * float((answer.argmax(0) != reference.argmax(0)).float().mean()),
            "largest_dice_difference": max(map(abs, dice)),
            "mean_dice": statistics.mean(dices(answer, truth)),
        })  # fmt: skip
    return rows


def dices(probabilities: Tensor, truth: Tensor) -> list[float]:
    """Return the Dice of every label but the background inside the mask."""
    labels = probabilities.argmax(0)
    found = []
    for label in range(1, len(probabilities)):
        a, b = labels == label, truth == label
        found.append(float(2 * (a & b).sum() / max(1, int(a.sum() + b.sum()))))
    return found


def line(row: dict[str, Any]) -> str:
    """Format one row of the table."""
    memory = "?" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}"
    return (
        f"{row['method']:<44} {row['seconds']['median']:8.2f} s {row['times_ours']:7.1f} x {memory:>6} MiB"
        f"  dp max {row['largest_probability_difference']:.4f}  labels {row['labels_changed_percent']:.3f} %"
        f"  Dice {row['mean_dice']:.4f} (+- {row['largest_dice_difference']:.4f})"
    )


def machine() -> dict[str, Any]:
    """Describe where this ran."""
    model = [text for text in status_lines("/proc/cpuinfo") if text.startswith("model name")]
    return {
        "processor": model[0].partition(": ")[2] if model else platform.processor(),
        "cpus": os.cpu_count(),
        "backends": library_versions(),
        "medssl": medssl.__version__,
    }


def reset_peak() -> int | None:
    """Forget the peak of the resident memory; return what is resident now, None off Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return status_bytes("VmRSS")


def peak() -> int:
    """Return the peak of the resident memory since it was last forgotten."""
    return status_bytes("VmHWM")


def status_bytes(name: str) -> int:
    """Read one line of the process status."""
    return next(
        int(text.split()[1]) * 1024 for text in status_lines("/proc/self/status") if text.startswith(name)
    )


def status_lines(path: str) -> list[str]:
    """Return the lines of a file of /proc, none where there is no such file."""
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


if __name__ == "__main__":
    main()
