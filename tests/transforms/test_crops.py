import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandFlipd, RandSpatialCropd

from medssl.transforms.crops import CropDataset, StepSampler


def _volume(item):
    value = float(item["value"])
    volume = MetaTensor(torch.arange(512.0).reshape(1, 8, 8, 8) + 1000 * value)
    return {"image": volume, "label": volume.clone(), "mask": torch.ones_like(volume)}


@pytest.fixture
def dataset():
    keys = ["image", "label", "mask"]
    augmentation = Compose(
        [RandSpatialCropd(keys, roi_size=(4, 4, 4), random_size=False), RandFlipd(keys, prob=0.5)]
    )
    return CropDataset([{"value": 0}, {"value": 1}, {"value": 2}], _volume, augmentation, length=60, seed=5)


def test_a_crop_depends_on_its_number_alone(dataset):
    first = dataset[17]["image"].clone()
    _ = [dataset[n] for n in (3, 40, 2)]
    assert torch.equal(dataset[17]["image"], first)


def test_crops_differ(dataset):
    assert len({dataset[n]["image"].sum().item() for n in range(30)}) > 20


def test_every_pass_takes_each_subject_once(dataset):
    subjects = [int(dataset[n]["image"].min() // 1000) for n in range(30)]
    assert all(sorted(subjects[start : start + 3]) == [0, 1, 2] for start in range(0, 30, 3))


def test_image_and_label_are_cut_alike(dataset):
    assert all(torch.equal(dataset[n]["image"], dataset[n]["label"]) for n in range(5))


def test_another_seed_gives_other_crops(dataset):
    other = CropDataset(dataset.data, _volume, dataset.augmentation, length=60, seed=6)
    assert any(not torch.equal(dataset[n]["image"], other[n]["image"]) for n in range(5))


def test_workers_give_the_same_crops(dataset):
    def load(workers):
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=4, sampler=StepSampler(3, 4), num_workers=workers
        )
        return torch.cat([batch["image"] for batch in loader])

    assert torch.equal(load(0), load(2))


def test_sampler_goes_on_after_the_steps_done():
    sampler = StepSampler(steps=5, batch_size=2)
    everything = list(sampler)
    sampler.start_step = 3
    assert everything == list(range(10))
    assert list(sampler) == everything[6:]
    assert len(sampler) == 4


def test_processes_share_the_crops_of_a_step(monkeypatch):
    shares = []
    for rank in range(2):
        monkeypatch.setattr("medssl.transforms.crops._rank_and_world_size", lambda rank=rank: (rank, 2))
        shares.append(list(StepSampler(steps=3, batch_size=2)))
    assert shares == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]
