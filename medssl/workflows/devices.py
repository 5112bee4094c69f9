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
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        msg = f"'{device}' is no device that torch knows."
        raise ConfigError(msg, "Use auto, cpu, cuda or cuda:N.") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        msg = f"The device '{device}' was asked for, but torch sees {torch.cuda.device_count()} GPUs here."
        raise ConfigError(msg, "Use --device cpu, or install a CUDA build of torch.")
    return device
