import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.networks import ClusteringNetwork
from medssl.networks.compact import build_classifier, depth_groups


def small() -> nn.Module:
    return build_classifier("vgg-small-28", 4, 1)


def test_rates_grow_geometrically_from_a_hundredth_to_the_whole():
    groups = depth_groups(small(), 0.1, 0.01, parts=5)
    rates = list(dict.fromkeys(group["lr"] for group in groups))
    assert rates == pytest.approx([0.001, 0.1**2.5, 0.01, 0.1**1.5, 0.1])


def test_the_first_convolution_is_slowest_and_the_head_fastest():
    network = small()
    groups = depth_groups(network, 1.0, 0.0)
    assert network.backbone.scales[0][0].weight is groups[0]["params"][0]
    assert groups[0]["lr"] == pytest.approx(0.01)
    assert any(network.head.weight is parameter for parameter in groups[-2]["params"])
    assert groups[-1]["lr"] == pytest.approx(1.0)


def test_the_backbone_is_cut_into_equally_many_convolutions():
    groups = [group for group in depth_groups(small(), 1.0, 0.1) if group["weight_decay"]]
    assert [len(group["params"]) for group in groups] == [3, 3, 1]


def test_norms_and_biases_take_no_decay():
    for group in depth_groups(build_classifier("test_vit", 2, size=32), 1e-3, 0.05):
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.05 if parameter.ndim >= 2 and parameter.shape[0] > 1 else 0.0)


def test_centers_learn_at_the_full_rate_without_decay():
    """D10, with the clustering head on top."""
    network = ClusteringNetwork(small(), features=4, labels=3, background=True)
    groups = depth_groups(network, 1e-3, 0.1)
    (holder,) = [group for group in groups if any(network.head.centers is value for value in group["params"])]
    assert holder["weight_decay"] == 0
    assert holder["lr"] == pytest.approx(1e-3)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_from_scratch_every_part_learns_at_the_full_rate():
    assert {group["lr"] for group in depth_groups(small(), 1e-3, 0.1, even=True)} == {1e-3}


def test_an_optimizer_and_a_one_cycle_schedule_take_them():
    optimizer = torch.optim.AdamW(depth_groups(small(), 1e-3, 0.1), lr=1e-3)
    rates = [group["lr"] for group in optimizer.param_groups]
    torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=10)
    assert len(rates) >= 3


def test_fewer_than_three_parts_are_refused():
    with pytest.raises(ConfigError, match="parts=2"):
        depth_groups(small(), 1e-3, 0.1, parts=2)
