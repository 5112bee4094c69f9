import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from medssl.errors import ConfigError
from medssl.inference.plan import bytes_per_voxel
from medssl.inference.predictor import BrainBoxInferer, Predictor

HALO = 16
SMALL_LIMIT = int(42**3 * bytes_per_voxel(24)) + 1
"""Memory limit under which the shallow network has to work in small tiles."""


@pytest.fixture
def whole(shallow, head):
    """Return the probabilities of one plain pass over the whole volume."""
    with torch.inference_mode():
        return shallow(head[0][None])[0].softmax(0)


def counting(network: nn.Module, sizes: list[tuple[int, ...]]):
    network.stem.register_forward_hook(
        lambda module, inputs, output: sizes.append(tuple(inputs[0].shape[2:]))
    )
    return network


def test_one_pass_equals_the_whole_volume_inside_the_mask(shallow, head, whole):
    image, mask = head
    prediction = Predictor(network=shallow, margin=HALO).predict(image, mask)
    torch.testing.assert_close(prediction[:, mask], whole[:, mask], rtol=0, atol=1e-5)


def test_tiles_with_an_exact_halo_equal_one_pass(shallow, head):
    image, mask = head
    sizes: list[tuple[int, ...]] = []
    tiled = Predictor(network=counting(shallow, sizes), halo=HALO, memory_limit=SMALL_LIMIT).predict(
        image, mask
    )
    count = len(sizes)
    one = Predictor(network=shallow).predict(image, mask)
    assert count > 1
    assert len(sizes) == count + 1
    torch.testing.assert_close(tiled, one, rtol=0, atol=1e-5)


def test_halo_matters(shallow, head):
    image, mask = head
    without = Predictor(network=shallow, halo=0, memory_limit=SMALL_LIMIT).predict(image, mask)
    assert (without - Predictor(network=shallow).predict(image, mask)).abs().max() > 1e-3


def test_only_the_box_of_the_brain_is_run(shallow, head):
    sizes: list[tuple[int, ...]] = []
    Predictor(network=counting(shallow, sizes), margin=0).predict(*head)
    assert sizes == [(44, 40, 60)]


def test_outside_the_mask_is_background_for_certain(shallow, head):
    """Invariant 9."""
    image, mask = head
    prediction = Predictor(network=shallow).predict(image, mask)
    assert (prediction[0, ~mask] == 1).all()
    assert (prediction[1:, ~mask] == 0).all()
    torch.testing.assert_close(prediction.sum(0), torch.ones(mask.shape))
    assert prediction.dtype == torch.float32


def test_the_box_alone_says_the_same(shallow, head):
    predictor = Predictor(network=shallow)
    found, whole = predictor.predict_box(*head), predictor.predict(*head)
    assert found.inside[0].numel() < whole[0].numel()
    assert torch.equal(found.whole(), whole)
    assert torch.equal(found.channel(0), whole[0])
    assert torch.equal(found.channel(3), whole[3])
    assert torch.equal(found.replaced(whole).inside, found.inside)


def test_inside_the_mask_background_is_not_ruled_out(shallow, head):
    image, mask = head
    assert (Predictor(network=shallow).predict(image, mask)[0, mask] > 0.5).any()


def test_without_mask_the_whole_volume_is_the_networks_answer(shallow, head, whole):
    torch.testing.assert_close(Predictor(network=shallow).predict(head[0]), whole, rtol=0, atol=1e-5)


def test_empty_mask_gives_background_everywhere(shallow, head):
    image, mask = head
    prediction = Predictor(network=shallow).predict(image, torch.zeros_like(mask))
    assert prediction.shape == (4, *mask.shape)
    assert (prediction[0] == 1).all()


def test_volume_smaller_than_the_multiple(head):
    network = nn.Conv3d(2, 3, 3, padding=1)
    assert Predictor(network=network).predict(head[0][:, :5, :20, :7]).shape == (3, 5, 20, 7)


def test_memory_limit_too_small_for_any_tile_is_refused(shallow, head):
    with pytest.raises(ConfigError, match="memory limit is too small"):
        Predictor(network=shallow, memory_limit=1000).predict(*head)


def test_predicting_leaves_the_network_alone(shallow, head):
    Predictor(network=shallow.train()).predict(*head)
    assert shallow.training


def test_inferer_agrees_with_the_predictor(shallow, head):
    image, mask = head
    with torch.inference_mode():
        logits = BrainBoxInferer()(torch.stack([image, image.flip(1)]), shallow)
    first = Predictor(network=shallow).predict(image, mask)
    second = Predictor(network=shallow).predict(image.flip(1), mask.flip(0))
    probabilities = logits.softmax(1)
    torch.testing.assert_close(probabilities[0][:, mask], first[:, mask], rtol=0, atol=1e-5)
    torch.testing.assert_close(probabilities[1][:, mask.flip(0)], second[:, mask.flip(0)], rtol=0, atol=1e-5)


def test_inferer_says_background_far_from_the_brain(shallow, head):
    with torch.inference_mode():
        probabilities = BrainBoxInferer(margin=0)(head[0][None], shallow).softmax(1)[0]
    assert probabilities[0, :, :, -5:].min() > 0.999
    assert (probabilities[0, 60:].argmax(0) == 0).all()


def test_inferer_tiles_like_the_predictor(shallow, head):
    inputs = head[0][None]
    with torch.inference_mode():
        tiled = BrainBoxInferer(halo=HALO, memory_limit=SMALL_LIMIT)(inputs, shallow)
        torch.testing.assert_close(tiled, BrainBoxInferer()(inputs, shallow), rtol=1e-4, atol=1e-4)


def test_inferer_keeps_the_place_of_a_meta_tensor(shallow, head):
    affine = torch.tensor([[0.0, -2, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]], dtype=torch.float64)
    inputs = MetaTensor(head[0][None], affine=affine)
    with torch.inference_mode():
        logits = BrainBoxInferer()(inputs, shallow)
    assert isinstance(logits, MetaTensor)
    assert torch.equal(logits.affine, affine)


def test_inferer_hands_further_arguments_to_the_network(head):
    def network(tile, scale, *, shift):
        return torch.cat([tile[:, :1] * scale, tile[:, :1] + shift], dim=1)

    logits = BrainBoxInferer()(head[0][None], network, 2.0, shift=5.0)
    image, mask = head
    torch.testing.assert_close(logits[0, 0][mask], image[0][mask] * 2)
    torch.testing.assert_close(logits[0, 1][mask], image[0][mask] + 5)
