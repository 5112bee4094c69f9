"""What a semi-supervised step costs beyond its forward and backward passes.

    python benchmarks/ssl_step_cost.py --json benchmarks/results/ssl_step_cost.json

Counts the CPU seconds of whole trainer steps of each objective, interleaved in one run, against the bare passes that
it cannot do without: one forward and backward pass of the student over all crops, and the teacher's forward pass over
the unlabeled ones. One thread, so that CPU time is what a step computes, whatever else the machine does; the two take
turns in going first. The interval of the median (about 95 %) decides: order statistics, without assumptions. Cutting
crops is left out: both kinds cost the same there.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from inference import machine
from scipy.stats import binom
from torch import Tensor

from medssl.engines import GradientClipping, SemiSupervisedTrainer, Teacher
from medssl.io.files import write_json
from medssl.networks import ClusteringNetwork, DenseFCN, parameter_groups
from medssl.objectives import LabeledOnly, MeanTeacher, OnlinePseudoLabel, OnlineSSLDEC

LABELED = UNLABELED = 2
LABELS = 4


@click.command()
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
@click.option("--repeats", default=20, show_default=True)
@click.option("--side", default=32, show_default=True, help="Of a crop, in voxels.")
@click.option("--threads", default=1, show_default=True)
def main(out: Path, repeats: int, side: int, threads: int) -> None:
    """Time, compare, write."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    load = os.getloadavg()
    steps = {name: _steps(name, side) for name in ("ssldec", "mean-teacher", "pseudo-label")}
    ratios: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, (whole, bare) in steps.items():
            calls = (whole, bare) if repeat % 2 else (bare, whole)
            seconds = {call: _seconds(call) for call in calls}
            if repeat:  # the first one warms up
                ratios[name].append(seconds[whole] / seconds[bare])
    found = {
        name: {
            "median": statistics.median(some),
            "interval": _interval_of_median(some),
            "lowest": min(some),
            "highest": max(some),
        }
        for name, some in ratios.items()
    }
    where = {
        **machine(),
        "threads": threads,
        "load_average": load,
        "load_average_at_the_end": os.getloadavg(),
    }
    write_json(
        out,
        {
            "command": "benchmarks/ssl_step_cost.py",
            "machine": where,
            "side": side,
            "crops": [LABELED, UNLABELED],
            "threads": threads,
            "step_against_passes": found,
        },
    )
    for name, row in found.items():
        low, high = row["interval"]
        print(
            f"{name:14s} {row['median']:.3f} [{low:.3f}, {high:.3f}] ({row['lowest']:.3f} to {row['highest']:.3f})"
        )


def _steps(name: str, side: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a whole step of a method, and the passes that it consists of."""
    if name == "ssldec":
        network: torch.nn.Module = ClusteringNetwork(DenseFCN(2, 16), 16, LABELS)
    else:
        network = DenseFCN(2, LABELS)
    teacher = Teacher(network)
    objective = {
        "ssldec": lambda: OnlineSSLDEC(teacher, labels=LABELS),
        "mean-teacher": lambda: MeanTeacher(teacher),
        "pseudo-label": lambda: OnlinePseudoLabel(teacher),
    }[name]()
    image, unlabeled, label, mask = _crops(side)
    batch = {
        "image": image,
        "label": label,
        "mask": mask[:LABELED],
        "unlabeled": {"image": unlabeled, "strong": unlabeled + 0.1, "mask": mask[LABELED:]},
    }
    optimizer = torch.optim.AdamW(parameter_groups(network, 1e-5), lr=1e-3)
    trainer = SemiSupervisedTrainer(
        device="cpu", max_epochs=10**6, train_data_loader=[batch], network=network, optimizer=optimizer,
        loss_function=objective, train_handlers=[GradientClipping(network, 2.0), teacher],
    )  # fmt: skip
    everything, bare_optimizer = torch.cat([image, unlabeled]), torch.optim.AdamW(network.parameters())
    known = torch.cat([label, label])
    plain = LabeledOnly()

    def whole() -> None:
        trainer.state.max_epochs = trainer.state.epoch + 1
        trainer.run()

    def bare() -> None:
        bare_optimizer.zero_grad()
        teacher(unlabeled)
        plain(network, {"image": everything, "label": known, "progress": 0.0})["loss"].backward()
        bare_optimizer.step()

    return whole, bare


def _crops(side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    image = torch.randn(LABELED, 2, side, side, side)
    unlabeled = torch.randn(UNLABELED, 2, side, side, side)
    label = torch.randint(1, LABELS, (LABELED, 1, side, side, side))
    return image, unlabeled, label, torch.ones(LABELED + UNLABELED, 1, side, side, side)


def _seconds(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _interval_of_median(values: list[float]) -> tuple[float, float]:
    """Return the order statistics that hold the median in at least 95 % of samples, or the extremes."""
    first = max(0, int(binom.ppf(0.025, len(values), 0.5)) - 1)
    ordered = sorted(values)
    return ordered[first], ordered[-1 - first]


if __name__ == "__main__":
    main()
