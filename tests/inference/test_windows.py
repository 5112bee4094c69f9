"""Overlapping windows, as MONAI runs them."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from medssl.errors import ConfigError
from medssl.inference.backends.torch_backend import TorchBackend
from medssl.inference.plan import box_of, bytes_per_voxel, region_around
from medssl.inference.predictor import MARGIN, Predictor
from medssl.inference.windows import OVERLAP


@torch.inference_mode()
def test_windows_give_what_monai_gives_on_the_brains_box(shallow, head):
    image, mask = head
    region = region_around(box_of(mask), mask.shape, margin=MARGIN, multiple=shallow.multiple)
    inferer = SlidingWindowInferer((16, 16, 16), overlap=OVERLAP, mode="gaussian")
    inside = region.clipped(tuple(mask.shape))
    tile = torch.zeros(1, 2, *region.shape)
    part = (slice(None), *inside.relative_to(region).slices)
    tile[0][part] = image[(slice(None), *inside.slices)]
    expected = inferer(tile, shallow)[0].softmax(0)[part][:, mask[inside.slices]]
    found = Predictor(network=shallow, window=16).predict(image, mask)
    torch.testing.assert_close(found[:, mask], expected, rtol=0, atol=1e-5)
    one = Predictor(network=shallow).predict(image, mask)
    assert (one - found).abs().max() > 1e-3


def test_a_window_needs_no_more_memory_than_its_own(shallow, head):
    """A limit that one pass exceeds is no hindrance; one that a window exceeds is."""
    sizes = []
    shallow.stem.register_forward_hook(lambda module, inputs, output: sizes.append(inputs[0].shape[2:]))
    need = 16**3 * bytes_per_voxel(shallow.peak_maps) * TorchBackend(shallow).memory_factor
    Predictor(network=shallow, window=16, memory_limit=int(need) + 1).predict(*head)
    assert set(sizes) == {(16, 16, 16)}
    with pytest.raises(ConfigError, match="too small for a window"):
        Predictor(network=shallow, window=16, memory_limit=int(need) - 1).predict(*head)


def test_a_side_longer_than_the_scan_is_cut_to_it(shallow, head):
    sizes = []
    shallow.stem.register_forward_hook(lambda module, inputs, output: sizes.append(inputs[0].shape[2:]))
    Predictor(network=shallow, window=48).predict(*head)
    (size,) = set(sizes)
    assert max(size) == 48
    assert min(size) < 48


@pytest.mark.parametrize("window", [0, 2, 17])
def test_windows_that_the_network_cannot_run_are_refused(shallow, window):
    with pytest.raises(ConfigError, match="multiple of"):
        Predictor(network=shallow, window=window)
