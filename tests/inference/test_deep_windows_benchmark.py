"""The experiment on deep scales in windows: where one window covers all, it is one pass."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from medssl.inference.backends.torch_backend import TorchBackend
from medssl.networks import DenseFCN

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def with_deep_windows(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("deep_windows", "inference", "margin")
    before = {name: sys.modules.pop(name, None) for name in names}
    yield importlib.import_module("deep_windows").with_deep_windows
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DenseFCN(2, 4, stem_channels=8, growth_rate=4, block_layers=1).eval()
    return TorchBackend(network).network


@torch.inference_mode()
@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
def test_one_window_over_all_is_one_pass(with_deep_windows, network, first):
    tile = torch.randn(1, 2, 32, 48, 32, generator=torch.Generator().manual_seed(1))
    found = with_deep_windows(network, tile, 48, 0.25, first)
    torch.testing.assert_close(found, network(tile), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_smaller_windows_hide_what_is_far(with_deep_windows, network):
    tile = torch.randn(1, 2, 32, 80, 32, generator=torch.Generator().manual_seed(1))
    found = with_deep_windows(network, tile, 32, 0.25, 4)
    assert torch.isfinite(found).all()
    assert (found - network(tile)).abs().max() > 1e-4
