import torch
from torch import nn

from medssl.networks.compact import build_classifier, multiply_adds, parameter_count


def test_multiply_adds_are_those_counted_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    assert multiply_adds(network, 3, 10) == 10 * 10 * 9 * 3 * 8 + 5 * 5 * 9 * 8 + 8 * 5
    assert parameter_count(network) == (3 * 9 * 8 + 8) + 16 + (9 * 8 + 8) + 45


def test_every_convolution_of_the_smallest_network_is_counted_once():
    network = build_classifier("vgg-small-28", 10, 1)
    by_hand, side, channels = 0, 28, 1
    for scale in network.backbone.scales:
        for layer in scale:
            if isinstance(layer, nn.MaxPool2d):
                side //= 2
            if isinstance(layer, nn.Conv2d):
                by_hand += side * side * 9 * channels * layer.out_channels
                channels = layer.out_channels
    assert multiply_adds(network, 1, 28) == by_hand + channels * 10


def test_counting_leaves_the_network_as_it_is():
    network = build_classifier("test_resnet", 2).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    multiply_adds(network, 3, 64)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_network_that_hands_parameters_to_its_parts_is_counted():
    network = build_classifier("test_vit3", 2)
    assert multiply_adds(network, 3, 160) > 80_000_000
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_frozen_parameter_still_counts():
    network = nn.Linear(2, 3)
    network.weight.requires_grad_(False)
    assert parameter_count(network) == 9
