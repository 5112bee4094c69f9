from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from medssl.io.image_cohort import read_image_cohort

Script = Callable[..., None]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four digits for training and two for testing; 10 stands for 0."""
    (tmp_path / "source").mkdir()
    rng = np.random.default_rng(0)
    for name, labels in (("train", [1, 10, 2, 10]), ("test", [1, 10])):
        images = rng.integers(0, 256, (32, 32, 3, len(labels)), np.uint8)
        savemat(tmp_path / f"source/{name}_32x32.mat", {"X": images, "y": np.array(labels)[:, None]})
    return tmp_path / "source"


def test_ten_is_zero(script: Script, source: Path, tmp_path: Path) -> None:
    script("svhn", source, tmp_path / "out", "--partial")
    cohort = read_image_cohort(tmp_path / "out")
    assert [item.label for item in cohort.training] == ["1", "0", "2", "0"]
    assert [item.label for item in cohort.test] == ["1", "0"]
    expected = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)[..., 2]
    with Image.open(cohort.training[2].path) as image:
        np.testing.assert_array_equal(np.array(image), expected)


def test_other_counts_are_refused(script: Script, source: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"images 6 instead of 99289.*train/0 2 instead of 4948"):
        script("svhn", source, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"X": np.zeros((32, 32, 3, 2), np.uint8)}, r"no readable \.mat file with X and y"),
        ({"X": np.zeros((32, 32, 3, 2)), "y": np.ones(2)}, "float64 and 2 labels; expected"),
        ({"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones(3)}, "uint8 and 3 labels; expected"),
    ],
)
def test_other_contents_are_refused(
    script: Script, source: Path, tmp_path: Path, content: dict, words: str
) -> None:
    savemat(source / "train_32x32.mat", content)
    with pytest.raises(SystemExit, match=words):
        script("svhn", source, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"no matlab" * 50])
def test_damaged_files_are_refused(script: Script, source: Path, tmp_path: Path, content: bytes) -> None:
    (source / "train_32x32.mat").write_bytes(content)
    with pytest.raises(SystemExit, match=r"no readable \.mat file"):
        script("svhn", source, tmp_path / "out")
