"""Teacher, registered labels, target and truth of one unlabeled hippocampus, as a figure.

    python benchmarks/anatomy_figure.py --data HIPPOCAMPUS --out docs/images/anatomy.png

Trains SSLDEC with registered labels on 2 labeled scans and 4 others whose labels are hidden, and draws the first of
those as the run kept it (`medssl.workflows.target_example`). Prints the Dice of each map on that scan: an
illustration, no evidence; that is in `ssl_segmentation.py`.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from medssl.evaluation.metrics import score_labels
from medssl.io.cohort import read_cohort
from medssl.io.datalist import write_datalist
from medssl.io.nifti import read_labels, read_volume
from medssl.reporting.figures import figure_to_png, plot_label_maps
from medssl.workflows.models import quiet_libraries
from medssl.workflows.target_example import on_grid, read_target_example
from medssl.workflows.train import TrainOptions, train

LABELED, UNLABELED = 2, 4


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG to write.")
@click.option("--epochs", default=24, show_default=True, help="Of 25 steps with 4 crops.")
@click.option("--seed", default=0, show_default=True)
def main(data: Path, out: Path, epochs: int, seed: int) -> None:
    """Train, draw, print."""
    quiet_libraries()
    torch.set_num_threads(1)
    cohort = read_cohort(data, ("T1w",), mask="none")
    order = np.random.default_rng(seed).permutation(len(cohort.training))[: LABELED + UNLABELED]
    chosen = [cohort.training[place] for place in order]
    hidden = tuple(replace(subject, label=None) for subject in chosen[LABELED:])
    seen = replace(cohort, training=tuple(chosen[:LABELED]), unlabeled=hidden, validation=(), test=())
    settings = {"epochs": epochs, "crop_size": [32, 48, 32], "batch_size": 4}
    with tempfile.TemporaryDirectory() as place:
        write_datalist(Path(place) / "data" / "datalist.json", seen)
        options = TrainOptions(
            method="ssldec",
            network="basic-unet",
            budget="quick",
            seed=seed,
            prior="anatomical",
            settings=settings,
        )
        run = Path(place) / "run"
        train(Path(place) / "data", run, options)
        example = read_target_example(run)
    if example is None:
        msg = "The run kept no example: were the scans registered?"
        raise click.ClickException(msg)
    (subject,) = (one for one in chosen if one.key == example.subject)
    truth = on_grid(
        read_labels(str(subject.label), subject.key, cohort.table, subject.encoding), example.grid
    )
    image = on_grid(read_volume(subject.images[0], subject.key), example.grid)
    for name, labels in example.maps.items():
        scores = score_labels(labels, truth, example.grid.spacing, cohort.table)
        print(f"{name:20s}", " ".join(f"{row['label']} {float(row['dice']):.3f}" for row in scores))
    figure = plot_label_maps(
        image, {**example.maps, "truth": truth}, example.grid, cohort.table, contrast="T1w"
    )
    out.write_bytes(figure_to_png(figure))


if __name__ == "__main__":
    main()
