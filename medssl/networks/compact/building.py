"""Building a classifier by the name of its network."""

from __future__ import annotations

import torch
from torch import nn

from medssl.networks.compact.classifier import Classifier
from medssl.networks.compact.facts import NetworkFacts
from medssl.networks.compact.registry import network_facts
from medssl.networks.compact.small_vgg import WIDTHS, SmallVGG
from medssl.networks.compact.weights import find_weights, load_backbone, read_weights
from medssl.networks.torchvision_compat import ensure_torchvision, import_timm, import_torchvision


def build_classifier(
    name: str,
    out_channels: int,
    in_channels: int = 3,
    pretrained: str | None = None,
    dropout: float = 0.2,
    *,
    size: int | None = None,
    repeat_gray: bool = False,
) -> Classifier:
    """Build a network of the registry with the head that all of them share.

    Args:
        name: See `network_facts`.
        out_channels: Classes, or features of the embedding when a clustering head follows.
        in_channels: Channels of the images: 1, 3 or more. The first convolution is made for them.
        pretrained: None for random weights, a file of weights (safetensors, or what torch saved), or "cached" for
            weights that timm or torch left on this machine. Nothing is downloaded.
        dropout: In front of the linear layer.
        size: Side of the images; None for that of the network's weights. Only networks whose facts say
            `fixed_size` depend on it.
        repeat_gray: With one channel: repeat it for a first convolution of three.

    Raises:
        ConfigError: The network is unknown, its library is not installed, or there are no such weights.
        CheckpointError: The file holds no weights of this network.
    """
    facts = network_facts(name)
    if facts.source != "medssl":
        ensure_torchvision()
    path = find_weights(pretrained, facts) if pretrained is not None else None
    backbone, features = _backbone(facts, 3 if repeat_gray else in_channels, size or facts.input_size)
    if path is not None:
        load_backbone(backbone, read_weights(path), path.name)
    return Classifier(
        backbone,
        features,
        out_channels,
        facts,
        in_channels=in_channels,
        size=size,
        repeat_gray=repeat_gray,
        dropout=dropout,
    )


def _backbone(facts: NetworkFacts, channels: int, size: int) -> tuple[nn.Module, int]:
    """Return a network without its classifier and the number of its pooled features."""
    if facts.source == "medssl":
        network = SmallVGG(channels, WIDTHS[facts.name])
        return network, network.features
    if facts.source == "torchvision":
        return _from_torchvision(facts, channels)
    return _from_timm(facts, channels, size)


def _from_timm(facts: NetworkFacts, channels: int, size: int) -> tuple[nn.Module, int]:
    sized = {"img_size": size} if facts.fixed_size else {}
    network = import_timm().create_model(
        facts.id, pretrained=False, num_classes=0, in_chans=channels, exportable=True, **sized
    )
    return network, int(getattr(network, "head_hidden_size", None) or network.num_features)


def _from_torchvision(facts: NetworkFacts, channels: int) -> tuple[nn.Module, int]:
    """Return a torchvision network whose first convolution fits and whose last layer is gone."""
    network = import_torchvision().models.get_model(facts.id.partition(".")[0], weights=None)
    first = next(name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    parent, _, leaf = first.rpartition(".")
    network.get_submodule(parent).register_module(leaf, _for_channels(network.get_submodule(first), channels))
    if hasattr(network, "classifier"):  # SqueezeNet: dropout, convolution, ReLU, pooling
        features = network.classifier[1].in_channels
        network.classifier = nn.AdaptiveAvgPool2d(1)
    else:
        features = network.fc.in_features
        network.fc = nn.Identity()
    return network, int(features)


def _for_channels(convolution: nn.Conv2d, channels: int) -> nn.Conv2d:
    if convolution.in_channels == channels:
        return convolution
    made = nn.Conv2d(
        channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        bias=convolution.bias is not None,
    )
    if convolution.bias is not None:
        with torch.no_grad():
            made.bias.copy_(convolution.bias)
    return made
