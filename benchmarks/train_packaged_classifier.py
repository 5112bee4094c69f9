"""Train the weights that the bundle of image classifiers carries: on simulated images only, to show the path.

    python benchmarks/train_packaged_classifier.py --work WORK --bundle bundles/compact_image_classification

A second call with the same folder scores the run that is there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from medssl.io.files import read_json, write_json
from medssl.workflows.classification.candidates import train_candidate
from medssl.workflows.classification.evaluate import evaluate_classifier
from medssl.workflows.classification.simulate import simulate_folder
from medssl.workflows.classification.train import ClassifyOptions, usable_cohort
from medssl.workflows.models import quiet_libraries


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for images and run.")
@click.option(
    "--bundle", type=click.Path(path_type=Path), required=True, help="Bundle to put the weights into."
)
@click.option("--steps", default=600, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(work: Path, bundle: Path, steps: int, seed: int) -> None:
    """Simulate, train, score the test images, write weights and metadata."""
    quiet_libraries()
    images = work / "images"
    if not images.exists():
        simulate_folder(images, labeled=200, validation=50, test=100, unlabeled=0, seed=seed)
    options = ClassifyOptions(preset="microscopy", steps=steps, seed=seed, device="cpu")
    run = train_candidate(work / "run", usable_cohort(images, options), options, images, None, print).run
    found = evaluate_classifier(images, run).scores
    shutil.copyfile(run / "models" / "model.pt", bundle / "models" / "model.pt")
    metadata = read_json(bundle / "configs" / "metadata.json")
    measures = {name: round(found.measures[name], 4) for name in ("accuracy", "macro_f1")}
    write_json(
        bundle / "configs" / "metadata.json",
        metadata | {"eval_metrics": {**measures, "test_images": found.n}},
    )
    print(measures)


if __name__ == "__main__":
    main()
