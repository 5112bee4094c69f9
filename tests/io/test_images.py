import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medssl.errors import ImageError, InputError
from medssl.io import images
from medssl.io.images import is_image, read_image

Save = Callable[..., Path]


@pytest.fixture
def color(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Noise, so that nothing is symmetric or equal in two channels."""
    return rng.integers(0, 256, (12, 10, 3), np.uint8)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write an array or a Pillow image under a name that says how."""

    def write(name: str, data: NDArray | Image.Image, **options: object) -> Path:
        path = tmp_path / name
        image = data if isinstance(data, Image.Image) else Image.fromarray(data)
        image.save(path, **options)
        return path

    return write


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.TIFF"])
def test_color_comes_back_as_it_was(save: Save, color: NDArray, name: str) -> None:
    found = read_image(save(name, color))
    np.testing.assert_array_equal(found, color)
    assert (found.dtype, found.flags.writeable, found.flags.c_contiguous) == (np.uint8, True, True)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_gray_stays_one_channel(save: Save, color: NDArray, name: str) -> None:
    np.testing.assert_array_equal(read_image(save(name, color[..., 0])), color[..., :1])


def test_jpeg_is_near_to_what_was_saved(save: Save) -> None:
    smooth = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8) * 8
    found = read_image(save("a.jpg", smooth, quality=95))
    assert found.shape == (16, 16, 1)
    assert np.abs(found[..., 0].astype(int) - smooth).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_gray_of_16_bits_keeps_them(save: Save, rng: np.random.Generator, name: str) -> None:
    deep = rng.integers(0, 65536, (9, 8), np.uint16)
    found = read_image(save(name, deep))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[..., 0], deep)


def test_one_bit_becomes_gray(save: Save) -> None:
    bits = np.eye(8, dtype=bool)
    np.testing.assert_array_equal(read_image(save("a.png", bits))[..., 0], np.eye(8, dtype=np.uint8) * 255)


def test_a_palette_becomes_rgb(save: Save, color: NDArray) -> None:
    few = color // 128 * 255
    image = Image.fromarray(few).quantize(8)
    np.testing.assert_array_equal(read_image(save("a.png", image)), few)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_alpha_that_hides_nothing_is_dropped(save: Save, color: NDArray, name: str) -> None:
    opaque = np.full((12, 10, 1), 255, np.uint8)
    np.testing.assert_array_equal(read_image(save(name, np.concatenate([color, opaque], 2))), color)
    gray = np.concatenate([color[..., :1], opaque], 2)
    np.testing.assert_array_equal(read_image(save(f"gray-{name}", gray)), color[..., :1])


def test_a_transparent_color_that_no_pixel_has_is_dropped(save: Save, color: NDArray) -> None:
    gray = np.maximum(color[..., 0], 1)
    np.testing.assert_array_equal(read_image(save("a.png", gray, transparency=0))[..., 0], gray)
    np.testing.assert_array_equal(
        read_image(save("b.png", gray.astype(np.uint16), transparency=0))[..., 0], gray
    )


@pytest.mark.parametrize(
    ("image", "share"),
    [
        (Image.new("RGBA", (10, 10), (9, 9, 9, 254)), "100 %"),
        (Image.new("LA", (10, 10), (9, 0)), "100 %"),
        (
            Image.fromarray(
                np.pad(np.zeros((9, 10, 4), np.uint8), ((1, 0), (0, 0), (0, 0)), constant_values=255)
            ),
            "90 %",
        ),
    ],
)
def test_transparency_is_refused(save: Save, image: Image.Image, share: str) -> None:
    with pytest.raises(ImageError, match=f"transparent in {share}.*background"):
        read_image(save("a.png", image))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_transparent_gray_level_is_refused(save: Save, dtype: type) -> None:
    with pytest.raises(ImageError, match=r"transparent in 1\.56 %"):
        read_image(save("a.png", np.arange(64, dtype=dtype).reshape(8, 8), transparency=7))


def test_a_transparent_entry_of_a_palette_is_refused(save: Save, color: NDArray) -> None:
    image = Image.fromarray(color).quantize(8)
    with pytest.raises(ImageError, match="is transparent in"):
        read_image(save("a.png", image, transparency=3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"), [(".png", {}), (".jpg", {}), (".tif", {}), (".tif", {"compression": "tiff_lzw"})]
)
def test_the_orientation_of_the_camera_is_applied(
    save: Save, orientation: int, suffix: str, options: dict
) -> None:
    """The eight orientations of EXIF 2.3, each written as what has to be done to the stored image."""
    stored = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((8, 8), np.uint8))
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: stored[::-1].T,
        7: stored[::-1, ::-1].T,
        8: stored.T[::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read_image(save(f"a{suffix}", stored, exif=exif, **options))[..., 0].astype(int)
    assert found.shape == turned.shape
    assert np.abs(found - turned).max() <= (3 if suffix == ".jpg" else 0)


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (np.arange(64, dtype=np.uint8).reshape(8, 8), np.uint8),
        (np.arange(64, dtype=">u2").reshape(8, 8) * 1000, np.uint16),
        (np.arange(320, dtype=np.float64).reshape(8, 8, 5) / 7, np.float32),
        (np.arange(64, dtype=np.int32).reshape(8, 8) - 1000, np.float32),
    ],
)
def test_arrays_keep_their_values(tmp_path: Path, stored: NDArray, dtype: type) -> None:
    np.save(tmp_path / "a.npy", stored)
    found = read_image(tmp_path / "a.npy")
    assert (found.dtype, found.ndim) == (dtype, 3)
    np.testing.assert_array_equal(found.reshape(stored.shape), stored.astype(dtype))


