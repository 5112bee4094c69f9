import pytest
import torch
from torch import nn

from medssl.networks import ClusteringNetwork
from medssl.networks.compact import (
    NETWORKS,
    build_classifier,
    classifier_of,
    parameter_count,
    reparameterized,
)

WITH_BRANCHES = [name for name, facts in NETWORKS.items() if facts.reparameterize]


@pytest.mark.parametrize("name", WITH_BRANCHES)
def test_merged_branches_compute_the_same(name):
    torch.manual_seed(0)
    network = ClusteringNetwork(build_classifier(name, 4), features=4, labels=3, background=True)
    lively(network)
    images = torch.rand(2, 3, 64, 64)
    merged = reparameterized(network)
    with torch.inference_mode():
        expected, found = (classifier_of(one.eval()).embed(images) for one in (network, merged))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert float(expected.std()) > 1e-3
    assert parameter_count(merged) < parameter_count(network)


def lively(network: nn.Module) -> None:
    """Let no branch be switched off and no batch norm be the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)


def test_a_network_without_branches_is_copied_in_evaluation_mode():
    network = build_classifier("vgg-small-28", 2, 1).train()
    still = reparameterized(network)
    assert network.training
    assert not still.training
    assert still is not network
    assert parameter_count(still) == parameter_count(network)
