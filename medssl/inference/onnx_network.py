"""OnnxNetwork: an exported classifier in the place of the network it was made from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from medssl.inference.onnx_runner import OnnxClassifier

_LEAST = float(np.finfo(np.float32).tiny)


class OnnxNetwork(nn.Module):
    """Answer with the scores of an exported classifier, up to a constant an image.

    Where temperature and softmax are inside the file, its probabilities p are turned back: T log p. So whatever is
    done with a network's scores (temperature, softmax, a mean over views) is right for a file too.

    Args:
        runner: The exported file.

    Shapes:
        images `(B, C, S, S)` in [0, 1] to scores `(B, K)`, both on the CPU
    """

    def __init__(self, runner: OnnxClassifier) -> None:
        super().__init__()
        self.runner = runner

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores."""
        card = self.runner.card
        found = torch.from_numpy(self.runner.scores(images.cpu().numpy(), max(1, len(images))))
        return card.temperature * found.clamp_min(_LEAST).log() if card.softmax else found
