"""Writing a classifier as an ONNX file, and holding the file to the network."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.inference.backends.tracing import tracing
from medssl.inference.onnx_model import import_onnx, set_card, write_model
from medssl.inference.onnx_runner import OnnxCard, OnnxClassifier
from medssl.networks.compact import classifier_of, reparameterized
from medssl.networks.modes import evaluating

OPSET = 17

ABSOLUTE = 1e-3
RELATIVE = 1e-4
"""A score of the file may differ by `ABSOLUTE + RELATIVE * (largest score)`."""


def export_classifier(  # noqa: PLR0913 (what the file says is given by name)
    network: nn.Module,
    path: Path | str,
    classes: Sequence[str],
    *,
    size: int | None = None,
    interpolation: str | None = None,
    fit: str = "crop",
    white: int | None = None,
    temperature: float = 1.0,
    softmax: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> OnnxCard:
    """Write a classifier as an ONNX file that needs nothing beside it to be run.

    Branches are merged first where the network has such; the normalization is in the graph, everything else that
    prediction needs in the file's metadata. The batch is of any length.

    Args:
        network: A `Classifier`, or a `ClusteringNetwork` around one; it is left as it is.
        path: The file; written to a temporary name and renamed.
        classes: In the order of the scores.
        size: Side of the images; None: what the network was built for.
        interpolation: None: that of the network's facts.
        fit: How images that are not square are to become so.
        white: Value of 16-bit images that is to become white; None: each image's own depth.
        temperature: For the softmax.
        softmax: Whether temperature and softmax go into the graph, whose output are `probabilities` then, no `scores`.
        extra: What else the file shall say, as plain values (threshold, license, version ...).

    Returns:
        The card that is in the file.

    Raises:
        ConfigError: onnx is not installed, or the scores are not as many as the classes.
        OutputError: The file cannot be written.

    Notes:
        With torch's exporter of traces, which converts every network of the registry.
    """
    classifier = classifier_of(network)
    card = OnnxCard(
        network=classifier.facts.name,
        classes=tuple(classes),
        size=size or classifier.size,
        channels=classifier.in_channels,
        interpolation=interpolation or classifier.facts.interpolation,
        mean=_plain(classifier.mean),
        std=_plain(classifier.std),
        temperature=float(temperature),
        softmax=softmax,
        fit=fit,
        white=white,
        extra=dict(extra or {}),
    )
    still: nn.Module = reparameterized(network).cpu().float()
    if softmax:
        still = _Probabilities(still, temperature)
    images = torch.rand(2, card.channels, card.size, card.size)
    content = _exported(still, images, len(card.classes), "probabilities" if softmax else "scores")
    model = import_onnx().load_from_string(content)
    set_card(model, card)
    write_model(model, path)
    return card


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from its network.

    Attributes:
        images: How many were compared.
        largest: Largest difference of a score (a probability, where the softmax is in the graph).
        allowed: How large it may be.
        other_class: Images that the file puts into another class.
    """

    images: int
    largest: float
    allowed: float
    other_class: int

    @property
    def passed(self) -> bool:
        """Whether the file may stand in for the network."""
        return self.largest <= self.allowed and self.other_class == 0

    def __str__(self) -> str:
        return (
            f"{self.images} images: scores differ by at most {self.largest:.2g} (allowed {self.allowed:.2g}), "
            f"{self.other_class} in another class"
        )


def parity(network: nn.Module, path: Path | str, images: Tensor) -> Parity:
    """Compare an exported file with its network on images; take at least 32 real ones.

    Args:
        network: The one that was exported.
        path: The file.
        images: Prepared.

    Shapes:
        images `(N, C, H, W)` float in [0, 1]
    """
    runner = OnnxClassifier(path)
    found = runner.scores(images.cpu().numpy())
    device = next(network.parameters()).device
    with evaluating(network), torch.inference_mode():
        scores = torch.cat([network(batch.to(device)).float().cpu() for batch in images.split(32)])
    if runner.card.softmax:
        scores = (scores / runner.card.temperature).softmax(1)
    return compare(scores.numpy(), found)


def compare(expected: np.ndarray, found: np.ndarray) -> Parity:
    """Compare scores `(N, K)` of a network with those of its file; NaN never passes."""
    largest = float(np.abs(expected - found).max(initial=0.0))
    allowed = ABSOLUTE + RELATIVE * float(np.abs(expected).max(initial=0.0))
    other = int((expected.argmax(1) != found.argmax(1)).sum())
    return Parity(len(expected), largest, allowed, other)


class _Probabilities(nn.Module):
    """Put temperature and softmax behind a network."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities."""
        return (self.network(x) / self.temperature).softmax(1)


def _exported(network: nn.Module, images: Tensor, classes: int, output: str) -> bytes:
    """Return a network as ONNX, with the name of its output; its scores have to be as many as the classes."""
    content = io.BytesIO()
    with tracing():
        network.eval()
        scores = network(images).shape[1]
        if scores != classes:
            msg = f"The network has {scores} scores, but {classes} classes were named."
            raise ConfigError(msg, "Name each class once, in the order of the scores.")
        torch.onnx.export(
            network,
            (images,),
            content,
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=[output],
            dynamic_axes={"image": {0: "batch"}, output: {0: "batch"}},
        )
    return content.getvalue()


def _plain(values: Tensor) -> tuple[float, ...]:
    """Return float32 values as the decimal numbers they were written as."""
    return tuple(float(f"{value:.7g}") for value in values.flatten().tolist())
