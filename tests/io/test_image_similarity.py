from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from medssl.io.image_cohort import read_image_cohort
from medssl.io.image_similarity import difference_hash, similar_images
from medssl.io.images import read_image


def _blobs(seed: int) -> NDArray[np.uint8]:
    """Return smooth color patches of 40 x 48 pixels."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(40, 48, 3)), (4, 4, 0))
    return (255 * (field - field.min()) / np.ptp(field)).astype(np.uint8)


def _differing(one: NDArray, other: NDArray) -> int:
    return (difference_hash(one) ^ difference_hash(other)).bit_count()


def test_the_hash_is_that_of_a_loop() -> None:
    image = _blobs(0)
    patches = np.zeros((8, 9))
    fine = np.kron(image.astype(float).mean(2), np.ones((8, 9)))  # 320 x 432: whole pixels a patch
    for row in range(8):
        for column in range(9):
            patches[row, column] = fine[40 * row : 40 * row + 40, 48 * column : 48 * column + 48].mean()
    bits = "".join("01"[int(patches[r, c + 1] > patches[r, c])] for r in range(8) for c in range(8))
    assert difference_hash(image) == int(bits, 2)


def test_another_size_or_brightness_changes_few_bits(tmp_path: Path) -> None:
    image = _blobs(1)
    assert _differing(image, image.reshape(20, 2, 24, 2, 3).mean((1, 3))) <= 1
    assert _differing(image, (0.6 * image + 40).astype(np.uint8)) <= 1
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=75)
    assert _differing(image, read_image(tmp_path / "a.jpg")) <= 2
    assert _differing(image, _blobs(2)) > 15


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four training images, two for testing, of which one was seen in training and saved again."""
    for number, place in enumerate(("train/a/0", "train/a/1", "train/b/2", "train/b/3", "test/a/4")):
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_blobs(number)).save(path)
    (tmp_path / "test/b").mkdir()
    Image.fromarray(_blobs(3)).save(tmp_path / "test/b/5.jpg", quality=60)
    return tmp_path


def test_an_image_saved_again_is_reported(root: Path) -> None:
    (pair,) = similar_images(read_image_cohort(root))
    assert (pair.held_out.name, pair.seen.name) == ("test/b/5.jpg", "train/b/3.png")
    assert pair.bits <= 2
    assert len(similar_images(read_image_cohort(root), bits=64)) == 2


def test_blocks_give_what_one_comparison_gives(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = read_image_cohort(root)
    whole = similar_images(cohort, bits=64)
    monkeypatch.setattr("medssl.io.image_similarity._BLOCK", 1)
    assert similar_images(cohort, bits=64) == whole


def test_nothing_held_out_is_like_nothing(root: Path) -> None:
    seen = []
    cohort = read_image_cohort(root)
    assert similar_images(cohort, progress=lambda *call: seen.append(call))
    assert seen[-1][1:] == (6, 6)
    assert similar_images(type(cohort)(root, cohort.classes, training=cohort.training)) == []
