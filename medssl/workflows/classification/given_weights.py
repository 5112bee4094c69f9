"""Weights that somebody gives a training to begin with: copied into its folder, so that the run stands alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medssl.workflows.classification.train import ClassifyOptions

GIVEN = ("pretrained", "init_weights")
"""Of the backbone, of the whole network."""

INIT_FILE = "models/init.pt"
"""Copy of the network of an earlier round, from which a run goes on: nobody gave it."""

FOLDER = "given"
"""Where a run of several trainings keeps them, by the names that they came with."""


def given_weights(options: ClassifyOptions) -> dict[str, Path]:
    """Return the files that are given, by `GIVEN`.

    What is no file ("cached", an expression of a run) is left out, and so is a name that leads nowhere, which the
    training itself refuses.
    """
    asked = {"pretrained": options.pretrained, "init_weights": options.settings.get("init_weights")}
    return {name: Path(str(file)) for name, file in asked.items() if file and Path(str(file)).is_file()}


def with_weights(options: ClassifyOptions, places: dict[str, str]) -> ClassifyOptions:
    """Return options whose weights lie elsewhere."""
    own = {name: place for name, place in places.items() if name != "pretrained"}
    return replace(
        options,
        pretrained=places.get("pretrained", options.pretrained),
        settings={**options.settings, **own},
    )


def copies(options: ClassifyOptions) -> dict[str, Path]:
    """Return the copies in the folder of one training: their names, which any expression can hold, and the files."""
    return {f"models/{name}{file.suffix}": file for name, file in given_weights(options).items()}


def expressions(options: ClassifyOptions) -> dict[str, str]:
    """Return what a configuration says of the copies."""
    files = given_weights(options)
    return {name: f"$@bundle_root + '/models/{name}{file.suffix}'" for name, file in files.items()}


def kept_places(options: ClassifyOptions) -> dict[str, str]:
    """Return where a run of several trainings keeps the files, as seen from its folder."""
    return {name: f"{FOLDER}/{name}/{file.name}" for name, file in given_weights(options).items()}


def keep(options: ClassifyOptions, out: Path) -> None:
    """Copy the files to where a run of several trainings keeps them."""
    for name, place in kept_places(options).items():
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(given_weights(options)[name], out / place)
