"""Volumes in files are the volumes they were."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medssl.transforms import CropDataset, VolumeStore
from medssl.transforms.masking import plain


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def scan(number):
    generator = torch.Generator().manual_seed(number)
    image = MetaTensor(torch.rand(2, 32, 32, 32, generator=generator), affine=2 * torch.eye(4))
    return {"subject": f"sub-{number}", "image": image, "mask": torch.ones(1, 32, 32, 32, dtype=torch.uint8)}


def files(folder):
    return sorted(folder.glob("medssl-volumes-*/*.npy"))


def test_scans_beyond_the_limit_are_in_files_and_the_same(temporary):
    size = scan(0)["image"].nbytes
    store = VolumeStore(limit=2 * size)
    kept = [store.keep(scan(number)) for number in range(4)]
    assert store.held <= store.limit
    assert len(files(temporary)) == 2  # images; the masks of 32 KiB stay
    for number, sample in enumerate(kept):
        wanted = scan(number)
        assert sample["subject"] == wanted["subject"]
        assert torch.equal(plain(sample["image"]), plain(wanted["image"]))
        assert torch.equal(sample["image"].affine, wanted["image"].affine)
        assert torch.equal(sample["mask"], wanted["mask"])


def test_without_a_limit_nothing_is_written(temporary):
    store = VolumeStore()
    sample = scan(0)
    assert store.keep(sample)["image"] is sample["image"]
    assert not list(temporary.iterdir())


def test_the_files_end_with_the_store_and_not_with_a_forked_process(temporary):
    store = VolumeStore(limit=0)
    kept = store.keep(scan(0))
    child = os.fork()
    if child == 0:
        del store, kept
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert files(temporary)
    assert float(kept["image"].sum()) > 0
    del store, kept
    gc.collect()
    assert not list(temporary.iterdir())


def test_what_is_written_to_a_mapped_volume_does_not_reach_the_file(temporary):
    store = VolumeStore(limit=0)
    kept = store.keep({"image": torch.zeros(2, 64, 64, 64)})["image"]
    (path,) = files(temporary)
    kept[:] = 1
    assert not np.load(path).any()
    assert kept.all()


def crops(store):
    def prepared(item):
        return scan(item["number"])

    def cut(sample):
        return {"image": sample["image"][:, 3:11, 3:11, 3:11] * 2}

    class Augmentation:
        def set_random_state(self, seed):
            self.seed = seed

        def __call__(self, sample):
            return cut(sample)

    data = [{"number": number} for number in range(3)]
    made = CropDataset(data, prepared, Augmentation(), length=6, seed=0, keys=("image",), store=store)
    return [made[number]["image"] for number in range(6)]


def test_crops_are_the_same(temporary):
    for inside, mapped in zip(crops(None), crops(VolumeStore(limit=0)), strict=True):
        assert torch.equal(inside, mapped)
