import io

import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.networks import ClusteringNetwork
from medssl.networks.compact import (
    NETWORKS,
    Classifier,
    build_classifier,
    classifier_of,
    freeze_backbone,
    network_facts,
)
from medssl.networks.compact.facts import NetworkFacts

FACTS = NetworkFacts("tiny", "medssl", "tiny", "test", 0.0, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))


class MeanOfChannels(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def tiny(**options) -> Classifier:
    channels = options.get("in_channels", 3)
    features = 3 if options.get("repeat_gray") else channels
    return Classifier(MeanOfChannels(), features, 2, FACTS, **options).eval()


def test_images_are_normalized_inside_by_the_weights_own_numbers():
    """D11."""
    x = torch.rand(2, 3, 32, 32)
    expected = torch.stack([(x[:, c].mean((1, 2)) - FACTS.mean[c]) / FACTS.std[c] for c in range(3)], 1)
    torch.testing.assert_close(tiny().embed(x), expected)


def test_mean_and_deviation_travel_with_the_weights():
    """D11: identical in training and prediction, also from the file alone."""
    buffer = io.BytesIO()
    torch.save(tiny().state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert state["mean"].flatten().tolist() == pytest.approx(FACTS.mean)
    assert state["std"].flatten().tolist() == pytest.approx(FACTS.std)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels_share_the_average(channels):
    network = tiny(in_channels=channels)
    assert network.mean.flatten().tolist() == pytest.approx([0.2] * channels)
    assert network.embed(torch.rand(1, channels, 32, 32)).shape == (1, channels)


def test_gray_is_repeated_on_request():
    x = torch.rand(2, 1, 32, 32)
    gray, color = tiny(in_channels=1, repeat_gray=True), tiny()
    torch.testing.assert_close(gray.embed(x), color.embed(x.repeat(1, 3, 1, 1)))
    with pytest.raises(ConfigError, match="repeat_gray with 3 channels"):
        tiny(in_channels=3, repeat_gray=True)


def test_scores_are_the_linear_layer_of_the_pooled_features():
    network, x = tiny(), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network(x), network.head(network.embed(x)))
    network.train()
    found = network(x.repeat(32, 1, 1, 1)).view(32, -1)
    assert not torch.equal(found, found[:1].expand(32, -1))  # dropout, in one of 32 draws at least


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 1, 32, 32), (2, 32, 32, 3)])
def test_images_with_other_axes_or_channels_are_refused(shape):
    with pytest.raises(ConfigError, match=r"expects images \(B, 3, H, W\): found"):
        tiny()(torch.rand(shape))


def test_sizes_that_a_network_cannot_take_are_refused():
    with pytest.raises(ConfigError, match=r"at least 32 pixels a side: found 31"):
        tiny()(torch.rand(1, 3, 32, 31))
    network = build_classifier("test_vit", 2, size=48)
    with pytest.raises(ConfigError, match=r"built for 48 x 48 pixels: found \(64, 64\)"):
        network(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_frozen_backbone_stays_bit_for_bit_what_it_was(name):
    """D10: weights and the buffers of the batch norms; the head and the centers learn."""
    torch.manual_seed(0)
    side = max(32, NETWORKS[name].least_size)
    network = ClusteringNetwork(build_classifier(name, 5, size=side), features=5, labels=3, background=True)
    freeze_backbone(network)
    backbone = classifier_of(network).backbone
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    centers = network.head.centers.detach().clone()
    train(network, steps=1, side=side)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert not torch.equal(network.head.centers, centers)
    assert not any(module.training for module in backbone.modules())


def test_a_backbone_that_is_let_go_learns_again():
    torch.manual_seed(0)
    network = build_classifier("test_resnet", 3).train()
    freeze_backbone(network)
    freeze_backbone(network, frozen=False)
    before = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    train(network)
    changed = [
        key for key, value in network.backbone.state_dict().items() if not torch.equal(value, before[key])
    ]
    assert len(changed) == len(before)
    assert all(module.training for module in network.modules())


def train(network: nn.Module, steps: int = 3, side: int = 32) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(steps):
        network.train()
        scores = network(torch.rand(4, 3, side, side))
        loss = nn.functional.cross_entropy(scores, torch.tensor([0, 1, 2, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_a_network_without_a_classifier_is_refused():
    with pytest.raises(ConfigError, match="Linear holds no Classifier"):
        classifier_of(nn.Linear(1, 1))


def test_the_size_is_that_of_the_facts_unless_told_otherwise():
    assert build_classifier("vgg-small-28", 2, 1).size == network_facts("vgg-small-28").input_size
    assert build_classifier("vgg-small-28", 2, 1, size=40).size == 40
