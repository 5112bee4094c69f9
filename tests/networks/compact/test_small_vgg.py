import pytest
import torch
from torch import nn

from medssl.networks import reinitialize
from medssl.networks.compact import SmallVGG, build_classifier, multiply_adds, parameter_count


def test_the_network_for_28_pixels_stays_below_twelve_million_multiply_adds():
    network = build_classifier("vgg-small-28", 10, 1)
    assert multiply_adds(network, 1, 28) <= 12_000_000
    assert parameter_count(network) == 110_362


def test_the_network_for_64_pixels_is_small_too():
    network = build_classifier("vgg-small-64", 10, 1)
    assert multiply_adds(network, 1, 64) <= 32_000_000
    assert parameter_count(network) == 174_650


def test_every_layer_is_a_plain_convolution_with_its_norm():
    kinds = [type(module) for module in SmallVGG(1, ((4, 4), (8,))).scales.modules()]
    assert kinds.count(nn.Conv2d) == kinds.count(nn.BatchNorm2d) == kinds.count(nn.ReLU) == 3
    assert kinds.count(nn.MaxPool2d) == 1


def test_features_do_not_depend_on_the_size_of_the_image():
    network = SmallVGG(2, ((4,), (6,))).eval()
    for size in ((28, 28), (31, 17), (2, 2)):
        assert network(torch.rand(1, 2, *size)).shape == (1, 6)


def test_convolutions_start_with_he_normal_weights_also_anew():
    network = build_classifier("vgg-small-28", 10, 1)
    first, second = build_classifier("vgg-small-28", 10, 1), build_classifier("vgg-small-28", 10, 1)
    weight = network.backbone.scales[2][4].weight
    assert weight.std().item() == pytest.approx((2 / (80 * 9)) ** 0.5, rel=0.03)
    reinitialize(first, 3)
    reinitialize(second, 3)
    assert torch.equal(first.backbone.scales[0][0].weight, second.backbone.scales[0][0].weight)
    assert first.backbone.scales[2][4].weight.std().item() == pytest.approx(weight.std().item(), rel=0.03)


def test_a_handful_of_images_is_learned_by_heart():
    torch.manual_seed(0)
    network = build_classifier("vgg-small-28", 3, 1, dropout=0.0).train()
    images, labels = torch.rand(6, 1, 28, 28), torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(25):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * torch.tensor(3.0).log().item()
