"""The memory a network says it needs is what one evaluation pass keeps alive."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medssl.networks import DenseFCN, FCDenseNet3D


class LiveBytes(TorchDispatchMode):
    """Follow every storage from its creation to its release."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.follow(tensor.untyped_storage())
        return result

    def follow(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.live:
            self.live[storage._cdata] = storage.nbytes()
            self.peak = max(self.peak, sum(self.live.values()))
            weakref.finalize(storage, self.live.pop, storage._cdata)


@pytest.mark.parametrize(
    "network",
    [
        DenseFCN(2, 4),
        DenseFCN(2, 9, stem_channels=16, growth_rate=8),
        FCDenseNet3D(2, 4, dropout_prob=0),
        FCDenseNet3D(2, 4, levels=3, block_layers=4, reduction=2),
    ],
    ids=["dense_fcn", "small_dense_fcn", "fc_densenet", "three_levels"],
)
def test_peak_maps_is_what_a_pass_keeps_alive(network):
    with torch.inference_mode(), LiveBytes() as memory:
        network.eval()(torch.randn(1, 2, 32, 32, 32))
    assert memory.peak / (4 * 32**3) == pytest.approx(network.peak_maps, rel=0.05)
