"""`medssl classify demo`."""

from __future__ import annotations

from pathlib import Path

import click

from medssl.cli.common import EXISTING, STDERR, STDOUT, TrainingBar, example, progress_bar


@example("medssl classify demo --out demo-images")
@click.command()
@click.option("--out", type=EXISTING, default=Path("demo-images"), show_default=True, help="Folder to make.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier demo in that folder.")
@click.option("--seed", default=0, show_default=True, help="Of the images and the training.")
def demo(out: Path, overwrite: bool, seed: int) -> None:
    """Run the whole path on simulated images (under five minutes) and write a report.

    Simulates cells, checks them, trains with and without the unlabeled ones, distills, exports to ONNX and
    8 bits, measures the files, scores the test images, and ends with the path of an HTML report.
    """
    from medssl.workflows.classification.demo import ImageDemoPlan
    from medssl.workflows.classification.demo import demo as run
    from medssl.workflows.models import quiet_libraries

    quiet_libraries()
    page = run(
        out,
        ImageDemoPlan(seed=seed),
        overwrite=overwrite,
        say=lambda text: STDERR.print(
            f"[bold]$ {text}[/]" if text.startswith("medssl") else text, soft_wrap=True
        ),
        bar=progress_bar,
        training_bar=lambda: TrainingBar("macro F1"),
    )
    STDERR.print("Done. Open the report:")
    STDOUT.print(str(page), soft_wrap=True)
