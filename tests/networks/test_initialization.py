import pytest
import torch
from torch import nn

from medssl.networks import ClusteringNetwork, DenseFCN, FCDenseNet3D, reinitialize

SMALL = {"stem_channels": 8, "growth_rate": 4, "block_layers": 1, "levels": 2}
NETWORKS = {
    "dense fcn": lambda: DenseFCN(2, 4, **SMALL),
    "fc densenet": lambda: FCDenseNet3D(2, 4, **SMALL),
    "clustering": lambda: ClusteringNetwork(DenseFCN(2, 5, **SMALL), 5, 4, alpha=0.5),
}


@pytest.fixture(params=NETWORKS)
def build(request):
    return NETWORKS[request.param]


def _trained(build, seed):
    """Return a network none of whose numbers is where it started."""
    torch.manual_seed(seed)
    network = build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.rand_like(parameter) + 0.1)
        network.train()(torch.randn(2, 2, 16, 16, 16))
    return network


def test_the_seed_alone_decides(build):
    one, two = _trained(build, 0), _trained(build, 1)
    reinitialize(one, 7)
    reinitialize(two, 7)
    state = one.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in two.state_dict().items())
    reinitialize(two, 8)
    weights = [name for name, value in state.items() if len(value.unique()) > 1]
    assert weights
    assert all(not torch.equal(two.state_dict()[name], state[name]) for name in weights)


def test_everything_is_drawn_anew(build):
    """Also the centers of the clusters, and the statistics of batch norm."""
    network, fresh = _trained(build, 0), build()
    before = {name: value.clone() for name, value in network.named_parameters()}
    reinitialize(network, 7)
    for name, value in network.named_parameters():
        assert not torch.equal(value, before[name]), name
    for name, value in network.named_buffers():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_weights_are_spread_as_the_constructor_spreads_them(build):
    network, fresh = _trained(build, 0), build()
    reinitialize(network, 7)
    for name, value in fresh.named_parameters():
        found = network.get_parameter(name)
        if value.std() == 0:
            assert torch.equal(found, value), name
        elif value.numel() > 200:
            assert found.std().item() == pytest.approx(value.std().item(), rel=0.25), name


def test_the_global_random_numbers_go_on(build):
    network = build()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    reinitialize(network, 7)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_random_numbers_of_the_gpu_go_on():
    network = nn.Conv3d(2, 3, 3).cuda()
    torch.manual_seed(3)
    before = torch.cuda.get_rng_state()
    reinitialize(network, 7)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_it_happens_in_place():
    network = DenseFCN(2, 4, **SMALL)
    parameters = list(network.parameters())
    network.eval()
    reinitialize(network, 1)
    assert all(one is two for one, two in zip(parameters, network.parameters(), strict=True))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in parameters)
    assert not network.training


def test_parts_come_before_the_whole():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Linear(2, 2)

        def reset_parameters(self):
            nn.init.constant_(self.part.weight, 5.0)

    network = nn.Sequential(Whole())
    reinitialize(network, 0)
    assert torch.all(network[0].part.weight == 5)
