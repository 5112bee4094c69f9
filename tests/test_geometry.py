import numpy as np
import pytest

from medssl.geometry import Grid


def test_facts_of_an_oblique_grid(affine_oblique):
    grid = Grid((10, 12, 14), affine_oblique)
    assert grid.spacing == pytest.approx((2.0, 1.8, 2.2))
    assert grid.axcodes == "LAS"
    assert grid.voxel_ml == pytest.approx(2.0 * 1.8 * 2.2 / 1000)
    assert not grid.is_sheared()


def test_equal_grids_do_not_differ(affine_oblique):
    grid = Grid((10, 12, 14), affine_oblique)
    assert grid.difference(Grid((10, 12, 14), affine_oblique + 1e-7)) is None


@pytest.mark.parametrize(
    ("shape", "change", "words"),
    [
        ((10, 12, 15), {}, "shape"),
        ((10, 12, 14), {(0, 0): 1.1}, "spacing"),
        ((10, 12, 14), {(0, 0): -1.0}, "orientation LAS against RAS"),
        ((10, 12, 14), {(0, 3): 2.5}, "2.50 mm apart"),
    ],
)
def test_differences_are_named(shape, change, words):
    other = np.eye(4)
    for place, value in change.items():
        other[place] = value
    assert words in Grid((10, 12, 14), np.eye(4)).difference(Grid(shape, other))


def test_shear_is_seen():
    affine = np.eye(4)
    affine[0, 1] = 0.2
    assert Grid((4, 4, 4), affine).is_sheared()
