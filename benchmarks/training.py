"""Measure training: steps against a plain MONAI loop, and what of a step lies outside the network.

    python benchmarks/training.py --json benchmarks/results/training.json
    python benchmarks/training.py --table benchmarks/results/training.json

Every arm trains by itself on the same cohort of ellipsoids; arms take turns, a few steps each, in one run. Ours are the
bundles as `medssl train` and `medssl classify train` run them, all handlers included; the plain loop is MONAI's
`SupervisedTrainer` over a `CacheDataset` with dictionary transforms of the same kinds and ranges, with the same
network, loss, optimizer, crops and batch. Savings of checkpoints are left out in both. `--quick` takes small networks
and two steps, to see that everything runs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine, Events
from inference import machine as machine_facts
from inference import spread
from inference_gpu import device_facts
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedTrainer
from monai.transforms import (
    Compose,
    FgBgToIndicesd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from torch import nn

from medssl.io.files import write_json
from medssl.objectives import SupervisedLoss
from medssl.workflows.classification.simulate import simulate_folder
from medssl.workflows.classification.train import ClassifyOptions, prepare_classifier, usable_cohort
from medssl.workflows.models import quiet_libraries
from medssl.workflows.train import TrainOptions, prepare_run

PARTS = ("forward", "backward", "optimizer")
BATCH = "batch"
"""Making the crops or images of a step, which lies outside the network as the rest of a step does."""

PLAIN = "plain MONAI loop"
VOLUMES = {"basic-unet": (32, 48, 32), "dense-fcn": (32, 32, 32)}
"""Networks in 3D and their crops, 4 a step, two contrasts, four labels."""

METHODS = {"labeled-only": "supervised", "mean teacher": "mean-teacher", "SSLDEC": "ssldec"}
IMAGES = {"labeled-only": "supervised", "SSLDEC": "ssldec"}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    ", next batch in a thread": {"train#dataloader#prefetch": True},
    ", float32": {"amp": False},
}
"""How the network for images trains: as packaged (bfloat16 where the processor has it), or with one thing changed."""
DEFAULT = {"network": "vgg-small-64", "size": 64, "settings": {"batch_size": 64}}
SMALLEST = {"network": "vgg-small-28", "size": 28, "settings": {"batch_size": 256}}
PICTURES: Mapping[str, Mapping[str, Any]] = {
    "color, natural": {**SMALLEST, "variants": VARIANTS},
    "gray, digits": {**SMALLEST, "channels": 1, "preset": "digits", "variants": ("",)},
    "color, natural, all defaults": {**DEFAULT, "variants": ("",)},
}
"""Images by color and preset of augmentation: as simulated ones are, as those of MNIST are, and what
`medssl classify train` does where nothing is asked for."""
KEYS = ("image", "label", "mask")


def clock() -> float:
    """Return the time, once a GPU has done what it was asked for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


class Stopwatch:
    """Clock the steps of a trainer, and forward, backward and optimizer within them.

    Args:
        trainer: Its loss function is called once a step, for forward pass and loss.
        optimizer: Of the trainer.
    """

    def __init__(self, trainer: Engine, optimizer: torch.optim.Optimizer, forward: tuple[Any, str]) -> None:
        self.steps: list[dict[str, float]] = []
        self._parts = dict.fromkeys((*PARTS, BATCH), 0.0)
        self._asked = 0.0
        self._last: tuple[float, float] | None = None
        self._inside = False
        self._clock(forward[0], forward[1], "forward")
        self._clock(optimizer, "step", "optimizer")
        trainer.add_event_handler(Events.EPOCH_STARTED, self._forget)
        trainer.add_event_handler(Events.GET_BATCH_STARTED, self._ask)
        trainer.add_event_handler(Events.GET_BATCH_COMPLETED, self._get)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._step)

    def _clock(self, owner: Any, name: str, part: str) -> None:
        original = getattr(owner, name)

        def clocked(*args: Any, **kwargs: Any) -> Any:
            with self.part(part):
                return original(*args, **kwargs)

        setattr(owner, name, clocked)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of a block to a part of the step, once: MONAI's tensors call `backward` from within itself."""
        if self._inside:
            yield
            return
        start, self._inside = clock(), True
        yield
        self._parts[name] += clock() - start
        self._inside = False

    def _forget(self, engine: Engine) -> None:
        self._last = None

    def _ask(self, engine: Engine) -> None:
        self._asked = clock()

    def _get(self, engine: Engine) -> None:
        self._parts[BATCH] += clock() - self._asked

    def _step(self, engine: Engine) -> None:
        """Record a step from the end of the one before; the first of a turn starts the loader and is left out."""
        now = clock(), time.process_time()
        if self._last is not None:
            wall, cpu = now[0] - self._last[0], now[1] - self._last[1]
            self.steps.append({"seconds": wall, "cpu_seconds": cpu, **self._parts})
        self._last = now
        self._parts = dict.fromkeys((*PARTS, BATCH), 0.0)


