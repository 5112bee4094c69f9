"""Starting a network anew."""

from __future__ import annotations

import torch
from torch import nn


def reinitialize(network: nn.Module, seed: int) -> None:
    """Draw all weights anew, in place, as the constructors do.

    Every module with ``reset_parameters`` is asked, parts before the whole; the global random numbers go on as
    if nothing had happened.

    Args:
        network: Any network.
        seed: Same seed, same weights.
    """
    devices = {parameter.device for parameter in network.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for module in reversed(list(network.modules())):
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
