"""Volumes in files are the volumes they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from monai.data import MetaTensor

from medssl.errors import OutputError
from medssl.transforms import CropDataset, VolumeStore
from medssl.transforms.masking import plain


def scan(number):
    generator = torch.Generator().manual_seed(number)
    image = MetaTensor(torch.rand(2, 32, 32, 32, generator=generator), affine=2 * torch.eye(4))
    return {"subject": f"sub-{number}", "image": image, "mask": torch.ones(1, 32, 32, 32, dtype=torch.uint8)}


def test_scans_beyond_the_limit_are_in_files_and_the_same():
    store = VolumeStore(limit=2 * scan(0)["image"].nbytes)
    kept = [store.keep(scan(number)) for number in range(4)]
    assert store.held == store.limit
    assert store.mapped == 2  # images; the masks of 32 KiB stay
    for number, sample in enumerate(kept):
        wanted = scan(number)
        assert sample["subject"] == wanted["subject"]
        assert torch.equal(plain(sample["image"]), plain(wanted["image"]))
        assert torch.equal(sample["image"].affine, wanted["image"].affine)
        assert torch.equal(sample["mask"], wanted["mask"])


def test_without_a_limit_all_stay_in_memory():
    store, sample = VolumeStore(), scan(0)
    assert store.keep(sample)["image"] is sample["image"]
    assert store.mapped == 0


def test_no_file_is_left_and_writing_is_private(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kept = VolumeStore(limit=0).keep({"image": torch.zeros(2, 64, 64, 64)})["image"]
    assert not list(tmp_path.iterdir())
    kept[:] = 1
    assert kept.all()


def test_a_full_disk_is_said(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(OutputError, match="No space left on device") as caught:
        VolumeStore(limit=0).keep(scan(0))
    assert "TMPDIR" in str(caught.value)


class DoubledCorner:
    """An augmentation."""

    def set_random_state(self, seed):
        self.seed = seed

    def __call__(self, sample):
        return {"image": sample["image"][:, 3:11, 3:11, 3:11] * 2}


def crops(store):
    data = [{"number": number} for number in range(3)]
    made = CropDataset(
        data,
        lambda item: scan(item["number"]),
        DoubledCorner(),
        length=6,
        seed=0,
        keys=("image",),
        store=store,
    )
    return [made[number]["image"] for number in range(6)]


def test_crops_are_the_same():
    store = VolumeStore(limit=0)
    for inside, mapped in zip(crops(None), crops(store), strict=True):
        assert torch.equal(inside, mapped)
    assert store.mapped == 3


def test_the_bundle_keeps_both_kinds_of_scans_in_one_store():
    bundle = Path(__file__).parents[2] / "bundles" / "infant_brain_segmentation"
    told = yaml.safe_load((bundle / "configs" / "train.yaml").read_text())["train"]
    assert told["volumes"] == {"_target_": "medssl.transforms.VolumeStore", "limit": "@cache_bytes"}
    assert told["dataset"]["store"] == told["unlabeled"]["dataset"]["store"] == "@train#volumes"
