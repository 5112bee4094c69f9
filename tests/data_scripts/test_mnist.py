import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medssl.io.image_cohort import read_image_cohort

Script = Callable[..., None]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six digits, one file plain, the others packed."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name, count in (("train", 4), ("t10k", 2)):
        images = np.arange(count * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(count, 28, 28)
        labels = np.arange(count, dtype=np.uint8) % 2
        head = struct.pack(">BBBBIII", 0, 0, 8, 3, count, 28, 28)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
        head = struct.pack(">BBBBI", 0, 0, 8, 1, count)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return folder


def test_digits_become_images_in_their_classes(script: Script, source: Path, tmp_path: Path) -> None:
    script("mnist", source, tmp_path / "out", "--partial")
    cohort = read_image_cohort(tmp_path / "out")
    assert (cohort.classes, len(cohort.training), len(cohort.test)) == (("0", "1"), 4, 2)
    second = cohort.training[1]
    assert (second.name, second.label) == ("images/1/train-00001.png", "1")
    with Image.open(second.path) as image:
        np.testing.assert_array_equal(np.array(image).ravel(), np.arange(784, 1568).astype(np.uint8))


def test_another_content_than_the_published_is_refused(script: Script, source: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match="train-images-idx3-ubyte has another content than the published file"
    ):
        script("mnist", source, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train-labels-idx1-ubyte", None, "no readable train-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte.gz", b"\x1f\x8bno", "no readable train-images-idx3-ubyte"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x09\0", "t10k-labels-idx1-ubyte is no complete idx"),
        ("t10k-labels-idx1-ubyte", b"PNG", "t10k-labels-idx1-ubyte is no complete idx"),
        ("t10k-labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x01\0", "t10k has images of shape"),
    ],
)
def test_damaged_files_are_refused(
    script: Script, source: Path, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is None:
        (source / name).unlink()
    else:
        (source / name).write_bytes(content)
    with pytest.raises(SystemExit, match=words):
        script("mnist", source, tmp_path / "out", "--partial")
    assert not (tmp_path / "out").exists()
