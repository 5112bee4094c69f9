"""Kernels are rounded so that each keeps its sum."""

import numpy as np
import pytest
import torch
from torch import nn

from medssl.inference.rounding import keeping_sums, with_rounded_kernels


def naive(kernel):
    """Round one kernel place by place, in Python's own numbers."""
    rounded, lost = [], 0.0
    for value in kernel:
        step = 2.0 ** (np.floor(np.log2(abs(value + lost))) - 7)  # of bfloat16's 8 bits
        rounded.append(np.round((value + lost) / step) * step)
        lost = value + lost - rounded[-1]
    return rounded


def test_each_place_makes_up_for_what_the_one_before_it_lost():
    weight = torch.randn(3, 2, 3, 3, 3)
    rounded = keeping_sums(weight, torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, rounded.bfloat16().float())
    for kernel, found in zip(weight.flatten(0, 1), rounded.flatten(0, 1), strict=True):
        expected = naive(kernel.flatten().double().tolist())
        np.testing.assert_array_equal(found.flatten().double().numpy(), expected)


def test_a_kernel_keeps_its_sum_within_half_a_step_of_its_last_place():
    weight = torch.rand(8, 4, 3, 3, 3) + 0.5
    difference = (keeping_sums(weight, torch.bfloat16) - weight).double().flatten(2).sum(-1)
    assert difference.abs().max() <= 2**-8 + 1e-7  # values below 2: steps of 2**-7
    nearest = (weight.bfloat16().float() - weight).double().flatten(2).sum(-1)
    assert nearest.abs().mean() > 3 * difference.abs().mean()


@pytest.mark.parametrize("weight", [torch.randn(5, 7, 1, 1, 1), torch.randn(5, 7)])
def test_kernels_of_one_place_are_rounded_to_the_nearest(weight):
    assert torch.equal(keeping_sums(weight, torch.bfloat16), weight.bfloat16().float())


def test_rounding_what_is_rounded_changes_nothing():
    weight = torch.randn(4, 4, 3, 3, 3).bfloat16().float()
    assert torch.equal(keeping_sums(weight, torch.bfloat16), weight)


def test_smooth_images_come_out_nearer_than_from_the_nearest_weights():
    image = nn.functional.avg_pool3d(torch.rand(1, 8, 20, 20, 20), 5, 1)
    layer = nn.Conv3d(8, 8, 3)
    with torch.no_grad():
        expected = layer(image)
        errors = [
            (nn.functional.conv3d(image, weight, layer.bias) - expected).square().mean().sqrt()
            for weight in (layer.weight.bfloat16().float(), keeping_sums(layer.weight, torch.bfloat16))
        ]
    assert errors[0] > 2 * errors[1]


def test_only_the_named_convolutions_of_a_copy_are_rounded():
    network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 2, 3))
    before = [module.weight.clone() for module in network]
    rounded = with_rounded_kernels(network, ["1"], torch.bfloat16)
    assert torch.equal(rounded[0].weight, before[0])
    assert torch.equal(rounded[1].weight, keeping_sums(before[1], torch.bfloat16))
    assert torch.equal(network[1].weight, before[1])
