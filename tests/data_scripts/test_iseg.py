from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from image_trees import hash_of_tree

from medssl.io.cohort import read_cohort
from medssl.io.nifti import read_labels, read_volume
from medssl.labels import BRAIN_TISSUES

Script = Callable[..., None]
RAW = np.array([0, 10, 150, 250], np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """One labeled subject and one of another size without label, in the challenge's folders."""
    rng = np.random.default_rng(0)
    for place, shape in (("Training/subject-1", (9, 8, 7)), ("Testing/subject-23", (11, 8, 7))):
        raw = RAW[rng.integers(0, 4, shape)]
        for name in ("T1", "T2"):
            _save(tmp_path / f"source/{place}-{name}.hdr", (raw * 3).astype(np.int16))
        if "Training" in place:
            _save(tmp_path / f"source/{place}-label.hdr", raw)
    return tmp_path / "source"


def _save(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.AnalyzeImage(data[..., None], np.diag([-1.0, 1.0, 1.0, 1.0])).to_filename(path)


def test_the_same_cohort_comes_back_as_bids(script: Script, source: Path, tmp_path: Path) -> None:
    before = hash_of_tree(source)
    script("iseg", source, tmp_path / "out", "--partial")
    assert hash_of_tree(source) == before
    cohort, raw = read_cohort(tmp_path / "out"), read_cohort(source)
    assert [subject.key for subject in (*cohort.training, *cohort.unlabeled)] == ["sub-01", "sub-23"]
    for new, old in zip(cohort.all(), raw.all(), strict=True):
        for one, other in zip(new.images, old.images, strict=True):
            written, stored = read_volume(one, ""), read_volume(other, "")
            np.testing.assert_array_equal(written.data, stored.data)
            np.testing.assert_array_equal(written.grid.affine, stored.grid.affine)
    (new,), (old,) = cohort.training, raw.training
    labels = read_labels(new.label, "", BRAIN_TISSUES, new.encoding)
    expected = read_labels(old.label, "", BRAIN_TISSUES, "iseg")
    np.testing.assert_array_equal(labels.data, expected.data)


def test_the_folders_are_bids_without_the_datalist_too(script: Script, source: Path, tmp_path: Path) -> None:
    script("iseg", source, tmp_path / "out", "--partial")
    (tmp_path / "out/datalist.json").unlink()
    cohort = read_cohort(tmp_path / "out")
    assert (cohort.layout, len(cohort.training), len(cohort.unlabeled)) == ("bids", 1, 1)
    assert cohort.table == BRAIN_TISSUES


@pytest.mark.parametrize(("challenge", "unlabeled"), [("2017", 13), ("2019", 29)])
def test_other_counts_are_refused(
    script: Script, source: Path, tmp_path: Path, challenge: str, unlabeled: int
) -> None:
    with pytest.raises(SystemExit, match=f"training 1 instead of 10, unlabeled 1 instead of {unlabeled}"):
        script("iseg", source, tmp_path / "out", "--challenge", challenge)
    assert not (tmp_path / "out").exists()


def test_other_folders_are_refused(script: Script, source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=r"holds no subject-1-T1\.hdr"):
        script("iseg", tmp_path / "empty", tmp_path / "out")
    (source / "Training").joinpath("subject-1-T1.hdr").replace(source / "subject-1-T1.hdr")
    (source / "Training/subject-1-T2.hdr").touch()
    _save(source / "Training/subject-1-T1.hdr", np.zeros((9, 8, 7), np.int16))
    with pytest.raises(SystemExit, match="several challenges"):
        script("iseg", source, tmp_path / "out")
