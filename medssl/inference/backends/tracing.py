"""A network in the form from which other libraries convert it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from medssl.inference.backends.torch_backend import fold_batch_norm


def convertible(network: nn.Module) -> tuple[nn.Module, Tensor]:
    """Return a copy with its batch norms folded, on the CPU, and a small tile to trace it with.

    Args:
        network: Module whose first convolution takes the contrasts; it is left as it is.
    """
    still = fold_batch_norm(network).cpu().float()
    channels = next(weight.shape[1] for weight in still.parameters() if weight.ndim == 5)
    return still, torch.zeros(1, channels, *3 * [2 * int(getattr(network, "multiple", 16))])


@contextmanager
def tracing() -> Iterator[None]:
    """Trace inside this block: quietly, and also where a caller is in inference mode."""
    with torch.inference_mode(mode=False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations and guesses; what comes out has to pass the gate
        yield