class Arm:
    """One way to train: takes its turns, and knows what they took.

    Args:
        trainer: Engine whose epochs are turns.
        stopwatch: Attached to it.
    """

    def __init__(self, trainer: Engine, stopwatch: Stopwatch) -> None:
        self.trainer, self.stopwatch = trainer, stopwatch

    def turn(self) -> None:
        """Train one epoch more."""
        backward = torch.Tensor.backward

        def clocked(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
            with self.stopwatch.part("backward"):
                backward(tensor, *args, **kwargs)

        torch.Tensor.backward = clocked  # type: ignore[method-assign]
        try:
            self.trainer.state.max_epochs = self.trainer.state.epoch + 1
            self.trainer.run()
        finally:
            torch.Tensor.backward = backward  # type: ignore[method-assign]


def main() -> None:
    """Measure and write the JSON, or print the table of one."""
    arguments = parse()
    if arguments.table:
        print("\n".join(table_lines(json.loads(arguments.table.read_text()))))
        return
    torch.set_num_threads(arguments.threads)
    quiet_libraries()
    logging.disable(logging.WARNING)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        rows = volume_rows(Path(folder), arguments) + image_rows(Path(folder), arguments)
    report = {
        "command": "python benchmarks/training.py",
        "machine": machine(load, arguments.device),
        "rows": rows,
    }
    print("\n".join(table_lines(report)))
    if arguments.json:
        write_json(arguments.json, report)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--table", type=Path, help="print the table of an earlier JSON, measure nothing")
    parser.add_argument("--turns", type=int, default=7, help="of each arm; the first one warms up")
    parser.add_argument("--steps", type=int, default=10, help="a turn; the first one is left out")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="where to train, such as cuda")
    parser.add_argument("--quick", action="store_true", help="small networks, two turns")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.turns, arguments.steps = 2, 3
    return arguments


def machine(load: Sequence[float], device: str) -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        "processor": machine_facts()["processor"],
        "device": device_facts(torch.device(device)),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": load,
        "load_after": os.getloadavg(),
        "torch": torch.__version__,
        "monai": monai.__version__,
    }


def volume_rows(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure training of 3D networks."""
    data = folder / "cohort"
    write_cohort(data, (32, 36, 34) if arguments.quick else (72, 96, 80))
    rows = []
    for name, crop in {"dense-fcn-small": (16, 16, 16)}.items() if arguments.quick else VOLUMES.items():
        arms: dict[str, Arm] = {}
        for label, method in METHODS.items():
            out = folder / f"{name}-{method}"
            settings = {"crop_size": list(crop), **endless(arguments)}
            prior = {"prior": "class"} if method == "ssldec" else {}
            options = TrainOptions(
                method=method, network=name, device=arguments.device, settings=settings, **prior
            )
            prepare_run(data, out, options)
            arms[f"ours, {label}"] = ours(out)
        arms = {PLAIN: plain_loop(folder / f"{name}-supervised", crop, arguments), **arms}
        rows += taken({"network": name, "crops": [4, *crop]}, arms, arguments.turns)
    return rows


def write_cohort(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write two labeled and two unlabeled scans of 2 mm: ellipsoids in noise, since times depend on sizes alone."""
    random = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, side) for side in shape], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    labels = np.select([radius < 0.5, radius < 0.75, radius < 0.95], [2, 1, 3], 0).astype(np.uint8)  # type: ignore[arg-type]
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for number in range(4):
        name = f"sub-{number}"
        place = folder / name / "anat"
        place.mkdir(parents=True)
        for contrast in ("T1w", "T2w"):
            means = random.uniform(200, 800, 4)[labels] + random.normal(0, 20, shape)
            image = np.where(labels > 0, means.clip(1), 0).astype(np.int16)
            nib.save(nib.Nifti1Image(image, affine), place / f"{name}_{contrast}.nii.gz")
        if number < 2:
            place = folder / "derivatives" / "manual" / name / "anat"
            place.mkdir(parents=True)
            nib.save(nib.Nifti1Image(labels, affine), place / f"{name}_seg-braintissues_dseg.nii.gz")


