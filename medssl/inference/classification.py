"""What a network says of images, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from medssl.networks.modes import evaluating


def predict_scores(network: nn.Module, images: Tensor | Iterable[Tensor], *, batch_size: int = 64) -> Tensor:
    """Return what a network says of images before the softmax.

    It runs in evaluation mode (batch norms with their running statistics, so that the scores of an image do not
    depend on its batch) and gets its modes back.

    Args:
        network: Images in [0, 1] to scores.
        images: All of them, or batches in turn.
        batch_size: Most images a pass.

    Returns:
        float32 on the CPU; ``(0, 0)`` without images.

    Shapes:
        images ``(N, C, H, W)`` uint8 or float in [0, 1]; return ``(N, K)``
    """
    first = next(network.parameters(), None)
    found: list[Tensor] = []
    with evaluating(network), torch.inference_mode():
        for batch in _batches(images, batch_size):
            scores = network(batch if first is None else batch.to(first.device))
            found.append(scores.float().cpu())
    return torch.cat(found) if found else torch.zeros(0, 0)


def _batches(images: Tensor | Iterable[Tensor], batch_size: int) -> Iterator[Tensor]:
    """Yield float batches of at most `batch_size` images in [0, 1]."""
    for block in [images] if isinstance(images, Tensor) else images:
        for batch in block.split(batch_size):
            if len(batch):
                yield batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()
