import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from medssl.errors import ConfigError, DatalistError
from medssl.io.image_items import ImageCohort, ImageItem
from medssl.io.image_splits import carve_validation, draw_labeled, fold_cohort, split_cohort

Names = set[str]


def _cohort(sizes: dict[str, int], group: Callable[[str, int], str | None] = lambda *_: None) -> ImageCohort:
    items = [
        ImageItem(Path(f"{label}{n}.png"), f"{label}{n}.png", label, group(label, n))
        for label, size in sizes.items()
        for n in range(size)
    ]
    return ImageCohort(Path(), tuple(sizes), training=tuple(items))


def _names(items: Iterable[ImageItem]) -> Names:
    return {item.name for item in items}


def _count(items: Iterable[ImageItem]) -> Counter[str | None]:
    return Counter(item.label for item in items)


def _shuffled(cohort: ImageCohort) -> ImageCohort:
    items = list(cohort.training)
    random.Random(1).shuffle(items)
    return replace(cohort, training=tuple(items))


UNEVEN = {"a": 40, "b": 25, "c": 10}


def test_a_draw_keeps_so_many_labels_of_each_class() -> None:
    cohort = _cohort(UNEVEN)
    drawn = draw_labeled(cohort, labels_per_class=7, seed=0)
    assert _count(drawn.training) == {"a": 7, "b": 7, "c": 7}
    assert {item.label for item in drawn.unlabeled} == {None}
    assert _names(drawn.training) | _names(drawn.unlabeled) == _names(cohort.training)
    assert len(drawn.training) + len(drawn.unlabeled) == 75


def test_smaller_draws_are_contained_in_larger_ones() -> None:
    cohort = _cohort(UNEVEN, lambda label, n: f"{label}{n // 4}")
    draws = [_names(draw_labeled(cohort, labels_per_class=n, seed=3).training) for n in range(1, 11)]
    assert all(small < large for small, large in pairwise(draws))


def test_a_draw_hangs_on_its_seed_and_on_nothing_else() -> None:
    cohort = _cohort(UNEVEN)
    first = _names(draw_labeled(cohort, labels_per_class=5, seed=0).training)
    assert _names(draw_labeled(_shuffled(cohort), labels_per_class=5, seed=0).training) == first
    assert _names(draw_labeled(cohort, labels_per_class=5, seed=1).training) != first
    moved = tuple(replace(item, path=Path("elsewhere") / item.path) for item in cohort.training)
    assert _names(draw_labeled(replace(cohort, training=moved), labels_per_class=5, seed=0).training) == first


def test_few_labels_show_many_groups() -> None:
    """One patient has 30 of 40 images; six labels come from all six patients, one each."""
    cohort = _cohort(
        {"a": 40, "b": 6}, lambda label, n: f"{label}{max(0, n - 29) // 2}" if label == "a" else None
    )
    drawn = draw_labeled(cohort, labels_per_class=6, seed=0)
    assert len({item.group for item in drawn.training if item.label == "a"}) == 6


def test_too_few_labels_name_class_and_numbers() -> None:
    with pytest.raises(DatalistError, match=r"'b' has 25, 'c' has 10; expected 30 .* Ask for 10 labels"):
        draw_labeled(_cohort(UNEVEN), labels_per_class=30, seed=0)
    with pytest.raises(ConfigError, match="labels_per_class is 0"):
        draw_labeled(_cohort(UNEVEN), labels_per_class=0, seed=0)


def test_validation_is_a_share_of_each_class() -> None:
    cohort = _cohort(UNEVEN)
    carved = carve_validation(cohort, share=0.2, seed=0)
    assert _count(carved.validation) == {"a": 8, "b": 5, "c": 2}
    assert not _names(carved.validation) & _names(carved.training)
    assert _names(carved.validation) | _names(carved.training) == _names(cohort.training)
    again = carve_validation(_shuffled(cohort), share=0.2, seed=0)
    assert _names(again.validation) == _names(carved.validation)
    assert _names(carve_validation(cohort, share=0.2, seed=1).validation) != _names(carved.validation)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("size", [2, 3])
def test_the_last_label_of_a_class_stays_in_training(share: float, size: int) -> None:
    carved = carve_validation(_cohort({"a": 20, "b": size}), share=share, seed=0)
    assert _count(carved.training)["b"] >= 1
    assert _count(carved.validation)["b"] >= 1


def test_a_class_of_one_image_is_not_validated_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        carved = carve_validation(_cohort({"a": 20, "b": 1}), seed=0)
    assert (_count(carved.training)["b"], _count(carved.validation)["b"]) == (1, 0)
    assert "validation has no image of b" in caplog.text