def image_rows(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure training of a 2D network: as packaged, with batches made beforehand in a thread, in float32."""
    rows = []
    for pictures, kind in PICTURES.items():
        size, batch = kind["size"], 16 if arguments.quick else kind["settings"]["batch_size"]
        data = folder / f"images-{size}"
        if not data.is_dir():
            simulate_folder(data, labeled=20, unlabeled=300, validation=0, test=1, size=size)
        chosen = {key: value for key, value in kind.items() if key not in {"variants", "settings"}}
        arms: dict[str, Arm] = {}
        for (label, method), variant in itertools.product(IMAGES.items(), kind["variants"]):
            out = folder / f"{pictures}-{len(arms)}"
            more = {"batch_size": batch, **VARIANTS[variant], **endless(arguments)}
            options = ClassifyOptions(
                method=method,
                device=arguments.device,
                hold_out=0,
                settings=more,
                **chosen,
            )
            prepare_classifier(out, usable_cohort(data, options), options, data)
            arms[f"ours, {label}{variant}"] = ours(out)
        facts = {"network": kind["network"], "pictures": pictures, "crops": [batch, size, size]}
        rows += taken(facts, arms, arguments.turns)
    return rows


def endless(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return settings of a run that ends when the benchmark stops asking; unlabeled data from the first step on."""
    return {"epochs": 10**4, "steps_per_epoch": arguments.steps, "val_interval": 10**5}


def built(run: Path, **overrides: Any) -> ConfigParser:
    """Build the parts of a run folder's training."""
    workflow = ConfigWorkflow(
        config_file=str(run / "configs" / "train.yaml"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(run),
        **overrides,
    )
    workflow.initialize()
    return workflow.parser


def ours(run: Path) -> Arm:
    """Build the trainer of a run folder, as `medssl train` does."""
    config = (run / "configs" / "train.yaml").read_text()
    parser = built(run, **({"unlabeled_start": 0.0} if "unlabeled_start" in config else {}))
    trainer = parser.get_parsed_content("train#trainer")
    trainer.total_epochs = trainer.state.max_epochs
    return Arm(trainer, Stopwatch(trainer, trainer.optimizer, (trainer, "loss_function")))


class PlainLoss(nn.Module):
    """The loss of the bundle, called as MONAI's trainers call one."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = SupervisedLoss()

    def forward(self, pred: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the loss."""
        loss: torch.Tensor = self.loss(pred, label)
        return loss


def plain_loop(run: Path, crop: Sequence[int], arguments: argparse.Namespace) -> Arm:
    """Build the loop that MONAI's tutorials show, with the network, the scans and the precision of a run folder."""
    parser = built(run)
    network, entries = parser.get_parsed_content("network"), parser.get_parsed_content("train#dataset").data
    prepare = Compose([*parser.get_parsed_content("train#preprocessing").transforms, FgBgToIndicesd("mask")])
    dataset = CacheDataset(
        [entries[number % len(entries)] for number in range(4 * arguments.steps)],
        Compose([prepare, *plain_augmentation(crop)]),
        progress=False,
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-5)
    trainer = SupervisedTrainer(
        device=torch.device(arguments.device),
        amp=parser.get_parsed_content("amp"),
        max_epochs=1,
        train_data_loader=DataLoader(dataset, batch_size=4, shuffle=True, num_workers=0),
        network=network,
        optimizer=optimizer,
        loss_function=PlainLoss(),
    )
    stopwatch = Stopwatch(trainer, optimizer, (trainer, "inferer"))
    stopwatch._clock(trainer, "loss_function", "forward")  # noqa: SLF001
    return Arm(trainer, stopwatch)


def plain_augmentation(crop: Sequence[int]) -> list[Callable[..., Any]]:
    """Return MONAI's dictionary transforms with the ranges of `medssl.transforms.augmentation`."""
    image, modes = "image", ["bilinear", "nearest", "nearest"]
    return [
        RandCropByPosNegLabeld(
            KEYS, "mask", crop, pos=1, neg=0, num_samples=1, fg_indices_key="mask_fg_indices",
            bg_indices_key="mask_bg_indices",
        ),
        RandFlipd(KEYS, prob=0.5, spatial_axis=0),
        RandAffined(
            KEYS, prob=0.5, rotate_range=(0.2,) * 3, scale_range=(0.12,) * 3, shear_range=(0.05,) * 6,
            mode=modes, padding_mode="zeros",
        ),
        RandBiasFieldd(image, prob=0.3, degree=2, coeff_range=(0.0, 0.15)),
        RandScaleIntensityd(image, prob=0.5, factors=0.2, channel_wise=True),
        RandShiftIntensityd(image, prob=0.5, offsets=0.2, channel_wise=True),
        RandAdjustContrastd(image, prob=0.3, gamma=(0.75, 1.35)),
        RandGaussianNoised(image, prob=0.3, std=0.15),
        RandGaussianSmoothd(image, prob=0.15, sigma_x=(0.3, 0.8), sigma_y=(0.3, 0.8), sigma_z=(0.3, 0.8)),
    ]  # fmt: skip


def taken(facts: Mapping[str, Any], arms: dict[str, Arm], turns: int) -> list[dict[str, Any]]:
    """Let arms take turns; return one row an arm, compared with the first one turn by turn.

    The order is reversed with every turn: a machine that becomes slower or faster favors no arm.
    """
    ends: dict[str, list[int]] = {name: [0] for name in arms}
    for turn in range(turns):
        for name in reversed(arms) if turn % 2 else arms:
            arms[name].turn()
            ends[name].append(len(arms[name].stopwatch.steps))
    reference = next(iter(arms))
    per_turn = {
        name: [
            statistics.median(step["seconds"] for step in arms[name].stopwatch.steps[first:last])
            for first, last in itertools.pairwise(places[1:])
        ]
        for name, places in ends.items()
    }
    rows = []
    for name, arm in arms.items():
        steps = arm.stopwatch.steps[ends[name][1] :]
        inside = [sum(step[part] for part in PARTS) for step in steps]
        ratios = [theirs / own for theirs, own in zip(per_turn[reference], per_turn[name], strict=True)]
        seconds = [step["seconds"] for step in steps]
        rows.append(
            {
                **facts,
                "arm": name,
                "steps": len(steps),
                "seconds": spread(seconds),
                **{part: spread([step[part] for step in steps]) for part in PARTS},
                BATCH: spread([step[BATCH] / step["seconds"] for step in steps]),
                "outside": spread([1 - known / whole for known, whole in zip(inside, seconds, strict=True)]),
                "reference": reference,
                "times_as_fast": spread(ratios),
            }
        )
    return rows


def table_lines(report: Mapping[str, Any]) -> list[str]:
    """Turn the JSON into the lines of a markdown table."""
    lines = [
        "| network, batch | arm | s a step: median (min to max) | outside the network, % | of it batch, % | speed |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        what = f"{row['network']}, {' x '.join(map(str, row['crops']))}"
        what += f" ({row['pictures']})" if "pictures" in row else ""
        seconds, outside, batch, ratio = (
            _cell(row[name], digits, factor)
            for name, digits, factor in (
                ("seconds", 3, 1),
                ("outside", 1, 100),
                (BATCH, 1, 100),
                ("times_as_fast", 2, 1),
            )
        )
        ratio = "1" if row["arm"] == row["reference"] else ratio
        lines.append(f"| {what} | {row['arm']} | {seconds} | {outside} | {batch} | {ratio} |")
    facts = report["machine"]
    loads = " and ".join(f"{facts[when][0]:.1f}" for when in ("load_before", "load_after"))
    lines += ["", f"{facts['threads']} threads, {facts['cores']} cores, load before and after: {loads}."]
    return lines


def _cell(values: Mapping[str, float], digits: int, factor: float) -> str:
    low, middle, high = (f"{factor * values[name]:.{digits}f}" for name in ("min", "median", "max"))
    runs = f", n = {values['runs']}" if "runs" in values else ""
    return f"{middle} ({low} to {high}{runs})"


if __name__ == "__main__":
    main()
