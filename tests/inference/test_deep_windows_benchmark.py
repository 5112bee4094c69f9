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
def put_windows(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("deep_windows", "inference", "margin")
    before = {name: sys.modules.pop(name, None) for name in names}
    yield importlib.import_module("deep_windows").put_windows
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
def test_one_window_over_all_is_one_pass(put_windows, network, first):
    tile = torch.randn(1, 2, 32, 48, 32, generator=torch.Generator().manual_seed(1))
    plain = network(tile)
    put_windows(network, first, 48)
    torch.testing.assert_close(network(tile), plain, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_each_further_scale_in_windows_changes_something_and_all_can_be_taken_back(put_windows, network):
    tile = torch.randn(1, 2, 32, 80, 32, generator=torch.Generator().manual_seed(1))
    plain = last = network(tile)
    for first in (4, 3, 2, 1):
        put_windows(network, first, 32)
        answer = network(tile)
        assert (answer - last).abs().max() > 1e-4
        last = answer
    put_windows(network, 5, 32)
    torch.testing.assert_close(network(tile), plain, rtol=0, atol=0)
