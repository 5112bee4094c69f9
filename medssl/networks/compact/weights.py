"""Published weights of a backbone: read from a file or from the user's caches, never downloaded."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medssl.errors import CheckpointError, ConfigError
from medssl.networks.compact.facts import NetworkFacts
from medssl.networks.torchvision_compat import import_timm, import_torchvision

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm's weights are called on the Hugging Face hub, the safer one first."""

PREFIXES = ("module.", "backbone.")
"""In front of names of weights that were saved inside something else."""


@dataclass(frozen=True)
class WeightSource:
    """Where published weights can be had.

    Attributes:
        network: Name of the network.
        address: Of the file.
        license: Of the weights.
        command: What fetches them into the user's cache, to be run by the user, with network access.
    """

    network: str
    address: str
    license: str
    command: str

    def __str__(self) -> str:
        return f"{self.address} (license of the weights: {self.license}); fetch it with: {self.command}"


def weights_to_fetch(facts: NetworkFacts) -> WeightSource | None:
    """Say what would have to be fetched for pretrained weights; None where no weights are published.

    Nothing is fetched.
    """
    if facts.source == "medssl":
        return None
    if facts.source == "torchvision":
        address = _torchvision_address(facts)
        command = f"python -c \"import torch; torch.hub.load_state_dict_from_url('{address}')\""
    else:
        address = f"https://huggingface.co/timm/{facts.id}/resolve/main/{HUB_FILES[0]}"
        command = f"hf download timm/{facts.id} {HUB_FILES[0]}"
    return WeightSource(facts.name, address, facts.license, command)


def find_weights(pretrained: str, facts: NetworkFacts) -> Path:
    """Return the file that `pretrained` means.

    Args:
        pretrained: A file, or "cached" for what timm, torch or the Hugging Face hub left on this machine.
        facts: Of the network.

    Raises:
        ConfigError: The file does not exist, or nothing is cached; the text says what to fetch and how.
    """
    source = weights_to_fetch(facts)
    cure = f"Published: {source}." if source else "None are published; leave `pretrained` out."
    if pretrained == "auto":
        msg = f"Nothing is downloaded: found pretrained='auto' for {facts.name}, expected a file or 'cached'."
        raise ConfigError(msg, cure)
    if pretrained == "cached":
        path = cached_weights(facts)
        if path is None:
            msg = f"No weights of {facts.name} ({facts.id}) are cached on this machine."
            raise ConfigError(msg, cure)
        return path
    if not Path(pretrained).is_file():
        msg = f"There is no file of weights at {pretrained} for {facts.name}."
        raise ConfigError(msg, cure)
    return Path(pretrained)


def cached_weights(facts: NetworkFacts) -> Path | None:
    """Return the file of published weights in the user's caches, None where there is none. Needs no network."""
    if facts.source == "medssl":
        return None
    if facts.source == "timm":
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 (comes with timm)

        for name in HUB_FILES:
            found = try_to_load_from_cache(f"timm/{facts.id}", name)  # looks at files only
            if isinstance(found, str):
                return Path(found)
    address = _torchvision_address(facts) if facts.source == "torchvision" else _timm_address(facts)
    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    return path if address and path.is_file() else None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a safetensors file or a file that torch saved; nothing else is unpickled.

    Raises:
        CheckpointError: The file holds something else.
    """
    content = _from_safetensors(path) if path.suffix == ".safetensors" else _from_torch(path)
    for key in ("state_dict_ema", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        msg = f"{path.name} holds no tensors by name."
        raise CheckpointError(msg, "Give a file of weights.")
    return {_bare(name): value for name, value in content.items() if isinstance(value, Tensor)}


def load_backbone(backbone: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Put weights into a backbone; the classifier's own layer in the file is left out.

    A first convolution for another number of channels gets the sum of the three (one channel), or the three in
    turn, scaled to the same strength.

    Args:
        backbone: In place.
        weights: Tensors by the names that timm or torchvision gives them.
        name: Of the file, for the error.

    Raises:
        CheckpointError: A tensor of the backbone is missing or has another shape; nothing was changed then.
    """
    weights = _renamed(backbone, weights)
    fitting, wrong = {}, []
    for key, own in backbone.state_dict().items():
        if key in weights:
            given = _for_channels(weights[key], own.shape)
            fitting[key] = given
            if given.shape != own.shape:
                wrong.append(f"{key} {tuple(given.shape)} instead of {tuple(own.shape)}")
        elif not key.endswith("num_batches_tracked"):
            wrong.append(f"{key} missing")
    if wrong:
        msg = f"{name} does not fit the network: {len(wrong)} tensors, first {', '.join(wrong[:3])}."
        raise CheckpointError(msg, "Give the weights of this very network.")
    backbone.load_state_dict(fitting, strict=False)


def _from_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        msg = f"{path.name} cannot be read as weights ({type(error).__name__})."
        raise CheckpointError(msg, "Fetch it again; only tensors are read, never code.") from error


def _from_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError  # noqa: PLC0415 (comes with timm)
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        msg = f"{path.name} is no safetensors file: {error}."
        raise CheckpointError(msg, "Fetch it again.") from error


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _renamed(backbone: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Translate names of older files as timm does, by the filter that stands beside the network's class."""
    rename = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if rename is None:
        return weights
    try:
        return rename(dict(weights), backbone)
    except (AttributeError, IndexError, KeyError, RuntimeError):
        return weights  # of another network, as will be said


def _for_channels(weight: Tensor, shape: torch.Size) -> Tensor:
    """Return the weight of a first convolution for another number of image channels, any other as it is."""
    if weight.ndim != 4 or len(shape) != 4 or weight.shape[1] != 3 or shape[1] == 3:
        return weight
    if shape[1] == 1:
        return weight.sum(1, keepdim=True)
    order = torch.arange(shape[1]) % 3
    return weight[:, order] * (3 / shape[1])


def _torchvision_address(facts: NetworkFacts) -> str:
    name, _, tag = facts.id.partition(".")
    return str(import_torchvision().models.get_model_weights(name)[tag].url)


def _timm_address(facts: NetworkFacts) -> str:
    return str(import_timm().get_pretrained_cfg(facts.id).url or "")
