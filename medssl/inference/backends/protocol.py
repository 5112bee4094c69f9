"""What every backend is: a callable from a tile to logits that knows its name, device and precision."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

PRECISIONS = ("float32", "bfloat16")


class Backend(Protocol):
    """Runs one network on one tile.

    Attributes:
        name: "torch", "openvino" or "onnxruntime".
        precision: "float32" or "bfloat16".
        device: Where the logits come back.
        memory_factor: Memory of a pass, as a multiple of what the network's `peak_maps` say.
    """

    name: str
    precision: str
    device: torch.device
    memory_factor: float

    def __call__(self, tile: Tensor) -> Tensor:
        """Return logits of a tile.

        Shapes:
            float32 `(1, C, I, J, K)`, sides multiples of the network's multiple, to float32 `(1, L, I, J, K)`.
        """
        ...
