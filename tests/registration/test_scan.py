import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from medssl.errors import ConfigError, RegistrationError
from medssl.geometry import Grid
from medssl.registration import RegistrationSettings, Scan, register
from medssl.registration.scan import coarser, one_thread, prepared, resampled, to_array, to_itk, working_grid


def _blank(shape, spacing=1.0, mask=None):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    return Scan(np.zeros((1, *shape), np.float32), affine, mask)


@pytest.mark.parametrize(
    ("side", "spacing", "wanted"),
    [
        (160, 1.0, 2.0),
        (50, 1.0, 1.0),
        (20, 1.0, 1.0),
        (80, 1.0, 80 / 48),
        (60, 3.0, 3.0),
        (100, 0.5, 50 / 48),
    ],
)
def test_working_spacing_follows_size_and_never_beats_the_scan(side, spacing, wanted):
    grid = working_grid(_blank((side + 1, 9, 9), spacing), 2.0)
    assert grid.spacing == pytest.approx((wanted,) * 3)


def test_working_grid_lies_around_the_mask():
    mask = np.zeros((60, 20, 20), bool)
    mask[20:31, 8:12, 8:12] = True
    grid = working_grid(_blank(mask.shape, mask=mask), 2.0)
    assert grid.shape == (19, 12, 12)
    np.testing.assert_array_equal(grid.affine[:3, 3], (16, 4, 4))


def test_working_grid_of_a_crop_is_its_own():
    scan = _blank((12, 14, 10))
    assert scan.grid.difference(working_grid(scan, 2.0)) is None


def test_coarser_grid_has_the_same_field_of_view():
    grid = Grid((20, 33, 9), np.diag([1.0, 2.0, 0.5, 1.0]))
    half = coarser(grid, 2)
    assert half.shape == (10, 17, 8)
    for one in (0, 1):
        rims = [(g.affine @ [*(np.array(g.shape) * one - 0.5), 1])[:3] for g in (grid, half)]
        np.testing.assert_allclose(*rims, atol=1e-9)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5)])
def test_arrays_survive_the_way_through_itk(shape):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    image = to_itk(array, Grid(shape[-3:], np.diag([1.0, 2.0, 3.0, 1.0])))
    np.testing.assert_array_equal(to_array(image), array)
    assert image.GetSpacing() == (1.0, 2.0, 3.0)


def test_outside_the_field_of_view_is_zero_or_the_rim():
    image = to_itk(np.full((4, 4, 4), 7, np.float32), Grid((4, 4, 4), np.eye(4)))
    larger = Grid((8, 4, 4), np.eye(4))
    assert to_array(resampled(image, larger))[6].max() == 0
    assert to_array(resampled(image, larger, extend=True))[6].min() == 7


def test_intensities_are_brought_to_one_range_with_an_outline():
    image = np.random.default_rng(0).normal(0, 1, (2, 9, 9, 9)).astype(np.float32)
    mask = np.zeros((9, 9, 9), bool)
    mask[2:7, 2:7, 2:7] = True
    for contrast in prepared(Scan(image * mask, np.eye(4), mask)):
        assert contrast[~mask].max() == 0
        assert contrast[mask].min() == pytest.approx(0.1)
        assert contrast[mask].max() == pytest.approx(1.0)


def test_the_number_of_threads_is_put_back():
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    with one_thread():
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 1
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before
    with pytest.raises(RegistrationError):
        register(_blank((9, 9, 9)), _blank((9, 9, 9)))
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before


@pytest.mark.parametrize(
    ("image", "affine", "mask", "words"),
    [
        (np.zeros((4, 4, 4)), np.eye(4), None, "expected"),
        (np.zeros((1, 4, 4, 4)), np.eye(3), None, "expected"),
        (np.zeros((1, 4, 4, 4)), np.eye(4), np.ones((4, 4, 5), bool), "mask of shape"),
        (np.zeros((1, 4, 4, 4)), np.eye(4), np.zeros((4, 4, 4), bool), "with 0 voxels"),
        (np.full((1, 4, 4, 4), np.nan), np.eye(4), None, "NaN"),
    ],
)
def test_scans_that_cannot_be_registered_are_refused(image, affine, mask, words):
    with pytest.raises(RegistrationError, match=words):
        Scan(image.astype(np.float32), affine, mask)


@pytest.mark.parametrize(
    "wrong",
    [
        {"deformation": "elastic"},
        {"spacing_mm": 0.0},
        {"smoothing_voxels": -1.0},
        {"iterations": ()},
        {"iterations": (5, 0)},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        RegistrationSettings(**wrong)
