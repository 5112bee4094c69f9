"""Options that several commands of `medssl classify` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from medssl.cli.common import EXISTING, device_option, parse_settings

PRESETS = ["natural", "chest-xray", "microscopy", "digits", "grey", "none"]
"""As in `medssl.transforms.image_augmentation.PRESETS`; a test compares both. Help must not import torch."""

FITS = ["crop", "squash"]
"""As in `medssl.transforms.classification.FITS`; a test compares both."""

BACKENDS = ["onnxruntime", "openvino"]
"""As in `medssl.workflows.classification.models.BACKENDS`; a test compares both."""

backend_option = click.option(
    "--backend", type=click.Choice(BACKENDS), help="What runs an exported file.  [default: onnxruntime]"
)

outside_option = click.option(
    "--allow-outside", is_flag=True, help="Accept paths and links that leave the folder of DATA."
)
"""For manifests of `medssl classify split` that lie beside other folders."""


skip_option = click.option(
    "--skip-unreadable", is_flag=True, help="Leave unreadable images out instead of refusing."
)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what `train` and `distill` have in common."""
    options = [
        click.option("--network", default="vgg-small-64", show_default=True, help="See: medssl classify networks."),
        click.option("--budget", default="standard", show_default=True,
                     help="quick, standard or full: 400, 2000 or 10000 steps of 64 images."),
        click.option("--steps", type=click.IntRange(1), help="Optimizer steps instead of the budget's."),
        click.option("--seed", default=0, show_default=True, help="Of weights, order, augmentation and draws."),
        click.option("--size", type=click.IntRange(8), help="Pixels a side.  [default: the network's own]"),
        click.option("--channels", type=click.IntRange(1),
                     help="1: gray, 3: color, or as many as all images have.  [default: as the images]"),
        click.option("--fit", type=click.Choice(FITS), default="crop", show_default=True,
                     help="Images that are not square: cut out the middle, or squash the whole image."),
        click.option("--white", type=click.IntRange(1, 65535),
                     help="Value of 16-bit images that becomes white.  [default: 255, 4095 or 65535, by the images]"),
        click.option("--preset", type=click.Choice(PRESETS), default="natural", show_default=True,
                     help="What augmentation may do to an image."),
        click.option("--labels-per-class", type=click.IntRange(1),
                     help="Keep so many labels a class; the other images count as unlabeled."),
        click.option("--hold-out", default=0.2, show_default=True, type=click.FloatRange(0, 0.9),
                     help="Share of the labeled images to validate on, where the folder has no val/."),
        click.option("--pretrained", help="Weights of the backbone: a file, 'cached', or 'auto', which says what "
                                          "it would fetch and how. Nothing is downloaded."),
        click.option("--label-smoothing", default=0.0, show_default=True, type=click.FloatRange(0, 1, max_open=True),
                     help="Share of a label that all classes divide equally."),
        click.option("--class-weights", type=click.Choice(["none", "balanced"]), default="none", show_default=True,
                     help="balanced: rare classes count more in the loss of the labeled images."),
        click.option("--logit-adjustment", default=0.0, show_default=True, type=click.FloatRange(0),
                     help="Another way: the classes' shares are added to the scores; 1 as published."),
        click.option("--balanced", is_flag=True, help="Draw every class equally often from the labeled images."),
        click.option("--unlabeled", type=EXISTING, help="Folder of unlabeled images beside the data."),
        click.option("--transductive", is_flag=True,
                     help="Allow unlabeled images that are validation or test images too; outputs say so."),
        skip_option,
        outside_option,
        device_option,
        click.option("--resume", is_flag=True, help="Go on with the run in --out."),
        click.option("--set", "settings", multiple=True, callback=parse_settings, metavar="KEY=VALUE",
                     help="Change a value of the configuration, such as learning_rate=0.0005."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
