import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medssl.errors import ImageError
from medssl.io.dicom import windowed
from medssl.io.image_cohort import find_images
from medssl.io.images import read_image

pydicom = pytest.importorskip("pydicom")

STORED = np.arange(80, dtype=np.uint16).reshape(8, 10) * 40
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write one DICOM file of 12 bits; None leaves a field out."""

    def make(name: str = "a.dcm", pixels: np.ndarray = STORED, **fields: object) -> Path:
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["test"])
        dataset = pydicom.dataset.FileDataset(str(tmp_path / name), {}, file_meta=meta, preamble=bytes(128))
        bits = 8 * pixels.dtype.itemsize
        facts = {
            "Rows": pixels.shape[-2] if pixels.ndim == 2 else pixels.shape[0],
            "Columns": pixels.shape[-1] if pixels.ndim == 2 else pixels.shape[1],
            "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
            "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
            "BitsAllocated": bits,
            "BitsStored": 12 if bits == 16 else 8,
            "HighBit": 11 if bits == 16 else 7,
            "PixelRepresentation": 0,
            "PlanarConfiguration": None if pixels.ndim == 2 else 0,
            "PixelData": pixels.tobytes(),
        } | fields
        for field, value in facts.items():
            if value is not None:
                setattr(dataset, field, value)
        dataset.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return make


@pytest.mark.parametrize("stored", [STORED, (STORED // 16).astype(np.uint8)])
def test_stored_values_come_back_as_they_are(write: Write, stored: np.ndarray) -> None:
    found = read_image(write(pixels=stored))
    assert (found.dtype, found.shape) == (stored.dtype, (8, 10, 1))
    np.testing.assert_array_equal(found[..., 0], stored)
    inverted = read_image(write(pixels=stored, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted[..., 0], (4095 if stored.dtype == np.uint16 else 255) - stored)


def test_a_file_without_a_suffix_is_found_and_read(write: Write, tmp_path: Path) -> None:
    file = write("IM0001")
    assert [item.path for item in find_images(tmp_path)] == [file]
    np.testing.assert_array_equal(read_image(file)[..., 0], STORED)


def test_slope_and_intercept_are_applied(write: Write) -> None:
    found = read_image(write(RescaleSlope="2", RescaleIntercept="-1024"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 0], STORED.astype(float) * 2 - 1024)


def test_the_first_window_is_applied_after_slope_and_intercept(write: Write) -> None:
    path = write(
        RescaleSlope="1", RescaleIntercept="-1000", WindowCenter=["40", "600"], WindowWidth=["401", "9"]
    )
    expected = np.empty(STORED.shape)
    for place, value in np.ndenumerate(STORED.astype(float) - 1000):
        expected[place] = min(max((value - 39.5) / 400 + 0.5, 0), 1)
    np.testing.assert_allclose(read_image(path)[..., 0], expected, atol=1e-6)
    assert 0 < (expected == 0).sum() < (expected == 1).sum() < expected.size


def test_more_is_brighter_in_monochrome1_too(write: Write) -> None:
    path = write(PhotometricInterpretation="MONOCHROME1", RescaleSlope="2", RescaleIntercept="-1000")
    np.testing.assert_array_equal(read_image(path)[..., 0], 2 * (4095 - STORED.astype(float)) - 1000)
    path = write(PhotometricInterpretation="MONOCHROME1", WindowCenter="1000", WindowWidth="2000")
    plain = write("b.dcm", WindowCenter="1000", WindowWidth="2000")
    np.testing.assert_allclose(read_image(path), 1 - read_image(plain), atol=1e-6)


def test_signed_monochrome1_is_inverted_about_its_own_range(write: Write) -> None:
    signed = STORED.astype(np.int16) - 1600
    path = write(pixels=signed, PixelRepresentation=1, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path)[..., 0], -1.0 - signed)


def test_color_comes_back_as_it_was(write: Write) -> None:
    color = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    np.testing.assert_array_equal(read_image(write(pixels=color)), color)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_follow_the_standard(function: str) -> None:
    """The formulas of PS3.3 C.11.2 value by value."""
    values = np.linspace(-100, 200, 31)
    center, width = 40.0, 80.0
    for value, found in zip(values, windowed(values, center, width, function), strict=True):
        if function == "SIGMOID":
            expected = 1 / (1 + np.exp(-4 * (value - center) / width))
        else:
            c, w = (center - 0.5, width - 1) if function == "LINEAR" else (center, width)
            expected = 0 if value <= c - w / 2 else 1 if value > c + w / 2 else (value - c) / w + 0.5
        assert found == pytest.approx(expected, abs=1e-12)


def test_a_window_of_one_value_is_a_threshold() -> None:
    np.testing.assert_array_equal(windowed(np.array([9.0, 10.0, 11.0]), 10.0, 1.0), [0, 1, 1])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"NumberOfFrames": 3}, "3 frames; expected one"),
        ({"Rows": None, "Modality": "SR"}, r"without an image \(it holds SR\)"),
        ({"PixelData": None}, "no complete DICOM image"),
        ({"PixelData": bytes(20)}, "no complete DICOM image"),
        ({"Rows": 4}, "4 x 10 pixels; expected at least 8"),
        ({"Rows": 20_000, "Columns": 20_000}, "20000 x 20000 pixels; expected 100 megapixels"),
    ],
)
def test_what_is_no_single_image_is_refused(write: Write, fields: dict, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        read_image(write(**fields))


def test_a_palette_is_refused(write: Write) -> None:
    with pytest.raises(ImageError, match="PALETTE COLOR colors of uint16"):
        read_image(write(PhotometricInterpretation="PALETTE COLOR"))


def test_a_file_without_suffix_is_known_by_its_preamble(write: Write) -> None:
    assert read_image(write("1.2.840.1")).shape == (8, 10, 1)


def test_without_pydicom_the_cure_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"takes pydicom, which is not installed\. Run: pip install pydicom"):
        read_image(path)
