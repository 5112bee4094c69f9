import numpy as np
import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.inference.classification import predict_probabilities
from medssl.networks.compact import build_classifier
from medssl.networks.modes import evaluating


def small(seed: int) -> nn.Module:
    """Return a network whose batch norms would show if they saw the batch."""
    torch.manual_seed(seed)
    network = build_classifier("vgg-small-28", 3, 1)
    for _ in range(3):
        network.train()(torch.rand(8, 1, 28, 28))
    return network


def mirrored(images: torch.Tensor) -> torch.Tensor:
    return images.flip(3)


def identity(images: torch.Tensor) -> torch.Tensor:
    return images


def _reference_mean(networks, images, views, temperatures):
    """One image, one view, one network at a time, in float64."""
    found = np.zeros((len(images), 3))
    for row, image in enumerate(images):
        for network, temperature in zip(networks, temperatures, strict=True):
            for view in views:
                with torch.no_grad():
                    scores = network.eval()(view(image[None]))[0].double().numpy() / temperature
                exponent = np.exp(scores - scores.max())
                found[row] += exponent / exponent.sum()
    return found / (len(networks) * len(views))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batched_probabilities_are_those_of_single_images(batch_size):
    """D17, D18: to 1e-5, whatever the batch, an odd rest included."""
    networks, images = [small(0), small(1)], torch.rand(7, 1, 28, 28)
    expected = _reference_mean(networks, images, [identity, mirrored], [1.0, 2.5])
    found = predict_probabilities(
        networks, images, views=[identity, mirrored], temperatures=[1.0, 2.5], batch_size=batch_size
    )
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(1).numpy(), 1, atol=1e-6)


def test_every_pass_can_be_had_views_of_the_first_network_first():
    networks, images = [small(0), small(1)], torch.rand(3, 1, 28, 28)
    each = predict_probabilities(networks, images, views=[identity, mirrored], each=True, batch_size=2)
    assert each.shape == (4, 3, 3)
    torch.testing.assert_close(each[1], predict_probabilities(networks[0], images.flip(3)))
    torch.testing.assert_close(
        each.mean(0), predict_probabilities(networks, images, views=[identity, mirrored])
    )


def test_identical_views_change_nothing():
    network, images = small(0), torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(
        predict_probabilities(network, images, views={"a": identity, "b": identity, "c": identity}),
        predict_probabilities(network, images),
    )


def test_the_order_of_networks_and_images_changes_nothing():
    networks, images = [small(0), small(1)], torch.rand(4, 1, 28, 28)
    found = predict_probabilities(networks, images)
    torch.testing.assert_close(predict_probabilities(networks[::-1], images.flip(0)).flip(0), found)


def test_bytes_are_brought_to_the_unit_interval_and_batches_may_stream():
    network = small(0)
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    stream = (batch for batch in images.split(2))
    torch.testing.assert_close(
        predict_probabilities(network, stream), predict_probabilities(network, images.float() / 255)
    )


def test_networks_get_their_modes_back_and_keep_their_statistics():
    network = small(0)
    network.backbone.scales[0].eval()
    modes = [module.training for module in network.modules()]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = predict_probabilities(network, torch.rand(2, 1, 28, 28))
    assert not found.requires_grad
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_modes_come_back_after_an_error():
    network = small(0)
    with pytest.raises(ValueError, match="stop"), evaluating(network):
        raise ValueError("stop")  # noqa: EM101
    assert network.training


def test_no_image_gives_no_row():
    assert len(predict_probabilities(small(0), torch.zeros(0, 1, 28, 28))) == 0


@pytest.mark.parametrize("temperatures", [[1.0], [1.0, 0.0], []])
def test_temperatures_have_to_be_positive_and_one_a_network(temperatures):
    with pytest.raises(ConfigError, match="found 2 networks"):
        predict_probabilities([small(0), small(1)], torch.rand(1, 1, 28, 28), temperatures=temperatures)
