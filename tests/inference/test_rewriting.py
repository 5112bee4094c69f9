"""Rewritten networks are the network itself: within 1e-5, with every part present."""

import copy

import pytest
import torch
from torch import nn

from medssl.inference.backends.torch_backend import TorchBackend
from medssl.inference.rewriting import SlimDenseFCN, SubpixelUp, is_subpixel_up, replace_ups, slim
from medssl.networks import ClusteringNetwork, DenseFCN, FCDenseNet3D


@pytest.fixture
def deep():
    """A small DenseFCN of four scales whose batch norms do something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = DenseFCN(2, 5, stem_channels=8, growth_rate=4, block_layers=1)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
    return network.eval()


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize(("groups", "maps"), [(1, 3), (2, 4), (4, 4)])
@torch.inference_mode()
def test_an_up_as_subpixels_is_the_transposed_convolution(stride, groups, maps):
    up = nn.ConvTranspose3d(8, maps, stride + 2, stride=stride, padding=1, groups=groups, bias=False)
    x = torch.randn(2, 8, 3, 4, 1).contiguous(memory_format=torch.channels_last_3d)
    found = SubpixelUp(up)(x)
    torch.testing.assert_close(found, up(x), rtol=0, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    "other",
    [
        nn.ConvTranspose3d(4, 4, 4, stride=2, padding=1),  # a bias
        nn.ConvTranspose3d(4, 4, 4, stride=2, padding=0, bias=False),
        nn.ConvTranspose3d(4, 4, (4, 4, 3), stride=(2, 2, 1), padding=1, bias=False),
        nn.ConvTranspose3d(4, 4, 3, stride=2, padding=1, output_padding=1, bias=False),
        nn.Conv3d(4, 4, 3, padding=1, bias=False),
    ],
)
def test_what_is_another_module_is_not_rewritten(other):
    assert not is_subpixel_up(other)
    with pytest.raises(ValueError, match="no transposed convolution of kernel"):
        SubpixelUp(other)


@pytest.mark.parametrize("shape", [(32, 48, 16), (17, 30, 33)])
@torch.inference_mode()
def test_logits_added_up_scale_by_scale_are_those_of_the_joined_maps(deep, shape):
    x = torch.randn(2, 2, *shape)
    rewritten = copy.deepcopy(deep)
    replace_ups(rewritten)
    rewritten = slim(rewritten)
    assert isinstance(rewritten, SlimDenseFCN)
    assert sum(isinstance(module, SubpixelUp) for module in rewritten.modules()) == 4
    torch.testing.assert_close(rewritten(x), deep(x), rtol=0, atol=1e-5)


def test_the_original_stays_as_it_is(deep):
    x = torch.randn(1, 2, 16, 16, 16)
    with torch.inference_mode():
        before = deep(x)
        TorchBackend(deep)(x)
        torch.testing.assert_close(deep(x), before, rtol=0, atol=0)
    assert not any(isinstance(module, SubpixelUp) for module in deep.modules())


def test_the_torch_backend_runs_the_rewritten_network_and_keeps_the_plain_one(deep):
    backend = TorchBackend(deep)
    assert isinstance(backend.network, SlimDenseFCN)
    assert isinstance(backend.source, DenseFCN)
    x = torch.randn(1, 2, 16, 32, 16)
    with torch.inference_mode():
        torch.testing.assert_close(backend(x), deep(x), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_clustering_head_stands_on_the_rewritten_network(deep):
    network = ClusteringNetwork(deep, 5, 4).eval()
    backend = TorchBackend(network)
    assert isinstance(backend.network.backbone, SlimDenseFCN)
    assert network.backbone is deep
    x = torch.randn(1, 2, 16, 32, 16)
    torch.testing.assert_close(backend(x), network(x), rtol=0, atol=1e-5)
    assert backend.memory_factor == pytest.approx(backend.network.peak_maps / network.peak_maps)
    assert backend.memory_factor < 1


@pytest.mark.parametrize(
    "network",
    [
        FCDenseNet3D(2, 4, stem_channels=8, growth_rate=4, block_layers=1, levels=1),
        DenseFCN(2, 4, norm="instance", stem_channels=8, growth_rate=4, block_layers=1, levels=1),
    ],
)
@torch.inference_mode()
def test_other_networks_run_as_before(network):
    x = torch.randn(1, 2, 16, 16, 16)
    assert slim(network.eval()) is network
    torch.testing.assert_close(TorchBackend(network)(x), network(x), rtol=1e-4, atol=1e-5)
