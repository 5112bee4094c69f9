"""What holds for every network: counts, shapes, padding, modes, export."""

import io

import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.networks import ClusteringNetwork, DenseFCN, FCDenseNet3D

THREE_LEVELS = {"levels": 3, "block_layers": 4, "reduction": 2}
COUNTS = [
    (DenseFCN, {}, 1_552_060, 49),
    (FCDenseNet3D, {}, 1_419_296, 177),
    (FCDenseNet3D, THREE_LEVELS, 1_363_344, 225),
]


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("network", "options", "base", "each"), COUNTS)
def test_parameter_count_is_that_of_the_specification(network, options, base, each, norm):
    """Invariant 7."""
    for out_channels in (3, 4, 8, 16):
        count = parameters(network(2, out_channels, norm=norm, **options))
        assert count == base + each * out_channels
    assert parameters(network(1, 4, norm=norm, **options)) == base + each * 4 - 864


def test_published_totals():
    """Invariant 7."""
    assert parameters(DenseFCN(2, 4)) == 1_552_256
    assert parameters(FCDenseNet3D(2, 4)) == 1_420_004
    assert parameters(FCDenseNet3D(2, 4, **THREE_LEVELS)) == 1_364_244
    single = [DenseFCN(1, 4), FCDenseNet3D(1, 4), FCDenseNet3D(1, 4, **THREE_LEVELS)]
    assert [parameters(network) for network in single] == [1_551_392, 1_419_140, 1_363_380]


@pytest.mark.parametrize(
    ("network", "options", "convolutions", "transposed"),
    [(DenseFCN, {}, 43, 4), (FCDenseNet3D, {}, 60, 4), (FCDenseNet3D, THREE_LEVELS, 61, 3)],
)
def test_number_of_convolutions(network, options, convolutions, transposed):
    kinds = [type(module) for module in network(2, 4, **options).modules()]
    assert kinds.count(nn.Conv3d) == convolutions
    assert kinds.count(nn.ConvTranspose3d) == transposed


def test_dense_fcn_stages_have_the_specified_counts():
    network = DenseFCN(2, 4)
    assert parameters(network.stem) == 57_024 + 128
    assert [parameters(down) for down in network.downs] == [64 + 8_192, 23_376, 31_752, 36_420]
    assert [parameters(block) for block in network.blocks] == [125_888, 130_112, 132_224, 133_280]
    assert [parameters(up) for up in network.ups] == [6_144, 24_192, 120_000, 723_168]
    assert parameters(network.classifier) == 96 + 49 * 4


def test_dense_fcn_biases_stand_only_in_strided_transitions_and_at_the_end():
    names = [
        name for name, module in DenseFCN(2, 4).named_modules() if getattr(module, "bias", None) is not None
    ]
    convolutions = [
        name for name in names if not isinstance(DenseFCN(2, 4).get_submodule(name), nn.BatchNorm3d)
    ]
    assert convolutions == ["downs.1.5", "downs.2.5", "downs.3.5", "classifier.2"]


@pytest.mark.parametrize("size", [(32, 32, 32), (64, 64, 64), (96, 64, 80), (50, 64, 33)])
@pytest.mark.parametrize(("network", "options"), [options[:2] for options in COUNTS])
def test_every_network_returns_the_sides_it_is_given(network, options, size):
    """Invariant 7: of the whole networks; on the meta device shapes cost nothing."""
    with torch.device("meta"):
        head = ClusteringNetwork(network(2, 16, **options), 16, 4).eval()
        assert head(torch.empty(1, 2, *size)).shape == (1, 4, *size)
        assert head.train()(torch.empty(2, 2, *size)).shape == (2, 4, *size)


@pytest.mark.parametrize("size", [(32, 32, 32), (16, 16, 16), (33, 20, 17), (5, 47, 16), (1, 1, 1)])
def test_any_size_comes_back_as_logits_of_that_size(tiny, size):
    """Invariant 7: sides that are no multiple are padded and cropped."""
    with torch.inference_mode():
        assert tiny(torch.randn(1, 2, *size)).shape == (1, 4, *size)


def test_padding_is_zeros_at_the_far_ends(tiny):
    x = torch.randn(1, 2, 20, 32, 30)
    padded = torch.zeros(1, 2, 32, 32, 32)
    padded[:, :, :20, :, :30] = x
    with torch.inference_mode():
        torch.testing.assert_close(tiny(x), tiny(padded)[:, :, :20, :, :30])


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("network", [DenseFCN, FCDenseNet3D])
def test_one_small_crop_can_be_trained_on(network, norm):
    net = network(1, 2, stem_channels=8, growth_rate=4, block_layers=2, norm=norm).train()
    net(torch.randn(1, 1, 16, 16, 16)).square().mean().backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


def test_every_parameter_receives_a_gradient(tiny):
    tiny.train()(torch.randn(2, 2, 32, 32, 32)).square().mean().backward()
    silent = [name for name, parameter in tiny.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert silent == []


def test_instance_norm_treats_each_sample_alone():
    network = DenseFCN(1, 2, stem_channels=8, growth_rate=4, block_layers=2, norm="instance").eval()
    x = torch.randn(2, 1, 32, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=1e-4, atol=1e-4)


def test_dropout_acts_in_training_only(tiny):
    x = torch.randn(1, 2, 32, 32, 32)
    with torch.no_grad():
        assert torch.equal(tiny(x), tiny(x))
        tiny.train()
        assert not torch.equal(tiny(x), tiny(x))


def test_state_returns_the_same_output_in_another_instance(tiny):
    buffer = io.BytesIO()
    torch.save(tiny.state_dict(), buffer)
    buffer.seek(0)
    other = type(tiny)(2, 4, stem_channels=8, growth_rate=4, block_layers=2).eval()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    x = torch.randn(1, 2, 32, 16, 32)
    with torch.inference_mode():
        assert torch.equal(tiny(x), other(x))


@pytest.mark.parametrize("compiler", ["script", "trace"])
def test_torchscript_keeps_the_output_for_every_size(tiny, compiler):
    x = torch.randn(1, 2, 33, 20, 16)
    with torch.no_grad():
        compiled = torch.jit.script(tiny) if compiler == "script" else torch.jit.trace(tiny, x)
        for volume in (x, torch.randn(2, 2, 40, 50, 35)):
            torch.testing.assert_close(compiled(volume), tiny(volume))


def test_convolutions_start_with_he_normal_weights():
    first = DenseFCN(2, 4, stem_channels=64).stem[3].weight
    assert first.std().item() == pytest.approx((2 / (64 * 27)) ** 0.5, rel=0.02)


def test_unknown_norm_is_refused():
    with pytest.raises(ConfigError, match=r"norm='group'.*batch.*instance"):
        DenseFCN(2, 4, norm="group")


def test_small_variants_are_rounded_to_four_groups():
    network = DenseFCN(1, 2, stem_channels=16, growth_rate=8)
    assert [up.in_channels for up in network.ups] == [48, 56, 60, 64]


def test_maps_that_four_groups_cannot_share_are_refused():
    with pytest.raises(ConfigError, match=r"ends with 10 maps.*multiple of 4"):
        DenseFCN(2, 4, stem_channels=8, growth_rate=2, block_layers=1)