def test_where_nothing_can_be_carved_the_cure_is_named() -> None:
    with pytest.raises(DatalistError, match=r"No validation image.*val/"):
        carve_validation(_cohort({"a": 1, "b": 1}), seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(ConfigError, match="expected a number between 0 and 1"):
        carve_validation(_cohort(UNEVEN), share=share, seed=0)


def test_validation_is_carved_once() -> None:
    carved = carve_validation(_cohort(UNEVEN), seed=0)
    for again in (carve_validation, fold_cohort):
        with pytest.raises(DatalistError, match="15 validation images already"):
            again(carved, seed=0)


GROUPED = _cohort({"a": 60, "b": 40}, lambda label, n: f"p{n // 5}")


def _sides(cohorts: Iterable[ImageCohort]) -> list[Names]:
    """Return for each group of each cohort the sections that it is in."""
    found = []
    for cohort in cohorts:
        sections = defaultdict(set)
        for section, item in cohort.placed():
            sections[item.group].add(section)
        found += sections.values()
    return found


def test_groups_stay_together() -> None:
    cohorts = [
        carve_validation(GROUPED, share=0.3, seed=0),
        split_cohort(GROUPED, validation=0.2, test=0.2, seed=0),
        *fold_cohort(GROUPED, folds=4, seed=0),
    ]
    assert {len(sections) for sections in _sides(cohorts)} == {1}
    assert 20 <= len(cohorts[0].validation) <= 40


def test_a_group_that_holds_all_of_a_class_is_never_taken() -> None:
    cohort = _cohort({"a": 20, "b": 4}, lambda label, n: "p" if label == "b" or n == 0 else None)
    for seed in range(5):
        carved = carve_validation(cohort, share=0.5, seed=seed)
        assert _count(carved.training)["b"] == 4


def test_unlabeled_images_of_held_out_groups_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    drawn = draw_labeled(GROUPED, labels_per_class=12, seed=0)
    with caplog.at_level(logging.WARNING):
        carved = carve_validation(drawn, share=0.25, seed=0)
    held = {item.group for item in carved.validation}
    assert held
    assert not held & {item.group for item in carved.unlabeled}
    lost = len(drawn.unlabeled) - len(carved.unlabeled)
    assert f"{lost} unlabeled images left out" in caplog.text


def test_three_splits_have_their_shares() -> None:
    cohort = _cohort({"a": 100, "b": 50})
    split = split_cohort(cohort, validation=0.1, test=0.2, seed=0)
    assert [_count(split.section(name)) for name in ("training", "validation", "test")] == [
        {"a": 70, "b": 35},
        {"a": 10, "b": 5},
        {"a": 20, "b": 10},
    ]
    assert _names(split.training) | _names(split.validation) | _names(split.test) == _names(cohort.training)
    again = split_cohort(_shuffled(cohort), validation=0.1, test=0.2, seed=0)
    assert (_names(again.test), _names(again.validation)) == (_names(split.test), _names(split.validation))


def test_validation_may_be_left_for_later() -> None:
    split = split_cohort(_cohort(UNEVEN), validation=0, test=0.2, seed=0)
    assert (len(split.training), len(split.validation), len(split.test)) == (60, 0, 15)


def test_test_images_are_drawn_once_and_leave_something() -> None:
    split = split_cohort(_cohort(UNEVEN), seed=0)
    with pytest.raises(DatalistError, match="15 test images already"):
        split_cohort(split, seed=0)
    with pytest.raises(ConfigError, match=r"take 1\.1 of the images"):
        split_cohort(_cohort(UNEVEN), validation=0.6, test=0.5, seed=0)
    with pytest.raises(DatalistError, match="No test image could be taken from 2 labeled images"):
        split_cohort(_cohort({"a": 1, "b": 1}), seed=0)


def test_folds_hold_each_image_once_and_each_class_evenly() -> None:
    cohort = _cohort(UNEVEN)
    folds = fold_cohort(cohort, folds=5, seed=0)
    assert [_count(fold.validation) for fold in folds] == [{"a": 8, "b": 5, "c": 2}] * 5
    assert set.union(*(_names(fold.validation) for fold in folds)) == _names(cohort.training)
    assert all(len(fold.training) + len(fold.validation) == 75 for fold in folds)
    again = fold_cohort(_shuffled(cohort), folds=5, seed=0)
    assert [_names(fold.validation) for fold in again] == [_names(fold.validation) for fold in folds]


def test_folds_need_as_many_images_and_groups() -> None:
    with pytest.raises(DatalistError, match=r"for 11 folds: 'c' has 10; expected 11"):
        fold_cohort(_cohort(UNEVEN), folds=11, seed=0)
    with pytest.raises(DatalistError, match="'b' has 1; expected 2"):
        fold_cohort(
            _cohort({"a": 9, "b": 9}, lambda label, _: "p" if label == "b" else None), folds=2, seed=0
        )
    with pytest.raises(ConfigError, match="folds is 1"):
        fold_cohort(_cohort(UNEVEN), folds=1, seed=0)
