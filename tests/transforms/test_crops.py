import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandFlipd, RandSpatialCropd

from medssl.errors import ConfigError
from medssl.transforms import Mixture, label_counts
from medssl.transforms.crops import CropDataset, PairedLoader, StepSampler


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


def test_registered_scans_give_their_share_of_the_crops(dataset):
    registered = [_volume({"value": 7}), _volume({"value": 8})]
    mixed = CropDataset(
        dataset.data,
        _volume,
        dataset.augmentation,
        length=200,
        seed=5,
        registered=registered,
        registered_share=0.3,
    )
    subjects = [int(mixed[n]["image"].min() // 1000) for n in range(200)]
    assert 40 <= sum(subject >= 7 for subject in subjects) <= 80
    assert set(subjects) == {0, 1, 2, 7, 8}
    own = [n for n in range(60) if subjects[n] < 7]
    assert all(torch.equal(mixed[n]["image"], dataset[n]["image"]) for n in own)
    assert torch.equal(mixed[41]["image"], mixed[41]["image"])


def test_workers_give_the_same_crops(dataset):
    def load(workers):
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=4, sampler=StepSampler(3, 4), num_workers=workers
        )
        return torch.cat([batch["image"] for batch in loader])

    assert torch.equal(load(0), load(2))


def test_a_step_of_one_crop_has_no_unlabeled_one_and_is_refused():
    with pytest.raises(ConfigError, match="no room for both"):
        StepSampler(10, 1, Mixture())
    assert StepSampler(10, 1).labeled(0) == 1
    assert StepSampler(10, 1, Mixture(ends=(0, 10), alternate=True)).unlabeled(0) == 1


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


STEPS, BATCH = 8, 4
MIXTURES = {
    "labeled only": None,
    "union": Mixture(start=3, share=0.5),
    "little": Mixture(start=0, share=0.3),
    "alternate": Mixture(start=2, ends=[2, 5, 8], alternate=True),
}


class _Numbers(CropDataset):
    """Crops that say their number, seed and nothing else."""

    def __getitem__(self, number):
        return {"image": torch.tensor([number, self.seed])}


def _numbered(seed):
    return _Numbers([{}], lambda item: item, Compose([]), length=STEPS * BATCH, seed=seed)


def _loader(mixture, start_step=0, batch_size=BATCH, num_workers=0):
    sampler = StepSampler(STEPS, batch_size, mixture)
    sampler.start_step = start_step
    return PairedLoader(_numbered(1), sampler, batch_size, _numbered(2), num_workers)


def _content(batch):
    labeled = batch["image"].tolist() if "image" in batch else []
    return labeled, batch["unlabeled"]["image"].tolist() if "unlabeled" in batch else []


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_batches_hold_both_kinds_in_their_numbers(mixture):
    loader = _loader(mixture)
    batches = list(loader)
    assert len(batches) == len(loader) == STEPS
    for step, batch in enumerate(batches):
        labeled, unlabeled = _content(batch)
        count = 0 if mixture is None else mixture.unlabeled(step, BATCH)
        first = step * BATCH
        assert labeled == [[number, 1] for number in range(first, first + BATCH - count)]
        assert unlabeled == [[number, 2] for number in range(first, first + count)]
        assert ("image" in batch) == (count < BATCH)
        assert ("unlabeled" in batch) == (count > 0)


def test_alternate_never_mixes():
    kinds = [set(batch) for batch in _loader(MIXTURES["alternate"])]
    assert all(kind in ({"image"}, {"unlabeled"}) for kind in kinds)
    assert {"unlabeled"} in kinds


def test_both_methods_share_their_first_part():
    """Up to ``start``, a semi-supervised run sees exactly what the labeled-only run sees."""
    alone, union = list(_loader(None)), list(_loader(MIXTURES["union"]))
    assert all(_content(a) == _content(b) for a, b in zip(alone[:3], union[:3], strict=True))
    for a, b in zip(alone[3:], union[3:], strict=True):
        assert a["image"][: len(b["image"])].tolist() == b["image"].tolist()


@pytest.mark.parametrize(("start_step", "num_workers"), [(1, 0), (3, 0), (6, 0), (8, 0), (3, 2)])
@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_a_resumed_loader_goes_on_with_the_same_batches(mixture, start_step, num_workers):
    whole = [_content(batch) for batch in _loader(mixture)]
    loader = _loader(mixture, start_step, num_workers=num_workers)
    assert [_content(batch) for batch in loader] == whole[start_step:]
    assert len(loader) == STEPS - start_step


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_processes_together_take_the_crops_of_one_process(monkeypatch, mixture, world_size):
    """A step of W processes with B crops each is a step of one process with W x B crops."""
    each: list[list] = [[] for _ in range(STEPS)]
    for rank in range(world_size):
        monkeypatch.setattr(
            "medssl.transforms.crops._rank_and_world_size", lambda rank=rank: (rank, world_size)
        )
        for step, batch in enumerate(_loader(mixture)):
            each[step].append(_content(batch))
    monkeypatch.undo()
    for step, parts in enumerate(each):
        count = 0 if mixture is None else mixture.unlabeled(step, BATCH)
        first = step * BATCH * world_size
        labeled = sorted(number for part, _ in parts for number, _ in part)
        unlabeled = sorted(number for _, part in parts for number, _ in part)
        assert labeled == list(range(first, first + (BATCH - count) * world_size))
        assert unlabeled == list(range(first, first + count * world_size))
        assert {len(part) for part, _ in parts} == {BATCH - count}


def test_sampler_iterates_over_the_labeled_crops():
    sampler = StepSampler(5, 4, Mixture(start=2))
    assert list(sampler) == [*range(8), 8, 9, 12, 13, 16, 17]
    assert len(sampler) == 14


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_leaves_the_global_random_numbers_alone(num_workers):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(_loader(MIXTURES["union"], num_workers=num_workers))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_unlabeled_scans_there_is_no_second_kind():
    sampler = StepSampler(2, 3)
    empty = CropDataset([], lambda item: item, Compose([]), length=6, seed=2)
    for unlabeled in (None, empty):
        batches = list(PairedLoader(_numbered(1), sampler, 3, unlabeled))
        assert [list(batch) for batch in batches] == [["image"], ["image"]]


def test_labels_are_counted_in_the_mask_without_the_unknown():
    def volume(item):
        label = torch.tensor([0, 1, 1, 2, 2, 255, 0, 2]).reshape(1, 2, 2, 2)
        mask = torch.tensor([1, 1, 1, 1, 0, 1, 0, 0]).reshape(1, 2, 2, 2)
        return {"image": torch.zeros(1, 2, 2, 2), "label": label.float(), "mask": mask.float()}

    dataset = CropDataset([{}, {}], volume, Compose([]), length=1, seed=0)
    assert label_counts(dataset, 4).tolist() == [2, 4, 2, 0]
    assert label_counts(dataset, 4).dtype == torch.float64
