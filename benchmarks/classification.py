"""Do unlabeled images help a compact classifier? Every method at equal total steps, images and augmentation.

    python data_scripts/mnist.py SOURCE mnist
    python benchmarks/classification.py --data mnist --task mnist --labels 100 --json benchmarks/results/mnist.json
    python data_scripts/svhn.py SOURCE svhn
    python benchmarks/classification.py --data svhn --task svhn --labels 50 --json benchmarks/results/svhn.json

The protocol is reconstructed, not the authors'. Labeled subset, weights and order change with the seed. Nothing is
chosen on test images: every row is the last step of its run, and the hyper-parameters are those of the packaged
configurations but for what stands in `TASKS`. Rows that are there are not run again; with `--view` a training that is
still in `--work` is scored once more, and with `--int8` its 8-bit file is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from studies import add_row, rows_of

from medssl.inference.onnx_runner import FILES as ONNX_FILES
from medssl.io.files import read_json
from medssl.io.image_cohort import read_image_cohort
from medssl.io.image_manifest import write_manifest
from medssl.io.image_splits import draw_labeled
from medssl.workflows.classification.distill import distill
from medssl.workflows.classification.distill_options import DistillOptions
from medssl.workflows.classification.evaluate import evaluate_classifier
from medssl.workflows.classification.export import export_run
from medssl.workflows.classification.methods import DISTILLATIONS, ONLINE
from medssl.workflows.classification.rounds import train_method
from medssl.workflows.classification.train import ClassifyOptions, usable_cohort
from medssl.workflows.models import quiet_libraries
from medssl.workflows.running import finished_training, only_trainer

TASKS: Mapping[str, Mapping[str, Any]] = {
    "mnist": {
        "network": "vgg-small-28",
        "channels": 1,
        "preset": "digits",
        "settings": {"batch_size": 256, "average": 0.999, "unlabeled_share": 0.75},
    },
    "svhn": {
        "network": "vgg-small-28",
        "size": 32,
        "channels": 3,
        "preset": "digits",
        "settings": {"batch_size": 256, "average": 0.999, "unlabeled_share": 0.75},
    },
    "mednist": {"network": "vgg-small-64", "size": 64, "channels": 1, "preset": "grey", "settings": {}},
}
"""Task -> options; `unlabeled_share` counts for the methods that have it. SVHN takes what MNIST takes, untried."""

DISTILLED: Mapping[str, Mapping[str, Any]] = {
    **{f"{kind} distillation": {"kind": kind} for kind in DISTILLATIONS},
    **{f"iterative {kind} distillation": {"kind": kind, "rounds": 2} for kind in DISTILLATIONS},
    "soft data distillation": {"kind": "data", "targets": "soft"},
}
TRAINED: Mapping[str, Mapping[str, Any]] = {
    **{method: {"method": method} for method in ONLINE},
    "ssldec in rounds": {"method": "ssldec", "rounds": 2},
    "ssldec in rounds, as published": {
        "method": "ssldec",
        "rounds": 2,
        "target_rule": "dec",
        "schedule": "union_reinit",
    },
}
METHODS = (*TRAINED, *DISTILLED)
"""What an arm is, as `DistillOptions` or `ClassifyOptions`; all rounds, teachers and students share its steps."""

GATE = 50
"""Labels a class, of images that the run saw without theirs, by which the 8-bit file is accepted or refused."""


@click.command()
@click.option("--json", "out", type=click.Path(path_type=Path), required=True)
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Folder in the package's layout."
)
@click.option("--task", type=click.Choice(list(TASKS)), required=True)
@click.option("--method", "methods", multiple=True, type=click.Choice(METHODS), default=METHODS)
@click.option("--labels", default=100, show_default=True, help="A class.")
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2), show_default=True)
@click.option("--steps", default=3000, show_default=True, help="All trainings of a method added up.")
@click.option("--network", help="Instead of the task's own.")
@click.option("--set", "changes", multiple=True, help="KEY=JSON, a further value; becomes part of the row.")
@click.option(
    "--view", "views", multiple=True, help="Averaged with the image itself in the score; part of the row."
)
@click.option("--int8", is_flag=True, help="Score the 8-bit file; part of the row.")
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("classification-work"), show_default=True
)
def main(  # noqa: PLR0913, PLR0917 (one argument an option)
    out: Path,
    data: Path,
    task: str,
    methods: tuple[str, ...],
    labels: int,
    seeds: tuple[int, ...],
    steps: int,
    network: str | None,
    changes: tuple[str, ...],
    views: tuple[str, ...],
    int8: bool,
    work: Path,
) -> None:
    """Train, score the test images once, and write one row a run."""
    quiet_libraries()
    extra = {key: json.loads(value) for key, _, value in (change.partition("=") for change in changes)}
    for seed in seeds:
        for method in methods:
            facts = {
                "task": task,
                "method": method,
                "labels_per_class": labels,
                "seed": seed,
                "steps": steps,
                "network": network or TASKS[task]["network"],
                "set": extra,
                "views": list(views) or None,
                "int8": int8 or None,
            }
            if any(all(row.get(key) == value for key, value in facts.items()) for row in rows_of(out)):
                continue
            row = {**facts, **_run(facts, data, work)}
            add_row(out, row)
            took = "trained before" if row["seconds"] is None else f"{row['seconds']:.0f} s"
            print(f"{method}, seed {seed}: error {100 * row['error']:.2f} %, {took}", flush=True)


def _run(facts: Mapping[str, Any], data: Path, work: Path) -> dict[str, Any]:
    """Train one arm and score it on the test images."""
    of_training = {key: value for key, value in facts.items() if key not in {"views", "int8"}}
    slug = "".join(letter if letter.isalnum() else "-" for letter in json.dumps(of_training))
    options = _options(facts)
    folder = work / slug
    started, trained = time.time(), finished_training(folder / "run") is not None
    if facts["method"] in DISTILLED:
        chosen = DistillOptions(**DISTILLED[facts["method"]], student=options, baseline=False)
        if not (folder / "run" / "verdict.json").is_file():
            distill(data, folder / "run", chosen, resume=(folder / "run" / "plan.json").is_file())
        run = folder / "run" / "candidates" / "student"
    else:
        cohort = usable_cohort(data, options)
        with only_trainer(folder / "run"):
            run = train_method(folder / "run", cohort, options, data, None, print).run
    seconds = None if trained else time.time() - started
    model, quantized = run, {}
    if facts["int8"]:
        model, quantized = _quantized(run, data, folder / "exported")
    result = evaluate_classifier(data, model, views=("identity", *(facts["views"] or ()))).scores
    return {
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "precision": read_json(run / "run.json")["precision"],
        "error": 1 - result.measures["accuracy"],
        "macro_f1": result.measures["macro_f1"],
        "n_test": result.n,
        **quantized,
    }


def _quantized(run: Path, data: Path, out: Path) -> tuple[Path, dict[str, Any]]:
    """Export a run; return the 8-bit file, or the float32 one where none is accepted, and what came of it."""
    learned = read_image_cohort(run / "images.csv", allow_outside=True).training
    labeled = {item.path.resolve() for item in learned}
    cohort = read_image_cohort(data)
    others = tuple(item for item in cohort.training if item.path.resolve() not in labeled)
    gate = draw_labeled(replace(cohort, training=others), labels_per_class=GATE, seed=0)
    out.mkdir(parents=True, exist_ok=True)
    write_manifest(out / "images.csv", replace(gate, training=learned, validation=gate.training))
    exported = export_run(
        run, out / "files", out / "images.csv", int8=True, allow_outside=True, overwrite=True
    )
    small, large = (exported.folder / ONNX_FILES[form] for form in ("int8", "float32"))
    megabytes = {
        f"{form}_mb": path.stat().st_size / 1e6
        for form, path in (("int8", small), ("float32", large))
        if path.exists()
    }
    return small if small.exists() else large, {"outcome": str(exported.int8), **megabytes}


def _options(facts: Mapping[str, Any]) -> ClassifyOptions:
    told = dict(TASKS[facts["task"]])
    settings = {**told.pop("settings"), **facts["set"]}
    arm = TRAINED.get(facts["method"], TRAINED["supervised"])
    if arm["method"] == "supervised":
        settings.pop("unlabeled_share", None)
    return ClassifyOptions(
        **{**told, "network": facts["network"], **arm},
        labels_per_class=facts["labels_per_class"],
        steps=facts["steps"],
        seed=facts["seed"],
        hold_out=0.0,
        device="cpu",
        settings=settings,
    )


if __name__ == "__main__":
    main()
