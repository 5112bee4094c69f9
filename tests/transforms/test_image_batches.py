"""Batches as a pure function of (seed, step)."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch

from medssl.errors import ConfigError
from medssl.transforms import (
    ImageLoader,
    ImagePool,
    Mixture,
    OrderedLoader,
    StepSampler,
    image_preprocessing,
    strong_augmentation,
    weak_augmentation,
)

STEPS, BATCH = 7, 6
MIXTURES = {
    "labeled only": None,
    "union": Mixture(start=2, share=0.5),
    "much": Mixture(start=0, share=0.9),
    "alternate": Mixture(start=1, ends=[1, 4, 7], alternate=True),
}


def _pool(size, first=0, labels=3, **entries):
    """Return a pool whose image n is full of the value ``first + n``, with a label of its place."""
    data = [{"image": str(first + n), "label": n % labels, **entries} for n in range(size)]
    return ImagePool(
        data, lambda path: np.full((4, 4, 1), int(path.name), np.uint8), image_preprocessing(4, 1)
    )


def _noise(images, generator):
    """Change images so little that their value still tells which one it is."""
    return images + 0.001 * torch.rand(images.shape, generator=generator)


def _loader(mixture=None, *, start_step=0, batch_size=BATCH, labeled=11, unlabeled=13, **options):
    sampler = StepSampler(STEPS, batch_size, mixture)
    sampler.start_step = start_step
    options = {"weak": _noise, "strong": _noise, "seed": 5} | options
    return ImageLoader(_pool(labeled), sampler, batch_size, _pool(unlabeled, 100), **options)


def _values(images):
    return [int(value) for value in (images[..., 0, 0, 0] * 255).floor().tolist()]


def _same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            _same(value, other[key])
        else:
            assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_batches_hold_both_kinds_in_the_shapes_of_the_contract(mixture):
    loader = _loader(mixture, views=2)
    batches = list(loader)
    assert len(batches) == len(loader) == STEPS
    for step, batch in enumerate(batches):
        count = 0 if mixture is None else mixture.unlabeled(step, BATCH)
        assert ("image" in batch) == ("label" in batch) == (count < BATCH)
        assert ("unlabeled" in batch) == (count > 0)
        if count < BATCH:
            assert batch["image"].shape == (BATCH - count, 1, 4, 4)
            assert batch["image"].dtype == torch.float32
            assert batch["label"].shape == (BATCH - count, 1)
            assert batch["label"].dtype == torch.int64
            assert batch["label"][:, 0].tolist() == [value % 3 for value in _values(batch["image"])]
        if count:
            unlabeled = batch["unlabeled"]
            assert set(unlabeled) == {"image", "strong", "mask", "index", "views"}
            assert unlabeled["image"].shape == unlabeled["strong"].shape == (count, 1, 4, 4)
            assert unlabeled["mask"].tolist() == [[1.0]] * count
            assert unlabeled["index"].dtype == torch.int64
            assert unlabeled["views"].shape == (count, 2, 1, 4, 4)
            expected = (100 + unlabeled["index"]).tolist()
            assert _values(unlabeled["image"]) == _values(unlabeled["strong"]) == expected
            assert _values(unlabeled["views"][:, 1]) == expected


def test_labeled_images_have_a_strong_view_where_it_is_asked_for():
    plain, both = (list(_loader(labeled_strong=asked)) for asked in (False, True))
    assert all("strong" not in batch for batch in plain)
    for one, batch in zip(plain, both, strict=True):
        assert torch.equal(batch["image"], one["image"])
        assert _values(batch["strong"]) == _values(batch["image"])
        assert not torch.equal(batch["strong"], batch["image"])
    for batch in _loader(labeled_strong=True, strong=None):
        assert torch.equal(batch["strong"], batch["image"])


@pytest.mark.parametrize("start_step", [1, 2, 5, 7])
@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_a_resumed_loader_goes_on_bit_for_bit(mixture, start_step):
    options = {
        "weak": weak_augmentation("natural"),
        "strong": strong_augmentation("natural"),
        "views": 2,
        "balanced": True,
    }
    whole = list(_loader(mixture, **options))
    loader = _loader(mixture, start_step=start_step, **options)
    rest = list(loader)
    assert len(rest) == len(loader) == STEPS - start_step
    for one, other in zip(rest, whole[start_step:], strict=True):
        _same(one, other)


def test_a_batch_depends_on_its_step_alone():
    loader = _loader(MIXTURES["union"], views=2)
    whole = list(loader)
    for step in (4, 0, 6):
        _same(loader.batch(step), whole[step])


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_prefetching_gives_the_same_batches(mixture):
    for one, other in zip(_loader(mixture), _loader(mixture, prefetch=True), strict=True):
        _same(one, other)


def test_a_loader_that_is_left_early_ends_its_thread():
    before = threading.active_count()
    batches = iter(_loader())
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_errors_of_the_thread_arrive():
    def broken(images, generator):
        raise RuntimeError(generator)

    with pytest.raises(RuntimeError, match="Generator"):
        next(iter(_loader(weak=broken)))


@pytest.mark.parametrize("prefetch", [True, False])
def test_loading_leaves_the_global_random_numbers_alone(prefetch):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(_loader(MIXTURES["union"], prefetch=prefetch, weak=weak_augmentation("natural")))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_pass_takes_each_image_once_in_a_new_order():
    values = [value for batch in _loader(labeled=14) for value in _values(batch["image"])]
    passes = [values[start : start + 14] for start in range(0, 42, 14)]
    assert all(sorted(one) == list(range(14)) for one in passes)
    assert passes[0] != passes[1]


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("labeled", [1, 2, 3])
def test_a_pool_smaller_than_the_batch_is_gone_through_again(batch_size, labeled):
    loader = _loader(batch_size=batch_size, labeled=labeled)
    values = [value for batch in loader for value in _values(batch["image"])]
    counts = Counter(values)
    assert set(values) == set(range(labeled))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_same_image_is_changed_differently_each_time():
    batches = list(_loader(labeled=1, batch_size=4))
    images = torch.cat([batch["image"] for batch in batches])
    assert len({tuple(image.flatten().tolist()) for image in images}) == 4 * STEPS


def test_a_batch_of_one_works_for_either_kind():
    """D18: no axis is squeezed away."""
    assert all(batch["image"].shape == (1, 1, 4, 4) for batch in _loader(batch_size=1))
    mixture = Mixture(start=0, ends=[0, 7], alternate=True)
    batches = list(_loader(mixture, batch_size=1, views=3, unlabeled=1))
    assert batches[0]["unlabeled"]["views"].shape == (1, 3, 1, 4, 4)
    assert batches[6]["image"].shape == (1, 1, 4, 4)


def test_weak_strong_and_views_have_random_numbers_of_their_own():
    unlabeled = next(iter(_loader(MIXTURES["much"], views=3)))["unlabeled"]
    assert torch.equal(unlabeled["views"][:, 0], unlabeled["image"])
    different = [unlabeled["image"], unlabeled["strong"], unlabeled["views"][:, 1], unlabeled["views"][:, 2]]
    assert all((a != b).all() for n, a in enumerate(different) for b in different[:n])


def test_views_come_only_where_they_are_asked_for():
    assert "views" not in next(iter(_loader(MIXTURES["much"])))["unlabeled"]
    one = next(iter(_loader(MIXTURES["much"], views=1)))["unlabeled"]
    assert torch.equal(one["views"], one["image"][:, None])


def test_without_strong_changes_both_views_are_the_weak_one():
    unlabeled = next(iter(_loader(MIXTURES["much"], strong=None)))["unlabeled"]
    assert torch.equal(unlabeled["strong"], unlabeled["image"])


def test_without_changes_images_are_those_of_the_pool():
    """D11: nothing is normalized; 8 bits divided by 255."""
    batch = next(iter(_loader(MIXTURES["much"], weak=None, strong=None)))
    assert torch.equal(batch["unlabeled"]["image"], batch["unlabeled"]["strong"])
    expected = ((100 + batch["unlabeled"]["index"]) / 255)[:, None, None, None].expand(-1, 1, 4, 4)
    assert torch.equal(batch["unlabeled"]["image"], expected)


def test_labeled_and_unlabeled_images_are_not_drawn_alike():
    sampler = StepSampler(STEPS, BATCH, Mixture(share=0.5))
    pool = _pool(40)
    for batch in ImageLoader(pool, sampler, BATCH, pool, weak=_noise, seed=3):
        assert _values(batch["image"]) != _values(batch["unlabeled"]["image"])


def test_another_seed_gives_other_batches():
    first, second = next(iter(_loader(seed=5))), next(iter(_loader(seed=6)))
    assert _values(first["image"]) != _values(second["image"])


def test_up_to_the_start_both_methods_see_the_same():
    alone, union = list(_loader(None)), list(_loader(MIXTURES["union"]))
    for a, b in zip(alone[:2], union[:2], strict=True):
        _same(a, b)
    for a, b in zip(alone[2:], union[2:], strict=True):
        assert _values(a["image"])[: len(b["image"])] == _values(b["image"])


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_processes_together_take_the_images_of_one_process(monkeypatch, mixture, world_size):
    """A step of W processes with B images each is a step of one process with W x B images."""
    each = [{"image": [], "unlabeled": []} for _ in range(STEPS)]
    noise = []
    for rank in range(world_size):
        monkeypatch.setattr(
            "medssl.transforms.crops._rank_and_world_size", lambda rank=rank: (rank, world_size)
        )
        for step, batch in enumerate(_loader(mixture)):
            for kind, part in (("image", batch), ("unlabeled", batch.get("unlabeled", {}))):
                if "image" in part:
                    each[step][kind].extend(_values(part["image"]))
                    noise.append(tuple((part["image"] * 255 % 1)[0].flatten().tolist()))
    monkeypatch.undo()
    assert len(set(noise)) == len(noise)
    whole = _loader(None, batch_size=BATCH * world_size)
    for step, parts in enumerate(each):
        count = 0 if mixture is None else mixture.unlabeled(step, BATCH)
        expected = _values(whole.batch(step)["image"])[: (BATCH - count) * world_size]
        assert sorted(parts["image"]) == sorted(expected)
        assert len(parts["unlabeled"]) == count * world_size


def test_balanced_batches_draw_every_class_equally_often():
    data = [{"image": str(n), "label": int(n >= 20)} for n in range(23)]
    pool = ImagePool(
        data, lambda path: np.full((4, 4, 1), int(path.name), np.uint8), image_preprocessing(4, 1)
    )
    sampler = StepSampler(10, 6)
    drawn = list(ImageLoader(pool, sampler, 6, balanced=True, seed=2))
    assert all(batch["label"].sum() == 3 for batch in drawn)
    values = Counter(value for batch in drawn for value in _values(batch["image"]))
    assert [values[n] for n in range(20, 23)] == [10] * 3
    assert all(values[n] in (1, 2) for n in range(20))
    plain = sum(int(batch["label"].sum()) for batch in ImageLoader(pool, sampler, 6, seed=2))
    assert plain < 15


def test_weights_are_handed_out_where_any_image_has_one():
    assert "weight" not in next(iter(_loader()))
    sampler = StepSampler(2, 3)
    batch = next(iter(ImageLoader(_pool(4, weight=0.5), sampler, 3)))
    assert batch["weight"].tolist() == [[0.5]] * 3


@pytest.mark.parametrize("prefetch", [True, False])
def test_targets_of_a_new_round_count_from_its_first_step_on(prefetch):
    loader = _loader(Mixture(share=0.5), prefetch=prefetch)
    for step, batch in enumerate(loader):
        unlabeled = batch["unlabeled"]
        if step < 3:
            assert "target" not in unlabeled
        else:
            expected = torch.stack([unlabeled["index"], torch.full((3,), step - 1)], 1)
            assert torch.equal(unlabeled["target"], expected.float())
        if step >= 2:
            loader.unlabeled.targets = torch.tensor([[n, step] for n in range(13)]).float()


def test_without_unlabeled_images_there_is_no_second_kind():
    for unlabeled in (None, ImagePool([], None, None)):
        batches = list(ImageLoader(_pool(4), StepSampler(2, 3), 3, unlabeled))
        assert [list(batch) for batch in batches] == [["image", "label"]] * 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, StepSampler(2, 3), 3, 2), "no labeled images"),
        ((4, StepSampler(2, 3, Mixture()), 3, 0), "mixes unlabeled images in"),
        ((4, StepSampler(2, 3), 4, 2), "batch_size 4.* 3 images a step"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(arguments, text):
    labeled, sampler, batch_size, unlabeled = arguments
    with pytest.raises(ConfigError, match=text):
        ImageLoader(_pool(labeled), sampler, batch_size, _pool(unlabeled))


@pytest.mark.parametrize(("size", "lengths"), [(7, [3, 3, 1]), (6, [3, 3]), (1, [1]), (0, [])])
def test_an_ordered_loader_goes_through_the_pool_once(size, lengths):
    loader = OrderedLoader(_pool(size), 3)
    batches = list(loader)
    assert [len(batch["image"]) for batch in batches] == lengths
    assert len(loader) == len(lengths)
    assert [value for batch in batches for value in _values(batch["image"])] == list(range(size))
    assert [n for batch in batches for n in batch["index"].tolist()] == list(range(size))
    assert all(batch["label"].shape == (len(batch["image"]), 1) for batch in batches)


def test_labeled_images_bring_their_targets_too():
    loader = _loader()
    assert "target" not in loader.batch(0)
    loader.dataset.targets = torch.eye(11)
    batch = loader.batch(2)
    assert batch["target"].argmax(1).tolist() == _values(batch["image"])
