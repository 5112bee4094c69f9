"""Measure our inference against MONAI's sliding window: same weights, same volume, interleaved in one run.

    python benchmarks/inference.py --json inference.json --model bundles/infant_brain_segmentation

Without `--model` the weights are random: times and memory are those of the trained network, agreement is not.
All backends that are installed are measured (`pip install "medssl[fast]"`). Every round runs all methods once, one
after the other, ours between them and a matrix product before and behind each: a method is held to the two runs of
ours and the two products around it, since a shared machine is slower in some minutes than in others. Operations are
counted on the plain network for the voxels a method reads. `--quick` takes a small volume, small windows and a small
network, to see that everything runs.
"""

import argparse
import copy
import json
import os
import platform
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from scipy.ndimage import zoom
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import medssl
from medssl.inference.backends.openvino_backend import compile_settings
from medssl.inference.backends.torch_backend import TorchBackend
from medssl.inference.choice import REFERENCE, Wish, build, candidates
from medssl.inference.machine import library_versions
from medssl.inference.plan import Box, box_of, bytes_per_voxel, plan_tiles, region_around
from medssl.inference.predictor import HALO, MARGIN, Predictor
from medssl.inference.windows import OVERLAP
from medssl.networks import DenseFCN
from medssl.networks.windowed import WindowedBlock
from medssl.simulation.cohort import simulate_subject

OURS = "ours: brain box, one pass"
SMALL = {"stem_channels": 8, "growth_rate": 4, "block_layers": 2}
BOX_SHARE = (112 / 144, 144 / 192, 128 / 256)
"""Sides of the brain's box over those of the volume, as in a 144 x 192 x 256 infant scan."""

BRAIN_LENGTH = 148
"""Of a simulated brain from front to back in mm."""

SEED = 90
"""Of the simulated brain."""

MARGINS = (16, 32, 48)
"""Beside the one in use; on the fastest backend in float32 that is installed."""

MATRIX = 2048
"""Side of the matrices whose product is the ceiling."""


@dataclass(frozen=True)
class Method:
    """A way from the image to probabilities.

    Args:
        run: Takes nothing, returns `(L, I, J, K)`.
        tiles: Sides of what the network reads -> how often.
        precision: Whose ceiling it is held to.
    """

    run: Callable[[], Tensor]
    tiles: dict[tuple[int, int, int], int]
    precision: str = "float32"


