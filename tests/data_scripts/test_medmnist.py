from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medssl.io.image_cohort import read_image_cohort

Script = Callable[..., None]


def _arrays(shape: tuple[int, ...] = (28, 28, 3), labels: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {}
    for name, count in (("train", 6), ("val", 2), ("test", 4)):
        found[f"{name}_images"] = rng.integers(0, 256, (count, *shape), np.uint8)
        found[f"{name}_labels"] = np.tile(np.arange(count, dtype=np.uint8)[:, None] % 2, (1, labels))
    return found


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
def test_a_subset_keeps_its_splits(
    script: Script, tmp_path: Path, shape: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez_compressed(tmp_path / "ownmnist_28.npz", **_arrays(shape))
    script("medmnist", tmp_path / "ownmnist_28.npz", tmp_path / "out")
    assert "no published counts of ownmnist are known" in capsys.readouterr().err
    cohort = read_image_cohort(tmp_path / "out")
    assert [len(cohort.section(name)) for name in ("training", "validation", "test")] == [6, 2, 4]
    with Image.open(cohort.test[3].path) as image:
        np.testing.assert_array_equal(np.array(image), _arrays(shape)["test_images"][3])


@pytest.mark.parametrize("name", ["bloodmnist.npz", "bloodmnist_224.npz"])
def test_counts_are_compared_by_the_name_of_the_subset(script: Script, tmp_path: Path, name: str) -> None:
    np.savez_compressed(tmp_path / name, **_arrays())
    with pytest.raises(SystemExit, match="train 6 instead of 11959, val 2 instead of 1712, test 4 instead"):
        script("medmnist", tmp_path / name, tmp_path / "out")
    script("medmnist", tmp_path / name, tmp_path / "out", "--partial")


@pytest.mark.parametrize("change", [{"shape": (28, 28, 28)}, {"labels": 14}])
def test_volumes_and_several_labels_are_refused(script: Script, tmp_path: Path, change: dict) -> None:
    np.savez_compressed(tmp_path / "a.npz", **_arrays(**change))
    with pytest.raises(SystemExit, match="Volumes and subsets with several labels"):
        script("medmnist", tmp_path / "a.npz", tmp_path / "out")


def test_what_is_no_subset_is_refused(script: Script, tmp_path: Path) -> None:
    for content in (b"no archive", b"PK\x03\x04 cut off"):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(SystemExit, match="no readable MedMNIST file"):
            script("medmnist", tmp_path / "a.npz", tmp_path / "out")
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(SystemExit, match="no readable MedMNIST file"):
        script("medmnist", tmp_path / "a.npz", tmp_path / "out")
    np.savez(tmp_path / "a.npz", train_images=np.zeros(3))
    with pytest.raises(SystemExit, match="no readable MedMNIST file"):
        script("medmnist", tmp_path / "a.npz", tmp_path / "out")
