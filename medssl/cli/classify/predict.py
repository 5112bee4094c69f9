"""`medssl classify predict`."""

from __future__ import annotations

from pathlib import Path

import click

from medssl.cli.classify.common import backend_option, outside_option, skip_option
from medssl.cli.common import EXISTING, STDERR, STDOUT, device_option, example, progress_bar


@example("medssl classify predict images --out predictions.csv --model run --abstain-below 0.8")
@click.command()
@click.argument("data", type=EXISTING)
@click.option("--out", type=EXISTING, required=True, help="CSV to write: one row an image.")
@click.option(
    "--model", type=EXISTING, required=True, help="Run folder, bundle, .pt file, or exported .onnx file."
)
@click.option("--view", "views", multiple=True, help="Average this view too, such as hflip.")
@click.option("--abstain-below", default="0", show_default=True, metavar="0..1|chosen",
              help="Less sure images get no label; chosen: as on the model's validation images.")  # fmt: skip
@skip_option
@click.option("--overwrite", is_flag=True, help="Replace the table.")
@backend_option
@outside_option
@device_option
def predict(  # noqa: PLR0913, PLR0917 (one argument an option)
    data: Path,
    out: Path,
    model: Path,
    views: tuple[str, ...],
    abstain_below: str,
    skip_unreadable: bool,
    overwrite: bool,
    backend: str | None,
    allow_outside: bool,
    device: str,
) -> None:
    """Classify the images below the folder DATA, or one image. The file of weights says all that is needed."""
    from medssl.errors import OutputError
    from medssl.workflows.classification.predict import predict_folder
    from medssl.workflows.devices import choose_device
    from medssl.workflows.models import quiet_libraries

    quiet_libraries()
    if out.exists() and not overwrite:
        msg = f"{out} exists."
        raise OutputError(msg, "Give another --out, or --overwrite.")
    with progress_bar("Classifying") as progress:
        found = predict_folder(
            data,
            out,
            model,
            views=("identity", *views),
            abstain_below=abstain_below,
            device=choose_device(device),
            backend=backend,
            skip_unreadable=skip_unreadable,
            allow_outside=allow_outside,
            progress=progress,
        )
    STDERR.print(f"{len(found.names)} images.")
    STDOUT.print(str(out), soft_wrap=True)