def test_an_array_of_truth_values_becomes_black_and_white(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(8, dtype=bool))
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy")[..., 0], 255 * np.eye(8))


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (np.full((8, 8), np.nan), "64 values that are not finite"),
        (np.full((8, 8), 1e300), "64 values that are not finite"),
        (np.zeros((8, 8), complex), "holds complex128"),
        (np.zeros((8, 8, 64)), r"shape \(8, 8, 64\).*channels last"),
        (np.zeros((8,)), r"shape \(8,\)"),
        (np.zeros((3, 64, 64, 3)), r"shape \(3, 64, 64, 3\)"),
        (np.zeros((7, 64)), "7 x 64 pixels; expected at least 8"),
        (np.array([{"code": 1}] * 8), "no complete NPY image"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path: Path, stored: NDArray, words: str) -> None:
    np.save(tmp_path / "a.npy", stored, allow_pickle=True)
    with pytest.raises(ImageError, match=words):
        read_image(tmp_path / "a.npy")


def test_cmyk_is_refused(save: Save) -> None:
    with pytest.raises(ImageError, match=r"CMYK colors.*Export it as RGB"):
        read_image(save("a.jpg", Image.new("CMYK", (10, 10))))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_of_32_bits_are_refused(save: Save, mode: str) -> None:
    with pytest.raises(ImageError, match=r"32 bits.*\.npy"):
        read_image(save("a.tif", Image.new(mode, (10, 10))))


def test_color_of_16_bits_is_refused_before_pillow_cuts_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(8, 8, bits=16, color_type=2, row=b"\0" + bytes(8 * 6)))
    with pytest.raises(ImageError, match="color or alpha of 16 bits"):
        read_image(tmp_path / "a.png")


def test_gray_of_16_bits_with_white_as_0_is_refused(save: Save) -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8)
    with pytest.raises(ImageError, match="white as 0"):
        read_image(save("a.tif", deep, tiffinfo={262: 0}))


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_pages_and_animations_are_refused(save: Save, color: NDArray, name: str) -> None:
    first, second = Image.fromarray(color), Image.fromarray(255 - color)
    with pytest.raises(ImageError, match="holds 2 pages or frames; expected one"):
        read_image(save(name, first, save_all=True, append_images=[second]))


@pytest.mark.parametrize("shape", [(7, 20), (20, 7), (1, 1)])
def test_tiny_images_are_refused(save: Save, shape: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{shape[0]} x {shape[1]} pixels; expected at least 8 a side"):
        read_image(save("a.png", np.zeros(shape, np.uint8)))


@pytest.mark.parametrize(
    ("height", "width", "words"),
    [
        (10_000, 10_001, "10000 x 10001 pixels"),
        (30_000, 30_000, "far too many pixels"),
    ],
)
def test_huge_images_are_refused_by_their_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int, words: str
) -> None:
    """The first would decode with a warning; neither has pixels, so decoding would say "truncated"."""
    (tmp_path / "a.png").write_bytes(_png(height, width))
    with pytest.raises(ImageError, match=f"{words}; expected 100 megapixels at most"):
        read_image(tmp_path / "a.png")


def test_a_huge_array_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "LARGEST_AREA", 10_000)
    np.save(tmp_path / "a.npy", np.zeros((101, 100), np.uint8))
    with pytest.raises(ImageError, match="101 x 100 pixels"):
        read_image(tmp_path / "a.npy")


def test_an_image_at_which_pillow_warns_is_read_in_silence(
    save: Save, color: NDArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save("a.png", color)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.warns(Image.DecompressionBombWarning), path.open("rb") as stream:
        Image.open(stream)
    assert read_image(path).shape == (12, 10, 3)


def test_threads_keep_warnings_back_and_give_them_back(
    save: Save, color: NDArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save("a.png", color)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    errors = []

    def read() -> None:
        try:
            for _ in range(20):
                read_image(path)
        except Warning as error:
            errors.append(error)

    before = list(warnings.filters)
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert warnings.filters == before


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png cannot be opened: No such file"):
        read_image(tmp_path / "a.png")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageError, match=r"a\.png is empty \(0 bytes\)"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_a_file_that_was_cut_off_is_refused(save: Save, color: NDArray, suffix: str) -> None:
    """D24: what cannot be read is never an image of zeros."""
    path = save(f"a{suffix}", np.kron(color, np.ones((8, 8, 1), np.uint8)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"is no complete \w+ image \(.*Copy or export it again"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"hello, this is text", "no image that is known"), (b"GIF89a" + bytes(40), "holds GIF; expected PNG")],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=words):
        read_image(tmp_path / "a.png")


def test_a_suffix_that_contradicts_the_content_is_refused(save: Save, color: NDArray) -> None:
    path = save("a.jpg", color, format="PNG")
    with pytest.raises(
        ImageError, match=r"a\.jpg holds a PNG image; its suffix says JPEG\. Rename it to a\.png"
    ):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, trust_suffix=False), color)


def test_a_name_without_suffix_promises_nothing(save: Save, color: NDArray) -> None:
    np.testing.assert_array_equal(read_image(save("IM0001", color, format="PNG")), color)


@pytest.mark.parametrize(
    ("name", "yes"), [("a.JPG", True), ("a.npy", True), ("a.txt", False), ("png", False)]
)
def test_images_are_known_by_their_suffix(name: str, yes: bool) -> None:
    assert is_image(name) is yes


def _png(height: int, width: int, *, bits: int = 8, color_type: int = 0, row: bytes | None = None) -> bytes:
    """Build a PNG of a header and, if a row is given, that row again and again."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    stream = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    stream.seek(0, io.SEEK_END)
    stream.write(chunk(b"IHDR", header))
    stream.write(chunk(b"IDAT", zlib.compress((row or b"") * height)))
    stream.write(chunk(b"IEND", b""))
    return stream.getvalue()
