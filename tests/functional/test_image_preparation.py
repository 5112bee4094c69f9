"""Images are prepared without torch as they are with it."""

import numpy as np
import pytest
from pictures import blocks

from medssl.errors import InputError
from medssl.functional.image_preparation import prepare_image, resampling
from medssl.transforms.classification import image_preprocessing


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize(
    ("shape", "dtype", "channels", "white"),
    [
        ((40, 61, 3), np.uint8, 3, None),
        ((19, 23, 1), np.uint8, 1, None),
        ((130, 97, 3), np.uint8, 1, None),
        ((300, 28, 1), np.uint8, 3, None),
        ((64, 64, 1), np.uint16, 3, 4095),
        ((64, 50, 1), np.uint16, 1, None),
        ((33, 47, 2), np.float32, 2, None),
        ((40, 40, 1), np.bool_, 1, None),
        ((28, 28, 3), np.uint8, 3, None),
    ],
)
def test_it_prepares_images_as_training_does(interpolation, fit, shape, dtype, channels, white):
    image = blocks(shape, np.float32 if dtype == np.bool_ else dtype)
    if dtype == np.float32:
        image = 3 * image - 1
    if dtype == np.bool_:
        image = image > 0.5
    expected = image_preprocessing(28, channels, interpolation, fit=fit, white=white)(image).numpy()
    found = prepare_image(image, 28, channels, interpolation, fit=fit, white=white)
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1  # halves are rounded up or down
    assert (difference > 0).mean() < 0.01
    if shape == (28, 28, 3):
        assert not difference.any()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("before", "after"), [(5, 20), (20, 5), (7, 7), (100, 3)])
def test_a_constant_stays_and_a_slope_keeps_its_middle(interpolation, before, after):
    matrix = resampling(before, after, interpolation)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    slope = matrix @ np.arange(before)
    assert slope.mean() == pytest.approx((before - 1) / 2, abs=1e-4)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 0, 1)), np.full((8, 8, 1), np.nan), np.zeros((8, 8, 1), complex),
     np.zeros((8, 8, 2), np.uint8)],
    ids=["two axes", "empty", "nan", "complex", "two channels"],
)  # fmt: skip
def test_what_is_no_image_for_a_network_is_refused_as_in_training(image):
    messages = []
    for prepare in (
        image_preprocessing(8, 3),
        lambda x: prepare_image(x, 8, 3, "bilinear", fit="crop", white=None),
    ):
        with pytest.raises(InputError) as refusal:
            prepare(image)
        messages.append(str(refusal.value))
    assert messages[0] == messages[1]
