"""What a network costs: parameters and multiply-adds."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable values, whether they are frozen or not."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, channels: int, size: int) -> int:
    """Return the multiply-adds of one image.

    Counted once each (torch's counter reports twice as many operations), in convolutions, linear layers and
    attention; biases, norms, activations and pooling are left out.

    Args:
        network: Images `(B, channels, H, W)` to anything; it is left as it is, nothing is computed.
        channels: Of the image.
        size: Its side in pixels.
    """
    shadow = copy.deepcopy(network).to("meta").eval().requires_grad_(False)  # the counter follows gradients
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.zeros(1, channels, size, size, device="meta"))
    return counter.get_total_flops() // 2
