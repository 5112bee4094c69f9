import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.inference.plan import bytes_per_voxel
from medssl.inference.predictor import Predictor
from medssl.inference.receptive_field import exact_halo, reach, receptive_field
from medssl.networks import ClusteringNetwork, DenseFCN, FCDenseNet3D

SMALL = {"stem_channels": 4, "growth_rate": 4, "block_layers": 1}


def perturbed(network: nn.Module, side: int, axis: int) -> tuple[int, int]:
    """Return how far a change of one voxel is seen before and behind it, over one multiple of places."""
    torch.manual_seed(0)  # of weights and image: in rare draws a far voxel's path is dead
    network = network.double().eval()
    for part in network.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    x = torch.randn(1, 2, *[side if other == axis else 16 for other in range(3)], dtype=torch.float64)
    with torch.inference_mode():
        still = network(x)
        before, behind = [], []
        period = (getattr(network, "deep_window", None) or [network.multiple])[0]
        for place in range(side // 2, side // 2 + period):
            other = x.clone()
            other.select(2 + axis, place)[:] += 3
            seen = (network(other) - still).abs().amax(dim=[0, 1, *[2 + a for a in range(3) if a != axis]])
            hits = seen.nonzero()[:, 0]
            before.append(place - int(hits.min()))
            behind.append(int(hits.max()) - place)
    return max(behind), max(before)


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize(
    "network",
    [
        DenseFCN(2, 4, levels=1, **SMALL),
        DenseFCN(2, 4, levels=2, **SMALL),
        DenseFCN(2, 4, levels=2, deep_window=(12, 12, 12), **SMALL),
        FCDenseNet3D(2, 4, levels=1, **SMALL),
    ],
    ids=["one_level", "two_levels", "deep_windows", "u_shaped"],
)
def test_reach_is_how_far_a_changed_voxel_is_seen(network, axis):
    before, behind = reach(network, axis)
    found = perturbed(network, 96, axis)
    assert found == (before, behind)


def test_dense_fcn_with_four_levels_sees_278_voxels():
    assert receptive_field(DenseFCN(2, 4)) == (278, 278, 278)
    assert receptive_field(DenseFCN(2, 4, deep_window=(48, 48, 48))) == (214, 214, 214)


def test_head_is_pointwise_and_weights_do_not_matter():
    backbone = DenseFCN(2, 8, levels=2)
    nn.init.zeros_(backbone.classifier[2].weight)
    assert receptive_field(ClusteringNetwork(backbone, 8, 4)) == receptive_field(DenseFCN(2, 4, levels=2))


@pytest.mark.parametrize(
    ("network", "width"),
    [
        (nn.Conv3d(2, 3, (3, 1, 5), padding=(1, 0, 2)), (3, 1, 5)),
        (nn.Conv3d(2, 3, 3, padding=2, dilation=2), (5, 5, 5)),
        (nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 1, 3, padding=1)), (5, 5, 5)),
    ],
)
def test_convolutions_by_hand(network, width):
    assert receptive_field(network) == width


def test_a_module_that_may_look_anywhere_is_refused():
    with pytest.raises(ConfigError, match="how far AdaptiveAvgPool3d looks"):
        receptive_field(nn.Sequential(nn.Conv3d(1, 1, 1), nn.AdaptiveAvgPool3d(1)))


@pytest.mark.parametrize("side", [8, 12, 24, 32])
def test_tiles_with_the_computed_halo_equal_one_pass_also_in_deep_windows(side):
    network = DenseFCN(2, 4, levels=2, deep_window=(side, 8, 8), **SMALL).eval()
    image = torch.randn(2, 173, 16, 16, generator=torch.Generator().manual_seed(3))
    cost = bytes_per_voxel(network.peak_maps)
    one = Predictor(network=network).predict(image)
    windowed = Predictor(network=network, halo=exact_halo(network))
    factor = windowed.reference.memory_factor
    windowed.memory_limit = int(132 * 16 * 16 * cost * factor)
    torch.testing.assert_close(windowed.predict(image), one, rtol=0, atol=1e-5)


def test_where_memory_is_too_small_for_windows_of_the_whole_tiles_have_their_own(caplog):
    network = DenseFCN(2, 4, levels=2, deep_window=(32, 8, 8), **SMALL).eval()
    image = torch.randn(2, 173, 16, 16, generator=torch.Generator().manual_seed(3))
    predictor = Predictor(network=network, halo=8)
    predictor.memory_limit = int(
        36 * 16 * 16 * bytes_per_voxel(network.peak_maps) * predictor.reference.memory_factor
    )
    with caplog.at_level("WARNING"):
        tiled = predictor.predict(image)
    assert "windows lie elsewhere" in caplog.text
    assert (tiled - Predictor(network=network).predict(image)).abs().max() > 1e-3
    enough = predictor.predict_box(image).enough_memory
    assert predictor.memory_now() < enough
    predictor.memory_limit = int(enough) - 1
    assert predictor.predict_box(image).enough_memory == enough
    predictor.memory_limit = int(enough) + 1
    assert predictor.predict_box(image).enough_memory is None


def test_tiles_with_the_computed_halo_equal_one_pass(shallow, head):
    image, mask = head
    limit = int(64**3 * bytes_per_voxel(shallow.peak_maps))
    tiled = Predictor(network=shallow, halo=exact_halo(shallow), memory_limit=limit).predict(image, mask)
    one = Predictor(network=shallow).predict(image, mask)
    torch.testing.assert_close(tiled, one, rtol=0, atol=1e-5)
