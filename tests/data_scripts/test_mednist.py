import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_trees import noise, save_picture
from PIL import Image

from medssl.io.image_cohort import read_image_cohort

Script = Callable[..., None]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Two classes with five different images each, one of them stored twice, and a file of text."""
    folder = tmp_path / "tree/MedNIST"
    for number in range(10):
        save_picture(folder / ("Hand", "CXR")[number % 2] / f"{number:06d}.jpeg", number)
    (folder / "Hand/copy.jpeg").write_bytes((folder / "Hand/000000.jpeg").read_bytes())
    (folder / "README.md").write_text("text")
    (folder / "Hand/._000000.jpeg").write_text("text")
    with tarfile.open(tmp_path / "MedNIST.tar.gz", "w:gz") as archive:
        archive.add(folder, "MedNIST")
    return tmp_path / "MedNIST.tar.gz"


def test_an_archive_is_read_without_unpacking_it(script: Script, archive: Path, tmp_path: Path) -> None:
    script("mednist", archive, tmp_path / "out", "--partial")
    cohort = read_image_cohort(tmp_path / "out")
    assert (cohort.classes, len(cohort.training), len(cohort.test)) == (("CXR", "Hand"), 8, 2)
    with Image.open(tmp_path / "out/images/Hand/000004.png") as image:
        found = np.array(image)
    assert (found.shape, found.dtype) == ((8, 9), np.uint8)
    assert np.corrcoef(found.ravel(), noise(4).ravel())[0, 1] > 0.9


def test_a_folder_gives_the_same_images(script: Script, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "tree/MedNIST/Hand/._000000.jpeg").unlink()
    script("mednist", tmp_path / "tree/MedNIST", tmp_path / "out", "--partial")
    cohort = read_image_cohort(tmp_path / "out")
    assert len(cohort.training) + len(cohort.test) == 10


def test_fewer_images_than_published_are_refused(script: Script, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="images 10 instead of 58514, classes 2 instead of 6"):
        script("mednist", archive, tmp_path / "out")


@pytest.mark.parametrize("content", [b"no archive", None])
def test_what_is_no_archive_is_refused(script: Script, tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(SystemExit, match="is no complete archive of JPEG images"):
        script("mednist", tmp_path / "a.tar", tmp_path / "out")
