"""Would training on this processor gain by bfloat16 or by channels last? Passes of the networks, and their gradients.

    python benchmarks/training_precision.py --json benchmarks/results/training_precision.json

Forward and backward passes of one batch in float32 and under bfloat16 autocast, contiguous and with channels last, in
turn in one run. Every way is held to float32 of the same round. Images are smooth noise and labels its levels, so that
there is something to learn. Gradients are compared with float32's, weight by weight: 1 means an error as large as the
gradient; the worst is no number where any is none. Dropout is off for that, since what it draws depends on the layout.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from inference import machine, spread
from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from medssl.inference.machine import has_bfloat16
from medssl.io.files import write_json
from medssl.networks import DenseFCN
from medssl.objectives import SupervisedLoss
from medssl.workflows.train import NETWORKS as CHOICES

NETWORKS = {
    "dense-fcn": lambda: DenseFCN(2, 4),
    "basic-unet": lambda: BasicUNet(3, 2, 4, features=CHOICES["basic-unet"]["features"]),
}
BATCH, SIDES = 4, (48, 32)
"""Crops of the packaged configuration and of its quick form; 2^3 voxels are left of 32^3 at the deepest scale."""

WAYS = {
    "float32": (torch.float32, torch.contiguous_format),
    "float32, channels last": (torch.float32, torch.channels_last_3d),
    "bfloat16": (torch.bfloat16, torch.contiguous_format),
    "bfloat16, channels last": (torch.bfloat16, torch.channels_last_3d),
}


@click.command()
@click.option("--json", "out", type=click.Path(path_type=Path))
@click.option("--repeats", default=7, show_default=True)
@click.option("--quick", is_flag=True, help="The smaller crops, one run, to see that everything runs.")
def main(out: Path | None, repeats: int, quick: bool) -> None:
    """Measure, print, write the JSON."""
    load, repeats = os.getloadavg(), 1 if quick else repeats
    ways = {
        name: way
        for name, way in WAYS.items()
        if way[0] is torch.float32 or has_bfloat16(torch.device("cpu"))
    }
    rows: list[dict[str, Any]] = []
    for name, side in itertools.product(NETWORKS, (32,) if quick else SIDES):
        rows += measured(name, side, ways, repeats)
    loads = {"load_average": load, "load_average_at_the_end": os.getloadavg()}
    about = {**machine(), "threads": torch.get_num_threads(), **loads}
    if out:
        write_json(out, {"command": "benchmarks/training_precision.py", "machine": about, "rows": rows})


def measured(name: str, side: int, ways: dict[str, Any], repeats: int) -> list[dict[str, Any]]:
    """Time all ways in turn; return a row of each."""
    torch.manual_seed(0)
    network, loss = NETWORKS[name]().train(), SupervisedLoss()
    for part in network.modules():  # whose draws depend on the layout
        if isinstance(part, nn.modules.dropout._DropoutNd):  # noqa: SLF001 (the base of all kinds)
            part.p = 0.0
    image = nn.functional.avg_pool3d(torch.randn(BATCH, 2, side + 8, side + 8, side + 8), 9, 1) * 27
    label = torch.bucketize(image.mean(1, keepdim=True), torch.tensor([-0.7, 0.0, 0.7]))
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    gradients = {}
    for turn in range(repeats + 1):
        for way, (dtype, layout) in ways.items():
            network.to(memory_format=layout)
            begin = time.perf_counter()
            gradients[way] = passes(network, loss, image.to(memory_format=layout), label, dtype)
            seconds[way] += [time.perf_counter() - begin] if turn else []
    exact = gradients["float32"]
    rows = []
    for way in ways:
        errors = [
            float((found - expected).norm() / expected.norm().clamp_min(1e-12))
            for found, expected in zip(gradients[way], exact, strict=True)
            if expected.norm() > 1e-6
        ]
        ratios = [mine / first for mine, first in zip(seconds[way], seconds["float32"], strict=True)]
        rows.append(
            {
                "network": name,
                "crops": [BATCH, side, side, side],
                "way": way,
                "seconds": spread(seconds[way]),
                "times_float32": spread(ratios),
                "gradient_error": {"median": float(np.nanmedian(errors)), "worst": float(np.max(errors))},
            }
        )
        print(rows[-1])
    return rows


def passes(
    network: nn.Module, loss: nn.Module, image: Tensor, label: Tensor, dtype: torch.dtype
) -> list[Tensor]:
    """Run the network forward and backward; return its gradients."""
    network.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        logits = network(image)
    loss(logits.float(), label).backward()
    return [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]


if __name__ == "__main__":
    main()
