"""Classifier: normalization, a compact backbone, and the one head that all networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.networks.compact.facts import NetworkFacts


class Classifier(nn.Module):
    """Score the classes of images: normalize, pool features, dropout, one linear layer.

    Args:
        backbone: Normalized images `(B, C, H, W)` to pooled features `(B, D)`.
        features: D.
        out_channels: Classes, or the features of an embedding when a clustering head follows.
        facts: Of the backbone; the mean and the standard deviation of its weights are kept as buffers.
        in_channels: Channels of the images. With one or with more than three, all share the average of the
            weight set's mean and standard deviation.
        size: Side of the images in pixels that it is trained at; None: that of the facts.
        repeat_gray: With `in_channels=1`: repeat the channel for a backbone of three.
        dropout: Probability with which a feature is zeroed in training.

    Shapes:
        float images `(B, in_channels, H, W)` in [0, 1] to scores `(B, out_channels)`.

    Attributes:
        frozen: Whether the backbone is kept as it is, its batch norms in evaluation mode, see `freeze_backbone`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        out_channels: int,
        facts: NetworkFacts,
        *,
        in_channels: int = 3,
        size: int | None = None,
        repeat_gray: bool = False,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if repeat_gray and in_channels != 1:
            msg = f"Only gray images can be repeated: found repeat_gray with {in_channels} channels."
            raise ConfigError(msg, "Set in_channels to 1, or leave repeat_gray out.")
        self.facts = facts
        self.in_channels = in_channels
        self.size = size or facts.input_size
        self.features = features
        self.repeat_gray = repeat_gray
        self.frozen = False
        channels = 3 if repeat_gray else in_channels
        self.register_buffer("mean", _per_channel(facts.mean, channels))
        self.register_buffer("std", _per_channel(facts.std, channels))
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        return self.head(self.dropout(self.embed(x)))

    def embed(self, x: Tensor) -> Tensor:
        """Return the pooled features `(B, D)` of images `(B, in_channels, H, W)`.

        Raises:
            ConfigError: The images have other channels, or a size that the network cannot take.
        """
        self._require(x)
        if self.repeat_gray:
            x = x.expand(-1, 3, -1, -1)
        return self.backbone((x - self.mean) / self.std)

    def train(self, mode: bool = True) -> Classifier:
        """Set the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def _require(self, x: Tensor) -> None:
        fixed = self.facts.fixed_size
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            msg = f"{self.facts.name} expects images (B, {self.in_channels}, H, W): found {tuple(x.shape)}."
            raise ConfigError(msg, "Set `in_channels` to the channels of the images.")
        if fixed and tuple(x.shape[2:]) != (self.size, self.size):
            msg = f"{self.facts.name} was built for {self.size} x {self.size} pixels: found {tuple(x.shape[2:])}."
            raise ConfigError(msg, "Build it with that `size`, or resize the images.")
        self.facts.require_side(min(x.shape[2:]))


def classifier_of(network: nn.Module) -> Classifier:
    """Return the classifier that a network is or holds (as a `ClusteringNetwork` does).

    Raises:
        ConfigError: There is none.
    """
    for module in network.modules():
        if isinstance(module, Classifier):
            return module
    msg = f"A {type(network).__name__} holds no Classifier."
    raise ConfigError(msg, "Build the network with medssl.networks.compact.build_classifier.")


def freeze_backbone(network: nn.Module, frozen: bool = True) -> None:
    """Keep the backbone of a classifier exactly as it is, or let it go again.

    A frozen backbone gets no gradient, and its batch norms stay in evaluation mode whatever mode the network is
    put into: neither weights nor running statistics change.

    Args:
        network: A `Classifier`, or a network that holds one.
        frozen: Whether to freeze.
    """
    classifier = classifier_of(network)
    classifier.frozen = frozen
    for parameter in classifier.backbone.parameters():
        parameter.requires_grad_(not frozen)
        parameter.grad = None
    classifier.train(classifier.training)


def _per_channel(values: tuple[float, ...], channels: int) -> Tensor:
    """Return `(1, channels, 1, 1)`: the values, or their average for each of another number of channels."""
    kept = values if len(values) == channels else (sum(values) / len(values),) * channels
    return torch.tensor(kept, dtype=torch.float32).view(1, channels, 1, 1)
