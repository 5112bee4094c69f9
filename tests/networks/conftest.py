import pytest
import torch

from medssl.networks import DenseFCN, FCDenseNet3D

TINY = {"stem_channels": 8, "growth_rate": 4, "block_layers": 2}


@pytest.fixture(params=[DenseFCN, FCDenseNet3D], ids=["dense_fcn", "fc_densenet"])
def tiny(request: pytest.FixtureRequest) -> torch.nn.Module:
    """Return a small network of each family, two contrasts in and four labels out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return request.param(2, 4, **TINY).eval()
