"""Where tensors live: the CPU, or a GPU where torch sees one."""

from __future__ import annotations

import torch

from medssl.errors import ConfigError


def choose_device(device: str, local_rank: int = 0) -> str:
    """Return the torch device that "auto" means here, or the given one.

    Args:
        device: "auto" or a device of torch.
        local_rank: Number of this process among those on this machine, which take a GPU each.

    Raises:
        ConfigError: The device is not there.
    """
    if device == "auto" and torch.cuda.is_available():
        return f"cuda:{local_rank % torch.cuda.device_count()}" if local_rank else "cuda"
    if device == "auto":
        return "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        msg = f"'{device}' is no device that torch knows."
        raise ConfigError(msg, "Use auto, cpu, cuda or cuda:N.") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        msg = f"The device '{device}' was asked for, but torch sees {torch.cuda.device_count()} GPUs here."
        raise ConfigError(msg, "Use --device cpu, or install a CUDA build of torch.")
    return device
