import numpy as np
import pytest
import torch
from PIL import Image

from medssl.errors import ConfigError, InputError
from medssl.functional.image_preparation import white_of
from medssl.transforms import VIEWS, image_preprocessing


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _smooth(rng, height, width, channels):
    """Return a textured image whose resized versions stay within 8 bits."""
    small = Image.fromarray(rng.integers(60, 196, (9, 7, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))[:, :, :channels]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_an_image_of_the_right_size_passes_bit_for_bit(rng, channels, interpolation, fit):
    image = rng.integers(0, 256, (17, 17, channels), dtype=np.uint8)
    prepared = image_preprocessing(17, channels, interpolation, fit=fit)(image)
    assert prepared.dtype == torch.uint8
    assert torch.equal(prepared, torch.from_numpy(image).permute(2, 0, 1))


def test_the_array_may_be_read_only_and_is_not_changed(rng):
    image = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)))[..., None]
    before = image.copy()
    prepared = image_preprocessing(8, 1)(image)
    prepared += 1
    assert not image.flags.writeable
    assert (image == before).all()


def test_gray_is_repeated(rng):
    image = rng.integers(0, 256, (9, 9, 1), dtype=np.uint8)
    prepared = image_preprocessing(9, 3)(image)
    assert prepared.shape == (3, 9, 9)
    assert all(torch.equal(channel, torch.from_numpy(image[..., 0])) for channel in prepared)


def test_color_becomes_luminance_as_in_pillow(rng):
    image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).convert("L"), np.int64)
    assert np.abs(image_preprocessing(40, 1)(image)[0].numpy() - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 257, 4096, 65535], [0, 1, 16, 255]),  # 16 bits: divided by 257
        ([0, 16, 2048, 4095], [0, 1, 128, 255]),  # 12 bits: divided by 16.06
        ([0, 1, 256, 1000], [0, 0, 16, 62]),  # still 12 bits: a dark image stays dark
        ([0, 1, 100, 255], [0, 1, 100, 255]),  # 8 bits in a 16-bit file
    ],
)
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_sixteen_bits_become_eight_by_the_depth_that_is_used(values, expected, dtype):
    image = np.array(values, dtype).reshape(2, 2, 1)
    assert image_preprocessing(2, 1)(image).flatten().tolist() == expected


def test_sixteen_bits_of_a_cohort_share_their_white():
    """A dark image stays darker than its like; what is above white is white; 8 bits are left alone."""
    dark, bright = np.array([0, 100, 200, 255]), np.array([0, 2000, 4095, 5000])
    for values, alone, together in (
        (dark, [0, 100, 200, 255], [0, 6, 12, 16]),
        (bright, [0, 8, 16, 19], [0, 125, 255, 255]),
    ):
        image = values.astype(np.uint16).reshape(2, 2, 1)
        assert image_preprocessing(2, 1)(image).flatten().tolist() == alone
        assert image_preprocessing(2, 1, white=4095)(image).flatten().tolist() == together
    eight = dark.astype(np.uint8).reshape(2, 2, 1)
    assert image_preprocessing(2, 1, white=4095)(eight).flatten().tolist() == dark.tolist()


@pytest.mark.parametrize(
    ("greatest", "white"), [(0, 255), (255, 255), (256, 4095), (4095, 4095), (4096, 65535)]
)
def test_the_least_depth_that_holds_a_value(greatest, white):
    assert white_of(greatest) == white


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([0, 0.2, 0.5, 0.6]), [0, 51, 128, 153]),  # in [0, 1]: taken as it is
        (np.float64([-1000, 0, 500, 1000]), [0, 128, 191, 255]),  # else its own range
        (np.int16([-100, -100, 100, 155]), [0, 0, 200, 255]),
        (np.float32([7, 7, 7, 7]), [0, 0, 0, 0]),
        (np.array([True, False, True, False]), [255, 0, 255, 0]),
    ],
)
def test_other_types_become_eight_bits_by_a_stated_rule(values, expected):
    assert image_preprocessing(2, 1)(values.reshape(2, 2, 1)).flatten().tolist() == expected


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), [(60, 60, 23), (97, 97, 32), (20, 20, 45)])
def test_resizing_agrees_with_pillow(rng, interpolation, height, width, size):
    image = _smooth(rng, height, width, 3)
    resample = Image.Resampling[interpolation.upper()]
    expected = np.asarray(Image.fromarray(image).resize((size, size), resample), np.int64)
    prepared = image_preprocessing(size, 3, interpolation, fit="squash")(image)
    assert np.abs(prepared.permute(1, 2, 0).numpy() - expected).max() <= 1


