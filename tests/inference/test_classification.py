import numpy as np
import pytest
import torch
from torch import nn

from medssl.inference.classification import predict_scores
from medssl.networks.compact import build_classifier
from medssl.networks.modes import evaluating


def small(seed: int) -> nn.Module:
    """Return a network whose batch norms would show if they saw the batch."""
    torch.manual_seed(seed)
    network = build_classifier("vgg-small-28", 3, 1)
    for _ in range(3):
        network.train()(torch.rand(8, 1, 28, 28))
    return network


def _reference_scores(network, images):
    """One image at a time."""
    with torch.no_grad():
        return np.stack([network.eval()(image[None])[0].numpy() for image in images])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_batched_scores_are_those_of_single_images(batch_size):
    """D17, D18: to 1e-5, whatever the batch, an odd rest included."""
    network, images = small(0), torch.rand(7, 1, 28, 28)
    found = predict_scores(network, images, batch_size=batch_size)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), _reference_scores(network, images), rtol=1e-5, atol=1e-5)


def test_the_order_of_images_changes_nothing():
    network, images = small(0), torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(
        predict_scores(network, images.flip(0)).flip(0), predict_scores(network, images)
    )


def test_bytes_are_brought_to_the_unit_interval_and_batches_may_stream():
    network = small(0)
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    stream = (batch for batch in images.split(2))
    torch.testing.assert_close(predict_scores(network, stream), predict_scores(network, images.float() / 255))


def test_networks_get_their_modes_back_and_keep_their_statistics():
    network = small(0)
    network.backbone.scales[0].eval()
    modes = [module.training for module in network.modules()]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = predict_scores(network, torch.rand(2, 1, 28, 28))
    assert not found.requires_grad
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_modes_come_back_after_an_error():
    network = small(0)
    with pytest.raises(ValueError, match="stop"), evaluating(network):
        raise ValueError("stop")  # noqa: EM101
    assert network.training


def test_no_image_gives_no_row():
    assert len(predict_scores(small(0), torch.zeros(0, 1, 28, 28))) == 0
