"""Finding a classifier: a run folder, a bundle, a lone file of weights, or an exported ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from medssl.errors import CheckpointError, ConfigError, InputError
from medssl.inference.onnx_network import OnnxNetwork
from medssl.inference.onnx_runner import OnnxClassifier
from medssl.inference.openvino_classifier import OpenVinoClassifier
from medssl.io.checkpoint import read_checkpoint, weights_of
from medssl.io.classifier_card import ClassifierCard, classifier_card_of
from medssl.io.files import sha256
from medssl.networks import ClusteringNetwork
from medssl.networks.compact import build_classifier


@dataclass(frozen=True)
class ImageModel:
    """A classifier that is ready to predict, and what is known about it.

    Args:
        name: For people and for file names.
        network: With its weights, in evaluation mode; images in [0, 1] to scores.
        card: Classes in the order of the scores, size and channels of its input, temperature.
        weights_sha256: Of the file of weights.
        device: Where the network is.
    """

    name: str
    network: nn.Module
    card: ClassifierCard
    weights_sha256: str
    device: str = "cpu"

    def at_temperature(self, temperature: float) -> ImageModel:
        """Return the same model with another temperature."""
        return replace(self, card=replace(self.card, temperature=temperature))

    def uncalibrated(self) -> ImageModel:
        """Return the same model at temperature 1, as targets want it, and pseudo-labels where nothing else is said."""
        return self.at_temperature(1.0)


BACKENDS: Mapping[str, Callable[[Path, bool], OnnxClassifier]] = {
    "onnxruntime": lambda path, _: OnnxClassifier(path),
    "openvino": lambda path, tried: OpenVinoClassifier(path, tried=tried),
}
"""What runs an exported file, the default first."""


def open_classifier(
    model: Path | str, device: str = "cpu", backend: str | None = None, *, tried: bool = False
) -> ImageModel:
    """Load a classifier or an exported file; it predicts, and can be trained or exported only if it is no file.

    Args:
        model: As in `load_classifier`, or an ``.onnx`` file.
        device: Where to put a network.
        backend: Of `BACKENDS`, which run files on the CPU; None: onnxruntime.
        tried: Whether it is known that the backend runs the file; see `OpenVinoClassifier`.

    Raises:
        InputError: There is nothing of that name.
        CheckpointError: The file is no classifier.
        ConfigError: The backend is not installed, or one is named for what is no exported file.
    """
    path = Path(model)
    if path.suffix.lower() != ".onnx":
        if backend is not None:
            msg = f"{path.name} is no exported file: torch runs it, not {backend}."
            raise ConfigError(msg, "Give an .onnx file of 'medssl classify export', or leave --backend out.")
        return load_classifier(model, device)
    runner = BACKENDS[backend or next(iter(BACKENDS))](path, tried)
    told = runner.card
    network = {"name": told.network, "out_channels": len(told.classes), "in_channels": told.channels}
    card = ClassifierCard(
        told.classes,
        network,
        told.size,
        told.channels,
        told.interpolation,
        told.temperature,
        fit=told.fit,
        white=told.white,
        extra=told.extra,
    )
    return ImageModel(path.stem, OnnxNetwork(runner).eval(), card, sha256(path))


def load_classifier(model: Path | str, device: str = "cpu") -> ImageModel:
    """Load a classifier; its file of weights says all that is needed.

    Args:
        model: Run folder, bundle folder, or a ``.pt`` file.
        device: Where to put it.

    Raises:
        InputError: There is nothing of that name.
        CheckpointError: The file is no classifier, or belongs to another network than it says.
    """
    path = weights_file(Path(model))
    content = read_checkpoint(path)
    card = classifier_card_of(content)
    if card is None:
        msg = f"{path.name} holds weights, but does not say what they classify."
        raise CheckpointError(msg, "Give the model.pt of a run of 'medssl classify train'.")
    network = network_of(card)
    try:
        network.load_state_dict(dict(weights_of(content)))
    except RuntimeError as error:
        msg = f"{path.name} says that it is a {card.network.get('name')}, but its weights are not that network's."
        raise CheckpointError(msg, "Copy the file again, or train again.") from error
    name = path.parent.parent.resolve().name if path.parent.name == "models" else path.stem
    return ImageModel(name, network.eval().to(torch.device(device)), card, sha256(path), device)


def weights_file(model: Path) -> Path:
    """Return the file of weights that ``--model`` means.

    Raises:
        InputError: There is none.
    """
    path = model / "models" / "model.pt" if model.is_dir() else model
    if not path.is_file():
        msg = f"No classifier was found at {model}: expected a folder with models/model.pt, or a .pt file."
        raise InputError(msg, "Train one: medssl classify train IMAGES --out RUN.")
    return path


def network_of(card: ClassifierCard) -> nn.Module:
    """Build the network that a card describes, with random weights."""
    told = card.network
    network = build_classifier(
        str(told["name"]),
        out_channels=int(told["out_channels"]),
        in_channels=int(told["in_channels"]),
        size=card.size,
    )
    if "clusters" not in told:
        return network
    return ClusteringNetwork(
        network,
        features=int(told["out_channels"]),
        labels=int(told["clusters"]),
        background=True,
        alpha=float(told["alpha"]),
    )
