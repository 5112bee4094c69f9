from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from medssl.networks import DenseFCN

EXACT_HALO = 16
"""More than the shallow network can see to either side (its receptive field ends after 9 voxels)."""


@pytest.fixture
def shallow() -> nn.Module:
    """Return a network of one scale, so narrow-sighted that a halo of 16 is exact."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DenseFCN(2, 4, stem_channels=8, growth_rate=4, block_layers=1, levels=1)
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.running_mean.normal_()
                    module.running_var.uniform_(0.5, 2)
                    module.weight.uniform_(0.5, 2)
                    module.bias.normal_()
    return network.eval()


@pytest.fixture
def head() -> tuple[Tensor, Tensor]:
    """Return an image that is zero outside an off-center brain, and the brain's mask."""
    generator = torch.Generator().manual_seed(1)
    axes = [torch.arange(side) - center for side, center in ((70, 30), (61, 35), (90, 40))]
    i, j, k = torch.meshgrid(*axes, indexing="ij")
    mask = (i / 22) ** 2 + (j / 20) ** 2 + (k / 30) ** 2 < 1
    return torch.randn(2, 70, 61, 90, generator=generator) * mask, mask


@pytest.fixture
def needs() -> Callable[..., None]:
    """Return what skips a test where a library is absent; `importorskip` would import openvino with its telemetry."""

    def skip_without(*libraries: str) -> None:
        for library in libraries:
            if find_spec(library) is None:
                pytest.skip(f"{library} is not installed")

    return skip_without
