"""`medssl classify`: 2D images, from a folder to a small model."""

from __future__ import annotations

import click

from medssl.cli import Verbs
from medssl.cli.common import example

VERBS = {
    "simulate": "Make a folder of simulated images.",
    "check": "Look at a folder of images and say what is wrong with it.",
    "split": "Divide labeled images into training, validation and test.",
    "train": "Train a classifier, with the supervised baseline beside it.",
    "distill": "Let teachers label the unlabeled images for a student.",
    "predict": "Classes and probabilities of images.",
    "evaluate": "Score a classifier on labeled images; a report.",
    "export": "ONNX and 8-bit files of a classifier.",
    "bench": "Size and speed of exported files on this machine.",
    "compare": "Compare networks and methods over data sets by rank tests.",
    "networks": "List the networks.",
    "demo": "Run the whole path on simulated images and write a report.",
}
"""Verb -> one line; each is a module of this package with a command of the same name."""


@example("medssl classify demo --out demo-images")
@click.group(cls=Verbs, verbs=VERBS, package=__name__)
def classify() -> None:
    """Classify 2D images with compact networks, from few labels.

    \b
    Start here:
      medssl classify demo                                        on simulations
      medssl classify check IMAGES                                is it usable?
      medssl classify train IMAGES --out RUN --method ssldec      learn from it
      medssl classify predict IMAGES --out TABLE.csv --model RUN  name classes
    """  # noqa: D301 (\b is the character by which click keeps lines)
