"""Where tensors live: the CPU, or a GPU where torch sees one."""

from __future__ import annotations

import torch

from medssl.errors import ConfigError


def choose_device(device: str) -> str:
    """Return the torch device that "auto" means here, or the given one.

    Raises:
        ConfigError: The device is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        msg = f"The device '{device}' was asked for, but torch sees no GPU here."
        raise ConfigError(msg, "Use --device cpu, or install a CUDA build of torch.")
    return device