def test_fine_patterns_average_out():
    image = np.zeros((64, 64, 1), np.uint8)
    image[::2, ::2] = image[1::2, 1::2] = 255
    prepared = image_preprocessing(16, 1)(image)[0, 2:-2, 2:-2].int()
    assert (prepared - 128).abs().max() <= 2


def test_crop_keeps_the_middle_and_its_aspect_ratio():
    image = np.zeros((20, 60, 1), np.uint8)
    image[:, :20] = image[:, 40:] = 255
    for wide in (image, image.transpose(1, 0, 2)):
        cropped = image_preprocessing(10, 1)(wide)[0]
        assert int(cropped[1:-1, 1:-1].max()) == 0
    squashed = image_preprocessing(12, 1, fit="squash")(image)[0]
    assert squashed[6].tolist()[:3] == [255] * 3
    assert squashed[6].tolist()[5:7] == [0] * 2


@pytest.mark.parametrize("size", [1, 7, 33, 224])
@pytest.mark.parametrize("shape", [(30, 41), (3, 50), (1, 1), (225, 224)])
def test_any_size_comes_out_twice_the_same(rng, size, shape):
    """D18: no size is built in."""
    image = rng.integers(0, 65536, (*shape, 3), dtype=np.uint16)
    prepare = image_preprocessing(size, 3, "bicubic")
    assert prepare(image).shape == (3, size, size)
    assert torch.equal(prepare(image), prepare(image))


def test_a_view_is_taken_at_full_resolution(rng):
    image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    plain = image_preprocessing(10, 3)(image)
    flipped = image_preprocessing(10, 3, view="hflip")(image)
    assert (flipped.int() - plain.flip(2).int()).abs().max() <= 1
    early = image_preprocessing(10, 3, view="mean_blur")(image)
    late = VIEWS["mean_blur"](plain[None] / 255)[0] * 255
    assert (early - late).abs().max() > 3


@pytest.mark.parametrize(
    "options",
    [
        {"interpolation": "lanczos"},
        {"fit": "stretch"},
        {"view": "upside down"},
        {"size": 0},
        {"channels": 0},
    ],
)
def test_unknown_values_are_refused_at_once(options):
    with pytest.raises(ConfigError):
        image_preprocessing(**({"size": 8, "channels": 3} | options))


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((8, 8), np.uint8), "shape"),
        (np.zeros((0, 8, 1), np.uint8), "shape"),
        (np.zeros((8, 8, 1), complex), "complex"),
        (np.full((8, 8, 1), np.nan, np.float32), "64 pixel values"),
        (np.zeros((8, 8, 4), np.uint8), r"4 channels; the network takes 3\..*--channels 4"),
    ],
)
def test_what_is_no_image_is_refused(image, text):
    with pytest.raises(InputError, match=text):
        image_preprocessing(8, 3)(image)


def test_the_text_of_the_step_says_all_that_it_does():
    """Prepared images are kept in a file that is named after it."""
    texts = {
        repr(image_preprocessing(8, 3)),
        repr(image_preprocessing(9, 3)),
        repr(image_preprocessing(8, 1)),
        repr(image_preprocessing(8, 3, "bicubic")),
        repr(image_preprocessing(8, 3, fit="squash")),
        repr(image_preprocessing(8, 3, white=4095)),
        repr(image_preprocessing(8, 3, view="hflip")),
    }
    assert len(texts) == 7
    assert not any(" at 0x" in text for text in texts)
