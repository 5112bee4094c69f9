"""`medssl classify evaluate`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from medssl.cli.classify.common import backend_option, outside_option
from medssl.cli.common import EXISTING, STDERR, STDOUT, device_option, example, progress_bar


@example("medssl classify evaluate images --out report --model run")
@click.command()
@click.argument("data", type=EXISTING)
@click.option("--out", type=EXISTING, required=True, help="Folder for scores, predictions and report.html.")
@click.option(
    "--model", type=EXISTING, required=True, help="Run folder, bundle, .pt file, or exported .onnx file."
)
@click.option("--exported", type=EXISTING, help="Folder of exported files, scored beside the model.")
@click.option("--section", type=click.Choice(["test", "validation", "training"]), default="test",
              show_default=True, help="Which labeled images.")  # fmt: skip
@click.option("--view", "views", multiple=True, help="Average this view too, such as hflip.")
@click.option("--overwrite", is_flag=True, help="Replace what is in --out.")
@backend_option
@outside_option
@device_option
def evaluate(  # noqa: PLR0913, PLR0917 (one argument an option)
    data: Path,
    out: Path,
    model: Path,
    exported: Path | None,
    section: str,
    views: tuple[str, ...],
    overwrite: bool,
    backend: str | None,
    allow_outside: bool,
    device: str,
) -> None:
    """Score a classifier on the labeled images of DATA, and write a report to open."""
    from medssl.evaluation.classification import as_text
    from medssl.workflows.classification.bench import require_files_of
    from medssl.workflows.classification.evaluate import (
        evaluate_classifier,
        require_new_evaluation,
        write_evaluation,
    )
    from medssl.workflows.classification.report import write_report
    from medssl.workflows.classification.thresholds import spoken
    from medssl.workflows.devices import choose_device
    from medssl.workflows.models import quiet_libraries

    quiet_libraries()
    require_new_evaluation(out, data, overwrite)
    if exported is not None:
        require_files_of(model, exported)
    with progress_bar("Classifying") as progress:
        result = evaluate_classifier(
            data,
            model,
            section=section,
            views=("identity", *views),
            device=choose_device(device),
            backend=backend,
            allow_outside=allow_outside,
            progress=progress,
        )
    write_evaluation(out, result, data, overwrite)
    page = write_report(out, data, model, result, exported=exported, allow_outside=allow_outside)
    table = Table(box=None, pad_edge=False)
    for name in ("measure", "value", "95 % interval"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    for name, value in result.scores.measures.items():
        low, high = result.scores.interval.get(name, (float("nan"),) * 2)
        table.add_row(name, as_text(value), f"{low:.3f} to {high:.3f}" if low == low else "")  # noqa: PLR0124
    STDOUT.print(table)
    if result.finding is not None:
        line, name = result.finding, result.model.card.classes[result.finding.positive]
        STDERR.print(
            f"{name}, {spoken(line.threshold)}: sensitivity {as_text(line.sensitivity)}, "
            f"specificity {as_text(line.specificity)}.",
            soft_wrap=True,
        )
    STDOUT.print(str(page), soft_wrap=True)
