"""The torch backend: any device, float32 or bfloat16."""

import copy
import io
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medssl.errors import ConfigError
from medssl.inference.rewriting import replace_ups, slim
from medssl.inference.rounding import with_rounded_kernels

Item = TypeVar("Item")

PRECISE = (0, -1)
"""Convolutions, in the order of the network, that stay in float32 where the rest runs in bfloat16, with kernels rounded
by `medssl.inference.rounding`. What the accuracy gate says of other choices: `benchmarks/bfloat16_gate.py`."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchBackend:
    """Run a frozen copy of a network, with batch norm folded and the channels last.

    Args:
        network: Module that maps `(1, C, I, J, K)` to logits; it is left as it is.
        device: Where to run.
        precision: `"float32"` or `"bfloat16"`.
        precise: Places, in the order of the network, of the convolutions that stay in float32 in bfloat16.

    Attributes:
        source: The network as it was given, with batch norm folded; other backends convert it.
        network: What runs. On the CPU it is rewritten, see `medssl.inference.rewriting`.

    Raises:
        ConfigError: If the precision has no such name.

    Notes:
        How much faster this is than the module itself: `benchmarks/inference.py`, table in docs/performance.md.
    """

    name = "torch"

    def __init__(
        self,
        network: nn.Module,
        *,
        device: str | torch.device = "cpu",
        precision: str = "float32",
        precise: Sequence[int] = PRECISE,
    ) -> None:
        if precision not in PRECISIONS:
            msg = f"Unknown precision: found {precision!r}, expected one of {sorted(PRECISIONS)}."
            raise ConfigError(msg)
        self.device = torch.device(device)
        self.precision = precision
        self.dtype = PRECISIONS[precision]
        self.source = fold_batch_norm(network).to(self.device)
        self.network = self._fast(precise).to(self.device, memory_format=torch.channels_last_3d)
        self.memory_factor = _peak_maps(self.network) / _peak_maps(network)

    def _fast(self, precise: Sequence[int]) -> nn.Module:
        """Return a copy that does the same in fewer steps; the logits' last step is split in float32 alone."""
        network = _copied(self.source)
        if self.dtype is torch.bfloat16:
            network = with_rounded_kernels(network, imprecise(network, precise), torch.bfloat16)
            keep_precise(network, precise)
        if self.device.type != "cpu":
            return network
        if self.dtype is torch.float32:
            network = slim(network)
        replace_ups(network)
        return network

    @torch.inference_mode()
    def __call__(self, tile: Tensor) -> Tensor:
        """Return float32 logits `(1, K, I, J, K)` of a tile `(1, C, I, J, K)`, on the backend's device."""
        tile = tile.to(self.device, torch.float32, memory_format=torch.channels_last_3d)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16):
            return self.network(tile).float()


def _peak_maps(network: nn.Module) -> float:
    return float(getattr(network, "peak_maps", 1.0))


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode without the batch norms that directly follow a convolution.

    Their scale and shift go into the convolution: the same function, up to rounding. Batch norms that stand
    before a convolution stay, as do all modules of a TorchScript network.
    """
    network = _copied(network).eval()
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for index in range(len(module) - 1):
                first, second = module[index], module[index + 1]
                if isinstance(first, nn.Conv3d) and isinstance(second, nn.BatchNorm3d):
                    module[index] = fuse_conv_bn_eval(first, second)
                    module[index + 1] = nn.Identity()
    return network


class Float32(nn.Module):
    """Run a module in float32, whatever surrounds it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Return what the module makes of the input in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return self.module(x.float())


def keep_precise(network: nn.Module, places: Sequence[int]) -> None:
    """Hold the convolutions at some places in float32, in place; of TorchScript nothing."""
    for name in chosen(_convolutions(network), places):
        if name:
            parent = network.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], Float32(network.get_submodule(name)))


def imprecise(network: nn.Module, places: Sequence[int]) -> list[str]:
    """Return the names of the convolutions that are not at some places; of TorchScript none."""
    names = _convolutions(network)
    kept = chosen(names, places)
    return [name for name in names if name not in kept]


def chosen(convolutions: Sequence[Item], places: Sequence[int]) -> list[Item]:
    """Return those at some places, each once; a short network has fewer."""
    count = len(convolutions)
    return [
        convolutions[place]
        for place in sorted({place % count for place in places if -count <= place < count})
    ]


def _convolutions(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, nn.Conv3d)]


def _copied(network: nn.Module) -> nn.Module:
    if isinstance(network, torch.jit.ScriptModule):
        return torch.jit.load(io.BytesIO(network.save_to_buffer()))
    return copy.deepcopy(network)
