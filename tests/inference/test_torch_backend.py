import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.inference.backends.torch_backend import TorchBackend, fold_batch_norm
from medssl.networks import DenseFCN


def batch_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm3d) for module in network.modules())


def test_folding_keeps_the_function_and_leaves_the_network_alone(shallow):
    x = torch.randn(1, 2, 32, 32, 32)
    before = batch_norms(shallow)
    folded = fold_batch_norm(shallow)
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), shallow(x), rtol=1e-4, atol=1e-5)
    assert batch_norms(shallow) == before


def test_folding_takes_every_batch_norm_behind_a_convolution():
    network = DenseFCN(2, 4)
    assert (batch_norms(network), batch_norms(fold_batch_norm(network))) == (42, 21)


def test_tile_gives_the_logits_of_the_network_in_evaluation_mode(shallow):
    backend = TorchBackend(shallow.train())
    x = torch.randn(1, 2, 32, 48, 16)
    with torch.inference_mode():
        torch.testing.assert_close(backend(x), shallow.eval()(x), rtol=1e-4, atol=1e-5)


def test_bfloat16_is_near_and_comes_back_as_float32(shallow):
    x = torch.randn(1, 2, 32, 32, 32)
    exact, rough = TorchBackend(shallow)(x), TorchBackend(shallow, precision="bfloat16")(x)
    assert rough.dtype == torch.float32
    assert 0 < (rough.softmax(1) - exact.softmax(1)).abs().max() < 0.1


def test_torchscript_network_runs(shallow):
    x = torch.randn(1, 2, 32, 32, 32)
    backend = TorchBackend(torch.jit.script(shallow))
    torch.testing.assert_close(backend(x), TorchBackend(shallow)(x), rtol=1e-4, atol=1e-5)


def test_unknown_precision_is_refused(shallow):
    with pytest.raises(ConfigError, match="found 'fp8', expected one of"):
        TorchBackend(shallow, precision="fp8")
