"""Measure where the time of a training crop goes: the cut, the change of pose, the change of intensity, the rest.

    python benchmarks/crop_profile.py --json benchmarks/results/crop_profile.json

One thread, the transforms of labeled crops at full strength on random volumes of two contrasts; CPU time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from inference import machine
from monai.data import MetaTensor
from monai.utils import set_determinism

from medssl.io.files import write_json
from medssl.transforms import augmentation, crop_preparation

SHAPE = (96, 112, 96)
NAMES = {
    "RandomCropd": "the cut",
    "RandomPosed": "pose: one interpolation of image, label and mask",
    "RandomIntensityd": "intensity: bias field, gain, offset, noise, gamma, blur",
}


@click.command()
@click.option("--json", "out", type=click.Path(path_type=Path))
@click.option("--side", default=32, show_default=True, help="Of a crop in voxels.")
@click.option("--crops", default=400, show_default=True)
def main(out: Path | None, side: int, crops: int) -> None:
    """Take the transforms one by one."""
    torch.set_num_threads(1)
    set_determinism(0)
    load = os.getloadavg()
    sample = crop_preparation(crop_size=(side,) * 3)(_scan())
    steps = augmentation(crop_size=(side,) * 3)
    spent = dict.fromkeys([*NAMES.values(), "everything else"], 0.0)
    for number in range(crops):
        steps.set_random_state(seed=number)
        crop: Any = sample
        for step in steps.transforms:
            begun = time.process_time()
            crop = step(crop)
            spent[NAMES.get(type(step).__name__, "everything else")] += time.process_time() - begun
    total = sum(spent.values())
    percent = {name: 100 * seconds / total for name, seconds in spent.items()}
    for name, share in percent.items():
        click.echo(f"{share:5.1f} %  {name}")
    click.echo(f"{1000 * total / crops:.2f} ms a crop of {side}^3")
    if out is not None:
        where = {**machine(), "threads": 1, "load_average": load, "load_average_at_the_end": os.getloadavg()}
        told = {
            "machine": where,
            "side": side,
            "crops": crops,
            "ms_per_crop": 1000 * total / crops,
            "percent": percent,
        }
        write_json(out, {"command": "benchmarks/crop_profile.py", **told})


def _scan() -> dict[str, Any]:
    """Return a prepared scan: noise in an ellipsoid."""
    axes = np.meshgrid(*[np.linspace(-1.1, 1.1, n) for n in SHAPE], indexing="ij")
    inside = sum(axis**2 for axis in axes) < 1
    generator = np.random.default_rng(0)
    image = generator.standard_normal((2, *SHAPE), np.float32) * inside
    label = (generator.integers(1, 4, SHAPE) * inside)[None].astype(np.uint8)
    volumes = {"image": image, "label": label, "mask": inside[None].astype(np.float32)}
    return {
        "subject": "noise",
        **{name: MetaTensor(torch.from_numpy(array)) for name, array in volumes.items()},
    }


if __name__ == "__main__":
    main()
