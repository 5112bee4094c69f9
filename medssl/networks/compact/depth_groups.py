"""Parameter groups whose learning rates grow with depth."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from medssl.errors import ConfigError
from medssl.networks.compact.classifier import classifier_of

SPAN = 100.0
"""Learning rate of the last group over that of the first."""


def depth_groups(
    network: nn.Module,
    learning_rate: float,
    weight_decay: float,
    *,
    even: bool = False,
    parts: int = 3,
) -> list[dict[str, object]]:
    """Split the parameters of a classifier for an optimizer, from the first convolution to the head.

    The backbone is cut into `parts - 1` pieces of equally many weight matrices; what follows it (the linear layer,
    cluster centers) is the last part. Learning rates grow geometrically from a hundredth to the whole.

    Args:
        network: A `Classifier`, or a network that holds one.
        learning_rate: Of the last part.
        weight_decay: Of the weights of convolutions and linear layers. Norms, biases, cluster centers, positional
            tables and scales of layers take none.
        even: Give every part the whole learning rate, as a network trained from scratch needs.
        parts: At least 3.

    Returns:
        Groups in the order of depth, those with decay before those without; every parameter is in exactly one.

    Raises:
        ConfigError: There are fewer than 3 parts, or no classifier in the network.
    """
    if parts < 3:
        msg = f"Learning rates that grow with depth need at least 3 parts: found parts={parts}."
        raise ConfigError(msg)
    groups: list[dict[str, object]] = []
    placed = list(_placed(network, parts - 1))
    for part in range(parts):
        rate = learning_rate * (1.0 if even else SPAN ** (part / (parts - 1) - 1))
        for decayed in (True, False):
            chosen = [parameter for where, decays, parameter in placed if where == part and decays is decayed]
            if chosen:
                decay = weight_decay if decayed else 0.0
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return groups


def _placed(network: nn.Module, pieces: int) -> Iterator[tuple[int, bool, nn.Parameter]]:
    """Yield each parameter with its part and whether it takes weight decay."""
    backbone = classifier_of(network).backbone
    inside = {id(parameter) for parameter in backbone.parameters()}
    matrices = sum(_is_matrix(name, parameter) for name, parameter in backbone.named_parameters())
    depth = 0
    for name, parameter in backbone.named_parameters():
        depth += _is_matrix(name, parameter)
        part = max(0, depth - 1) * pieces // max(1, matrices)
        yield part, _is_matrix(name, parameter), parameter
    for name, parameter in network.named_parameters():
        if id(parameter) not in inside:
            yield pieces, _is_matrix(name, parameter), parameter


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether a parameter is the weight of a convolution or a linear layer."""
    return parameter.ndim >= 2 and name.rpartition(".")[2] == "weight"
