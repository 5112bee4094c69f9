"""A trap of torch 2.13 on CPUs: wrong bfloat16 weight gradients of 3^3 convolutions on 2^3 maps.

The deepest block of `DenseFCN` has 2^3 maps for crops of 32^3 voxels, 3^3 for crops of 48^3. medssl trains 3D networks
on a CPU in float32 alone (the trainer refuses `amp` there); a GPU trains in bfloat16. Measured when
this was written (torch 2.13.0, CPU with bfloat16 units): 100 of 100 gradients on 2^3 maps were off by more than
5 %, 21 of them not finite; on 3^3 and 4^3 maps all were within .3 %. Flat convolutions do not have the fault, and
the small networks for images do train in bfloat16 on a CPU: all gradients of their layers were within .5 %.
"""

from itertools import pairwise

import pytest
import torch
from torch import nn

from medssl.networks.compact.small_vgg import WIDTHS


def weight_gradient_error(side: int, dtype: torch.dtype, seed: int) -> float:
    """Return the relative error of a weight gradient, 64 to 16 channels, batch of 4, against float64."""
    generator = torch.Generator().manual_seed(seed)
    x, pull, weight = (
        torch.randn(shape, generator=generator)
        for shape in ((4, 64, side, side, side), (4, 16, side, side, side), (16, 64, 3, 3, 3))
    )
    gradients = []
    for precision in (dtype, torch.float64):
        wide = torch.float64 if precision is torch.float64 else torch.float32
        convolution = nn.Conv3d(64, 16, 3, padding=1, bias=False).to(wide)
        convolution.weight.data.copy_(0.02 * weight)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
            y = convolution(x.to(wide))
        assert y.dtype == precision
        y.backward(pull.to(y.dtype))
        gradients.append(convolution.weight.grad.double())
    found, expected = gradients
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("seed", range(10))
def test_float32_gradients_are_right_on_the_smallest_maps(seed):
    assert weight_gradient_error(2, torch.float32, seed) < 1e-5


@pytest.mark.parametrize("side", [3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_bfloat16_gradients_are_right_on_the_maps_of_crops_from_48_voxels(seed, side):
    assert weight_gradient_error(side, torch.bfloat16, seed) < 0.05


def test_bfloat16_gradients_on_2x2x2_maps_are_reported():
    """An expected failure while torch has the fault; passes under a torch that has mended it."""
    wrong = sum(not weight_gradient_error(2, torch.bfloat16, seed) < 0.05 for seed in range(10))
    if wrong:
        pytest.xfail(
            f"torch {torch.__version__}: {wrong} of 10 bfloat16 weight gradients on 2^3 maps are wrong"
        )


LAYERS = sorted(
    {
        pair
        for channels in (1, 3)
        for widths in WIDTHS.values()
        for pair in pairwise([channels, *(width for maps in widths for width in maps)])
    }
)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8, 14])
def test_flat_bfloat16_gradients_are_right_on_maps_of_any_size(side, layout):
    for narrow, wide in LAYERS:
        generator = torch.Generator().manual_seed(side)
        x, pull, weight = (
            torch.randn(shape, generator=generator)
            for shape in ((8, narrow, side, side), (8, wide, side, side), (wide, narrow, 3, 3))
        )
        pull = pull.bfloat16()  # so that only the pass itself rounds
        found = flat_gradients(x, pull, weight, layout)
        expected = flat_gradients(x.double(), pull.double(), weight.double(), layout)
        for one, other in zip(found, expected, strict=True):
            assert (one.double() - other).norm() < 0.01 * other.norm(), (narrow, wide)


def flat_gradients(x, pull, weight, layout):
    """Return the gradients of weights and input, in bfloat16 where ``x`` is float32."""
    convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False).to(x.dtype)
    convolution.weight.data.copy_(weight)
    convolution.to(memory_format=layout)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype is torch.float32):
        y = convolution(x)
    assert y.dtype == pull.dtype
    y.backward(pull)
    return convolution.weight.grad, x.grad
