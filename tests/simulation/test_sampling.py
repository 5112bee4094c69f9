"""Sampling averages over voxels and keeps positions."""

import numpy as np
import pytest

from medssl.simulation.sampling import FIELD_OF_VIEW_MM, _box_weights, output_shape, scan_affine, voxel_means


@pytest.mark.parametrize("size", [0.7, 1.0, 2.0, 3.3])
def test_weights_are_the_integral_of_linear_interpolation(size: float) -> None:
    values = np.random.default_rng(0).random(20)
    count = round(20 / size)
    found = _box_weights(20, count, size) @ values
    fine = np.linspace(-size / 2, size / 2, 4001)
    places = (np.arange(count) - (count - 1) / 2) * size + 9.5
    expected = [np.interp(place + fine, np.arange(20), values).mean() for place in places[2:-2]]
    np.testing.assert_allclose(found[2:-2], expected, atol=1e-3)


def test_constant_stays_constant_to_the_edge() -> None:
    volume = np.full(FIELD_OF_VIEW_MM, 0.25, dtype=np.float32)
    np.testing.assert_allclose(voxel_means(volume, (1.7, 2.0, 3.1)), 0.25, rtol=1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (0.9, 1.3, 2.5)])
def test_a_blob_keeps_its_place_in_mm(spacing: tuple[float, float, float]) -> None:
    volume = np.zeros(FIELD_OF_VIEW_MM, dtype=np.float32)
    volume[30:34, 100:108, 60:62] = 1
    sampled = voxel_means(volume, spacing)
    assert sampled.shape == output_shape(spacing)
    places = np.indices(sampled.shape).reshape(3, -1)
    center = (places * sampled.ravel()).sum(axis=1) / sampled.sum()
    position = scan_affine(spacing)[:3, :3] @ center + scan_affine(spacing)[:3, 3]
    np.testing.assert_allclose(position, [31.5 - 71.5, 103.5 - 87.5, 60.5 - 71.5], atol=0.3)
