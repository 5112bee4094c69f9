"""Every network of the registry: built, trained a step, taken apart for the optimizer."""

import pytest
import torch
from torch import nn

from medssl.networks.compact import NETWORKS, Classifier, build_classifier, depth_groups

SIDE = 64


def built(name: str, classes: int, channels: int = 3) -> Classifier:
    torch.manual_seed(0)
    size = SIDE if NETWORKS[name].fixed_size else None
    return build_classifier(name, classes, channels, size=size)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_a_step_at_two_and_seven_classes(name):
    """D9, D12, D10: heads fit, are the same layers everywhere, and each parameter is in exactly one group."""
    for classes in (2, 7):
        network = built(name, classes)
        scores = network.train()(torch.rand(3, 3, SIDE, SIDE))  # an odd batch
        assert scores.shape == (3, classes)
        nn.functional.cross_entropy(scores, torch.tensor([0, 1, 0])).backward()
        assert [key for key, value in network.named_parameters() if value.grad is None] == []
    assert [type(part) for part in (network.dropout, network.head)] == [nn.Dropout, nn.Linear]
    assert network.dropout.p == 0.2
    assert network.head.in_features == network.features
    check_groups(network)
    check_size(name, network)


@pytest.mark.parametrize("name", [name for name, facts in NETWORKS.items() if facts.channels_last])
def test_the_channels_last_change_no_score_but_by_rounding(name):
    network = built(name, 3)
    network.dropout.p = 0.0
    images = torch.rand(4, 3, SIDE, SIDE)
    own = network.train()(images)
    other = network.to(memory_format=torch.channels_last)(images)
    torch.testing.assert_close(other, own, rtol=0.0, atol=1e-3)
    nn.functional.cross_entropy(other, torch.tensor([0, 1, 2, 0])).backward()
    assert all(value.grad.isfinite().all() for value in network.parameters())


def check_groups(network: Classifier) -> None:
    groups = depth_groups(network, 1e-3, 1e-2)
    placed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(placed) == sorted(id(parameter) for parameter in network.parameters())
    assert sorted({group["lr"] for group in groups}) == pytest.approx([1e-5, 1e-4, 1e-3])


def check_size(name: str, network: Classifier) -> None:
    backbone = sum(value.numel() for value in network.backbone.parameters())
    head = (network.features + 1) * (10 if NETWORKS[name].source == "medssl" else 1000)
    assert (backbone + head) / 1e6 == pytest.approx(
        NETWORKS[name].parameters_m, rel=0.08
    )  # some have two heads


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_0", "shufflenet_v2_x1_0", "test_efficientnet", "vgg-small-28"]
)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_first_convolution_fits_the_channels(name, channels):
    network = built(name, 4, channels).eval()
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert first.in_channels == channels
    with torch.inference_mode():
        assert network(torch.rand(1, channels, 40, 40)).shape == (1, 4)


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_0", "shufflenet_v2_x1_0", "test_convnext", "vgg-small-64"]
)
@pytest.mark.parametrize("side", [32, 97, 128])
def test_other_sizes_and_a_batch_of_one_keep_their_axes(name, side):
    """D18."""
    network = built(name, 3).eval()
    images = torch.rand(3, 3, side, side)
    with torch.inference_mode():
        assert network.embed(images[:1]).shape == (1, network.features)
        torch.testing.assert_close(network(images)[:1], network(images[:1]), atol=1e-5, rtol=1e-4)


def test_a_network_of_fixed_size_is_built_for_the_size_that_is_asked_for():
    """D18: 224 is nowhere written down."""
    network = build_classifier("test_vit", 2, size=48).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 48, 48)).shape == (1, 2)


def test_building_leaves_the_random_numbers_to_the_seed():
    first, second = built("test_resnet", 2), built("test_resnet", 2)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
