"""How far a network looks: computed from its convolutions, exactly, one axis at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.errors import ConfigError
from medssl.inference.plan import Triple

NOWHERE = -1e9
"""The farthest voxel seen by something that sees none."""

POINTWISE = (nn.Identity, nn.Dropout, nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.BatchNorm3d, nn.InstanceNorm3d)
"""Modules that look at no neighbors; the statistics of an instance norm are not counted."""


def receptive_field(network: nn.Module) -> tuple[int, int, int]:
    """Return the width of the receptive field along each axis, in voxels; 278 for `DenseFCN` with 4 levels.

    The widest of any voxel, where strides make it depend on the place. See `reach` for what can be walked.
    """
    i, j, k = (
        int((behind - before).max()) + 1 for _, before, behind in (_seen(network, a) for a in range(3))
    )
    return i, j, k


def exact_halo(network: nn.Module) -> int:
    """Return the voxels around a tile with which its answer is that of one pass over everything.

    A window of the deepest scale that answers for a voxel within reach has to lie within the tile as a whole.
    """
    multiple, windows = _grid(network)
    return max(side + windows[axis] - multiple for axis in range(3) for side in reach(network, axis))


def reach(network: nn.Module, axis: int) -> tuple[int, int]:
    """Return how many voxels before and behind itself an output voxel depends on, at most.

    Args:
        network: Built of (transposed) convolutions, pooling, norms and activations; a clustering head behind
            a `backbone` is pointwise and left out.
        axis: 0, 1 or 2.

    Raises:
        ConfigError: The network holds a module with weights whose reach is not known, or it looks across
            everything.

    Notes:
        Every convolution is replaced by "the farthest voxel that anything in my window depends on", and the
        network is run on the voxels' own numbers: whatever it joins or skips is followed as it is.
    """
    here, before, behind = _seen(network, axis)
    return int((here - before).max()), int((behind - here).max())


def _seen(network: nn.Module, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return some places along an axis, one window of them, and the first and last place each depends on."""
    walker = _walker(getattr(network, "backbone", network))
    multiple, windows = _grid(network)
    period = windows[axis]
    for length in (period * 2**power for power in range(3, 12)):
        here = torch.arange(length // 2, length // 2 + period)
        behind = _farthest(walker, length, axis, multiple)[here]
        before = -_farthest(walker, length, axis, multiple, sign=-1)[here]
        if before.min() > 0 and behind.max() < length - 1:
            return here, before, behind
    msg = f"{type(network).__name__} has no finite receptive field along axis {axis}."
    raise ConfigError(msg)


def _grid(network: nn.Module) -> tuple[int, Triple]:
    """Return a network's multiple, and the sides of the windows of its deepest scale; a multiple without any."""
    multiple = int(getattr(network, "multiple", 16))
    windows: Triple = getattr(network, "deep_window", None) or (multiple, multiple, multiple)
    return multiple, windows


@torch.inference_mode()
def _farthest(walker: nn.Module, length: int, axis: int, side: int, sign: int = 1) -> Tensor:
    """Return, for each place along an axis, the farthest place that the network looks at.

    Shapes:
        return: `(length,)`, places counted with their sign
    """
    shape = [1, walker.channels, side, side, side]
    shape[2 + axis] = length
    places = torch.arange(length, dtype=torch.float32) * sign
    view = [1] * 5
    view[2 + axis] = length
    seen = walker(places.view(view).expand(shape).contiguous())
    others = [dimension for dimension in range(5) if dimension != 2 + axis]
    return seen.amax(dim=others).long()


def _walker(network: nn.Module) -> Any:
    """Return a copy of a network that follows places instead of values; `channels` is what it takes."""
    walker = nn.Sequential(copy.deepcopy(network)).eval()
    for name, module in list(walker.named_modules()):
        if any(module.children()):
            continue
        parent = walker.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], _follower(module))
    first = next(module for module in network.modules() if isinstance(module, nn.Conv3d))
    walker.channels = first.in_channels  # type: ignore[assignment]
    return walker


def _follower(module: nn.Module) -> nn.Module:
    """Return what follows places through a module.

    Raises:
        ConfigError: It is not known how far the module looks.
    """
    if isinstance(module, POINTWISE):
        return nn.Identity()
    if isinstance(module, nn.ConvTranspose3d):
        return _Follow(_spread, module)
    if isinstance(module, nn.Conv3d):
        return _Follow(_window, module)
    if isinstance(module, nn.MaxPool3d):
        return module
    msg = f"The receptive field cannot be computed: it is not known how far {type(module).__name__} looks."
    raise ConfigError(msg)


class _Follow(nn.Module):
    """Stand in for a convolution: every map that comes out holds the farthest place of its window."""

    def __init__(self, rule: Callable[[Tensor, Any], Tensor], convolution: Any) -> None:
        super().__init__()
        self.rule, self.channels = rule, convolution.out_channels
        self.settings = {name: getattr(convolution, name) for name in _SETTINGS}

    def forward(self, x: Tensor) -> Tensor:
        farthest = self.rule(x.amax(dim=1, keepdim=True), self.settings)
        return farthest.expand(-1, self.channels, -1, -1, -1)


_SETTINGS = ("kernel_size", "stride", "padding", "dilation", "output_padding")


def _window(x: Tensor, at: dict[str, Any]) -> Tensor:
    """Take the farthest place of each window of a convolution."""
    x = F.pad(x, _both_sides(at["padding"]), value=NOWHERE)
    return F.max_pool3d(x, at["kernel_size"], at["stride"], dilation=at["dilation"])


def _spread(x: Tensor, at: dict[str, Any]) -> Tensor:
    """Take the farthest place that each voxel behind a transposed convolution gets something from."""
    axes = range(3)
    sides = [(x.shape[2 + axis] - 1) * at["stride"][axis] + 1 for axis in axes]
    apart = x.new_full((*x.shape[:2], *sides), NOWHERE)
    i, j, k = at["stride"]
    apart[:, :, ::i, ::j, ::k] = x
    pads = [at["dilation"][axis] * (at["kernel_size"][axis] - 1) - at["padding"][axis] for axis in axes]
    ends = [pad + extra for pad, extra in zip(pads, at["output_padding"], strict=True)]
    border = [side for pair in reversed(list(zip(pads, ends, strict=True))) for side in pair]
    return F.max_pool3d(F.pad(apart, border, value=NOWHERE), at["kernel_size"], 1, dilation=at["dilation"])


def _both_sides(padding: tuple[int, int, int]) -> list[int]:
    return [side for axis in reversed(padding) for side in (axis, axis)]
