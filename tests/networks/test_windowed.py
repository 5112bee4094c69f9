"""A block in windows: each window for itself, every size, also traced and scripted; and `DenseFCN` made of one."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.networks import ClusteringNetwork, DenseFCN
from medssl.networks.windowed import WindowedBlock

SIZES = [(7, 6, 2), (3, 2, 3), (1, 9, 5), (8, 1, 1), (4, 4, 4)]
WINDOW = (3, 2, 3)
SMALL = {"stem_channels": 8, "growth_rate": 4, "block_layers": 1}


@pytest.fixture
def block() -> WindowedBlock:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = nn.Conv3d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv3d(5, 4, 3, padding=1)
        return WindowedBlock(*modules, window=WINDOW).eval()


def image(*sides: int, channels: int = 3, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, *sides, generator=torch.Generator().manual_seed(1))


def in_naive_windows(block: WindowedBlock, x: Tensor) -> Tensor:
    """Run one window after the other; where the last one begins earlier it leaves what stands there."""
    whole = nn.Sequential(*block)
    found = torch.full((len(x), 4, *x.shape[2:]), torch.nan)
    spans = []
    for size, side in zip(x.shape[2:], block.window, strict=True):
        least = min(side, size)
        spans.append(
            [(min(start, size - least), start, min(start + least, size)) for start in range(0, size, least)]
        )
    for corners in itertools.product(*spans):
        sides = [min(side, size) for side, size in zip(block.window, x.shape[2:], strict=True)]
        read = tuple(slice(begin, begin + side) for (begin, _, _), side in zip(corners, sides, strict=True))
        kept = tuple(slice(start - begin, stop - begin) for begin, start, stop in corners)
        place = tuple(slice(start, stop) for _, start, stop in corners)
        found[(..., *place)] = whole(x[(..., *read)])[(..., *kept)]
    return found


@torch.inference_mode()
@pytest.mark.parametrize("size", SIZES)
def test_windows_are_those_of_a_loop(block, size):
    x = image(*size)
    torch.testing.assert_close(block(x), in_naive_windows(block, x), rtol=0, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("compiler", ["script", "trace"])
def test_compiled_for_one_size_it_holds_for_all(block, compiler):
    compiled = (
        torch.jit.script(block) if compiler == "script" else torch.jit.trace(block, image(2, 2, 2, batch=1))
    )
    for size in SIZES:
        x = image(*size, batch=1)
        torch.testing.assert_close(compiled(x), block(x), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_without_a_window_and_in_training_it_is_a_sequence(block):
    x = image(7, 6, 5)
    whole = nn.Sequential(*block)(x)
    assert not torch.equal(block(x), whole)
    torch.testing.assert_close(WindowedBlock(*block).eval()(x), whole, rtol=0, atol=0)
    torch.testing.assert_close(block.train()(x), whole, rtol=0, atol=0)


def networks(window: tuple[int, int, int] | None) -> list[nn.Module]:
    found: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        for norm in ("batch", "instance"):
            torch.manual_seed(0)
            found.append(DenseFCN(2, 4, norm=norm, deep_window=window, **SMALL).eval())
        torch.manual_seed(0)
        found.append(ClusteringNetwork(DenseFCN(2, 6, deep_window=window, **SMALL), 6, 4).eval())
    return found


@torch.inference_mode()
def test_a_crop_of_the_training_is_run_as_before_and_a_wider_image_is_not():
    crop, wide = image(48, 48, 48, channels=2, batch=1), image(80, 48, 48, channels=2, batch=1)
    for windowed, plain in zip(networks((48, 48, 48)), networks(None), strict=True):
        assert windowed.state_dict().keys() == plain.state_dict().keys()
        torch.testing.assert_close(windowed(crop), plain(crop), rtol=0, atol=1e-5)
        assert (windowed(wide) - plain(wide)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("crop", "window"), [((48, 48, 48), (3, 3, 3)), ([40, 16, 64], (3, 2, 4)), ((32, 32, 32), (2, 2, 2))]
)
def test_window_is_what_training_makes_of_the_crop(crop, window):
    network = DenseFCN(2, 4, deep_window=crop, **SMALL)
    seen: list[tuple[int, ...]] = []
    network.blocks[-1].register_forward_hook(
        lambda module, inputs, output: seen.append(tuple(inputs[0].shape[2:]))
    )
    network.train()(image(*crop, channels=2))
    assert network.blocks[-1].window == seen[0] == window
    sides = tuple(16 * side for side in window)
    assert network.deep_window == ClusteringNetwork(network, 4, 4).deep_window == sides


def test_without_windows_there_are_none_to_tell():
    network = DenseFCN(2, 4, levels=2, **SMALL)
    assert network.deep_window is ClusteringNetwork(network, 4, 4).deep_window is None


@pytest.mark.parametrize("crop", [48, [48], [48, 48, 48, 48], [0, 48, 48]])
def test_a_window_without_three_sides_is_refused(crop):
    with pytest.raises(ConfigError, match="expected three sides"):
        DenseFCN(2, 4, deep_window=crop, **SMALL)