def main() -> None:
    """Measure, print a table, write the JSON."""
    arguments = parse()
    torch.manual_seed(0)
    shape, window, repeats = tuple(arguments.shape), 64, arguments.repeats
    if arguments.quick:
        shape, window, repeats = (64, 64, 192), 32, 1
    network = load_network(arguments.model, SMALL if arguments.quick else {})
    image, labels, mask = resized_brain(shape)
    start = {"load_average": os.getloadavg(), "available_threads": torch.get_num_threads()}
    methods = make_methods(network, image, mask, window)
    found = measure(methods, repeats, MATRIX if not arguments.quick else 256)
    rows = compare(found, labels, mask)
    for row in rows:
        row.update(throughput(network, methods[row["method"]], found[row["method"]]["turns"]))
        print(line(row))
    shares = where_time_goes(network, image, mask)
    for part, share in shares.items():
        print(f"{part:<44} {share:6.1f} %")
    by_openvino = {
        precision: where_openvino_goes(network, image, mask, precision)
        for name, precision in candidates(Wish(), torch.device("cpu"))
        if name == "openvino"
    }
    box = box_of(mask)
    report = {
        "command": "benchmarks/inference.py",
        "model": arguments.model.name if arguments.model else "random weights",
        "shape": shape,
        "brain_box": box.shape if box else None,
        "window": window,
        "machine": {**machine(), **start, "load_average_at_the_end": os.getloadavg()},
        "ceiling_gflops": ceilings(methods, found),
        "rows": rows,
        "percent_of_torch_float32": shares,
        "percent_of_openvino": by_openvino,
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


def resized_brain(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return two contrasts of a simulated brain, its labels and its mask, resized to fill `BOX_SHARE` of a volume.

    Shapes:
        `(2, *shape)` in standard deviations of the brain, `shape` and `shape`.
    """
    box = [round(side * share) for side, share in zip(shape, BOX_SHARE, strict=True)]
    subject = simulate_subject(SEED, 1, spacing=max(1.0, BRAIN_LENGTH / box[1]))
    images, whole = subject.images, subject.label
    inside = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(whole))
    factors = [side / cut for side, cut in zip(box, whole[inside].shape, strict=True)]
    before = [(side - length) // 2 for side, length in zip(shape, box, strict=True)]
    around = [(first, side - length - first) for side, length, first in zip(shape, box, before, strict=True)]
    labels = np.pad(zoom(whole[inside], factors, order=0), around).astype(np.int64)
    mask = labels > 0
    contrasts = [
        np.pad(zoom(values[inside].astype(np.float32), factors, order=1), around)
        for values in images.values()
    ]
    return standardized(contrasts, mask), torch.from_numpy(labels), torch.from_numpy(mask)


def by_simulation(seed: int, number: int, spacing: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the contrasts of a simulated scan as it is, in standard deviations of the brain, and its mask."""
    subject = simulate_subject(seed, number, spacing=spacing)
    mask = subject.label > 0
    return standardized(list(subject.images.values()), mask), torch.from_numpy(mask)


def standardized(contrasts: Sequence[np.ndarray], mask: np.ndarray) -> Tensor:
    """Return contrasts with mean 0 and standard deviation 1 in the brain, 0 outside, `(C, I, J, K)`."""
    scaled = [(one - one[mask].mean()) / one[mask].std() * mask for one in contrasts]
    return torch.from_numpy(np.stack(scaled).astype(np.float32))


def make_methods(network: nn.Module, image: Tensor, mask: Tensor, window: int) -> dict[str, Method]:
    """Return each way from the image to probabilities, by name."""
    box, shape, alone = box_of(mask), tuple(image.shape[1:]), without_windows(network)

    def region(margin: int) -> Any:
        return region_around(box, shape, margin=margin, multiple=network.multiple)

    one = Predictor(network=network)
    cost = bytes_per_voxel(network.peak_maps) * one.reference.memory_factor
    limit = int(0.9 * region(MARGIN).voxels * cost)
    cut = plan_tiles(
        region(MARGIN),
        shape,
        halo=HALO,
        multiple=network.multiple,
        window=network.deep_window,
        memory_limit=limit,
        voxel_bytes=cost,
    )
    tiles = Predictor(network=network, memory_limit=limit)
    fast = fastest_in_float32()
    margins = {
        f"ours: brain box, {' '.join(fast)}, margin {margin}": Method(
            partial(with_backend(network, *fast, margin).predict, image, mask), {region(margin).shape: 1}
        )
        for margin in MARGINS
    }
    box_tiles = {region(MARGIN).shape: 1}
    whole = {region_around(Box((0, 0, 0), shape), shape, margin=0, multiple=network.multiple).shape: 1}
    return {
        OURS: Method(lambda: one.predict(image, mask), box_tiles),
        "plain network: brain box, torch float32": Method(plain(network, image, mask), box_tiles),
        **other_backends(network, image, mask, box_tiles),
        **margins,
        f"ours: brain box, windows of {window}": Method(
            lambda: Predictor(network=network, window=window).predict(image, mask),
            {(window,) * 3: windows_in(region(MARGIN).shape, window, OVERLAP)},
        ),
        f"ours: brain box, tiles with a halo of {HALO}": Method(
            lambda: tiles.predict(image, mask), counted(tile.read.shape for tile in cut)
        ),
        "ours: whole volume, one pass": Method(lambda: one.predict(image), whole),
        f"MONAI sliding window {window}^3, overlap 0.25": stock(alone, image, window, 0.25),
        f"MONAI sliding window {window}^3, overlap 0.5": stock(alone, image, window, 0.5),
    }


def without_windows(network: nn.Module) -> nn.Module:
    """Return a copy whose blocks see a tile as a whole: MONAI's windows are all the windows there are."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, WindowedBlock):
            module.windowed = False
    return network


def stock(network: nn.Module, image: Tensor, window: int, overlap: float) -> Method:
    """Return MONAI's sliding window with Gaussian weights."""
    inferer = SlidingWindowInferer((window,) * 3, sw_batch_size=1, overlap=overlap, mode="gaussian")
    windows = windows_in(image.shape[1:], window, overlap)
    return Method(lambda: inferer(image[None], network)[0].softmax(0), {(window,) * 3: windows})


def windows_in(shape: Iterable[int], window: int, overlap: float) -> int:
    """Count MONAI's sliding windows in a volume."""
    step = int(window * (1 - overlap))
    return prod(1 + max(0, -(-(side - window) // step)) for side in shape)


def plain(network: nn.Module, image: Tensor, mask: Tensor) -> Callable[[], Tensor]:
    """Return our plan with the network as it is: batch norm folded, channels last, nothing rewritten."""
    predictor = Predictor(network=network)
    reference = predictor.reference
    reference.network = reference.source.to(memory_format=torch.channels_last_3d)
    return partial(predictor.predict, image, mask)


def with_backend(network: nn.Module, name: str, precision: str, margin: int = MARGIN) -> Predictor:
    """Return a predictor that uses a backend without asking the accuracy gate."""
    predictor = Predictor(network=network, margin=margin)
    predictor.backend = build(name, precision, predictor.reference)
    return predictor


def fastest_in_float32() -> tuple[str, str]:
    """Return the backend that the margins are compared on."""
    wanted = ("openvino", "float32")
    return wanted if wanted in candidates(Wish(precision="float32"), torch.device("cpu")) else REFERENCE


def counted(shapes: Iterable[tuple[int, int, int]]) -> dict[tuple[int, int, int], int]:
    """Return how often each shape occurs."""
    return dict(Counter(shapes))


def other_backends(
    network: nn.Module, image: Tensor, mask: Tensor, tiles: dict[tuple[int, int, int], int]
) -> dict[str, Method]:
    """Return the brain box in one pass by each backend that is installed, the accuracy gate left out."""
    return {
        "ours: brain box, {} {}".format(*pair): Method(
            partial(with_backend(network, *pair).predict, image, mask), tiles, pair[1]
        )
        for pair in candidates(Wish(), torch.device("cpu"))
        if pair != REFERENCE
    }


@dataclass(frozen=True)
class Turn:
    """One run of a method.

    Args:
        seconds: What it took.
        ceiling: Speed of a matrix product of its precision just before and behind it, the mean, GFLOP/s.
        load: Load average of the last minute before it.
        peak_memory_mib: Beyond what was resident; None off Linux.
    """

    seconds: float
    ceiling: float
    load: float
    peak_memory_mib: float | None


def measure(methods: dict[str, Method], repeats: int, side: int) -> dict[str, dict[str, Any]]:
    """Run all methods in turn, several times, ours before and behind each: the machine may be slower in some minutes.

    Before that every method but MONAI's windows, which compile nothing, runs once untimed; that run tells the memory,
    since a library may keep what it has taken.

    Returns:
        Name -> its turns, the first answer, and how often as long as the two runs of ours around it each turn took.
    """
    found: dict[str, dict[str, Any]] = {name: {"turns": [], "ratios": []} for name in methods}
    with torch.inference_mode():
        for name, method in methods.items():
            if not name.startswith("MONAI"):
                resident = reset_peak()
                method.run()
                found[name]["peak_memory_mib"] = None if resident is None else (peak() - resident) / 2**20
        for _ in range(repeats):
            before = take_turn(methods[OURS], found[OURS], side)
            for name in [name for name in methods if name != OURS]:
                turn = take_turn(methods[name], found[name], side)
                behind = take_turn(methods[OURS], found[OURS], side)
                found[name]["ratios"].append(2 * turn.seconds / (before.seconds + behind.seconds))
                before = behind
    found[OURS]["ratios"] = [1.0]
    return found


def take_turn(method: Method, found: dict[str, Any], side: int) -> Turn:
    """Run a method once, between two matrix products; add the turn to what was found, and the first answer."""
    before, load, resident = matrix_gflops(method.precision, side), os.getloadavg()[0], reset_peak()
    begin = time.perf_counter()
    answer = method.run()
    seconds = time.perf_counter() - begin
    memory = None if resident is None else (peak() - resident) / 2**20
    turn = Turn(seconds, (before + matrix_gflops(method.precision, side)) / 2, load, memory)
    found["turns"].append(turn)
    found.setdefault("answer", answer)
    return turn


def matrix_gflops(precision: str, side: int) -> float:
    """Return the speed of a product of two square matrices, the best of three."""
    factor = torch.ones(side, side, dtype=getattr(torch, precision))
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        factor @ factor
        seconds.append(time.perf_counter() - begin)
    return 2 * side**3 / min(seconds) / 1e9


def throughput(network: nn.Module, method: Method, turns: list[Turn]) -> dict[str, Any]:
    """Return the operations of a method a second, and their share of what a matrix product reached beside it."""
    operations = sum(count * flops(network, shape) for shape, count in method.tiles.items()) / 1e9
    return {
        "gflop": operations,
        "gflops": operations / statistics.median(turn.seconds for turn in turns),
        "percent_of_ceiling": spread([100 * operations / turn.seconds / turn.ceiling for turn in turns]),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return least, median and largest, and of how many."""
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "runs": len(values),
    }


def flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the floating point operations of the plain network; nothing is computed."""
    still = copy.deepcopy(network).to("meta")
    channels = next(weight.shape[1] for weight in still.parameters() if weight.ndim == 5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        still(torch.zeros(1, channels, *shape, device="meta"))
    return counter.get_total_flops()


def where_time_goes(network: nn.Module, image: Tensor, mask: Tensor) -> dict[str, float]:
    """Return the share of the time, in percent, of each part of the network, run by torch in float32."""
    running = TorchBackend(network).network
    spent: dict[str, float] = {}
    begun: list[float] = []
    names = ("stem", "downs", "blocks", "ups", "heads", "last_head")
    parts = [
        (
            name if name in names else f"{name.partition('.')[0]}, scale {int(name.partition('.')[2]) + 1}",
            part,
        )
        for name, part in running.named_modules()
        if name in ("stem", "last_head") or (name.count(".") == 1 and name.partition(".")[0] in names[1:5])
    ]
    for name, part in parts:
        part.register_forward_pre_hook(lambda *_: begun.append(time.perf_counter()))
        part.register_forward_hook(
            lambda *_, name=name: spent.__setitem__(
                name, spent.get(name, 0) + time.perf_counter() - begun.pop()
            )
        )
    region = region_around(box_of(mask), image.shape[1:], margin=MARGIN, multiple=network.multiple)
    tile = torch.zeros(1, image.shape[0], *region.shape).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        running(tile)
        spent.clear()
        begin = time.perf_counter()
        running(tile)
        whole = time.perf_counter() - begin
    spent["everything else"] = whole - sum(spent.values())
    return {name: 100 * seconds / whole for name, seconds in spent.items()}


def where_openvino_goes(network: nn.Module, image: Tensor, mask: Tensor, precision: str) -> dict[str, float]:
    """Return the share of the time, in percent, of each part of the network, by OpenVINO's own counters."""
    backend: Any = build("openvino", precision, TorchBackend(network))
    region = region_around(box_of(mask), image.shape[1:], margin=MARGIN, multiple=network.multiple)
    model = backend._model.clone()  # noqa: SLF001 (the counters have to be asked for when it is compiled)
    model.reshape([1, image.shape[0], *region.shape])
    settings = {**compile_settings(precision), "PERF_COUNT": True}
    request = backend._core.compile_model(model, "CPU", settings).create_infer_request()  # noqa: SLF001
    tile = np.zeros((1, image.shape[0], *region.shape), np.float32)
    for _ in range(2):
        request.infer([tile])
    spent: dict[str, float] = {}
    for node in request.profiling_info:
        part = re.search(r"__module\.(stem|downs|blocks|ups|classifier)(?:\.(\d+))?", node.node_name)
        scaled = part and part[1] in ("downs", "blocks", "ups")
        name = "everything else" if part is None else part[1]
        name += f", scale {int(part[2]) + 1}" if part and scaled else ""
        spent[name] = spent.get(name, 0.0) + node.real_time.total_seconds()
    return {name: 100 * seconds / sum(spent.values()) for name, seconds in spent.items()}


def ceilings(methods: dict[str, Method], found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return what a matrix product of each precision reached during the run."""
    speeds: dict[str, list[float]] = {}
    for name, method in methods.items():
        speeds.setdefault(method.precision, []).extend(turn.ceiling for turn in found[name]["turns"])
    return {precision: spread(values) for precision, values in speeds.items()}


def compare(found: dict[str, dict[str, Any]], labels: Tensor, mask: Tensor) -> list[dict[str, Any]]:
    """Set each method beside ours: time, probabilities, labels, Dice against the truth."""
    reference = found[OURS]["answer"][:, mask]
    truth = labels[mask]
    rows = []
    for name, result in found.items():
        answer, turns = result["answer"][:, mask], result["turns"]
        dice = [b - a for a, b in zip(dices(answer, truth), dices(reference, truth), strict=True)]
        taken = [result.get("peak_memory_mib"), *(turn.peak_memory_mib for turn in turns)]
        known = [memory for memory in taken if memory is not None]
        rows.append({
            "method": name,
            "seconds": spread([turn.seconds for turn in turns]),
            "times_ours": spread(result["ratios"]),
            "peak_memory_mib": max(known, default=None),
            "load_average": spread([turn.load for turn in turns]),
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
        f"{row['method']:<44} {row['seconds']['median']:8.2f} s {row['times_ours']['median']:7.1f} x {memory:>6} MiB"
        f" {row['gflops']:6.0f} GFLOP/s {row['percent_of_ceiling']['median']:5.1f} %"
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
