import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from medssl.errors import ConfigError, DatalistError
from medssl.io.image_items import ImageCohort, ImageItem
from medssl.io.image_splits import (
    carve_validation,
    draw_labeled,
    fold_cohort,
    one_fold,
    require_divisible,
    split_cohort,
    without_unlabeled_of,
)

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


def _digests(cohort: ImageCohort, copies: int = 2) -> dict[Path, bytes]:
    """Return digests that so many images of a class have in common."""
    return {
        item.path: f"{item.label}{int(item.path.stem[1:]) // copies}".encode() for item in cohort.training
    }


def _places(cohort: ImageCohort, digests: Mapping[Path, bytes]) -> dict[bytes, set[str]]:
    """Return the sections that each image, however many copies it has, is in."""
    found = defaultdict(set)
    for section, item in cohort.placed():
        found[digests[item.path]].add(section)
    return found


def test_images_of_equal_pixels_stay_together() -> None:
    cohort = _cohort(UNEVEN)
    digests = _digests(cohort)
    cohorts = [
        carve_validation(cohort, share=0.3, seed=0, digests=digests),
        split_cohort(cohort, validation=0.2, test=0.2, seed=0, digests=digests),
        *fold_cohort(cohort, folds=4, seed=0, digests=digests),
    ]
    for divided in cohorts:
        assert {len(sections) for sections in _places(divided, digests).values()} == {1}
    assert 18 <= len(cohorts[0].validation) <= 26
    again = split_cohort(_shuffled(cohort), validation=0.2, test=0.2, seed=0, digests=digests)
    assert (_names(again.test), _names(again.validation)) == (
        _names(cohorts[1].test),
        _names(cohorts[1].validation),
    )


def test_copies_join_the_groups_they_are_in() -> None:
    """Every image of patient 2n is a copy of one of patient 2n + 1, and neither patient may be divided."""
    cohort = _cohort({"a": 60, "b": 40}, lambda _, n: f"p{n // 2}")
    digests = {item.path: f"{item.label}{n // 4}{n % 2}".encode() for item in cohort.training
               for n in [int(item.path.stem[1:])]}  # fmt: skip
    for divided in (
        split_cohort(cohort, validation=0.2, test=0.2, seed=0, digests=digests),
        *fold_cohort(cohort, folds=3, seed=0, digests=digests),
    ):
        assert {len(sections) for sections in _places(divided, digests).values()} == {1}
        assert {len(sections) for sections in _sides([divided])} == {1}
        assert {item.group for _, item in divided.placed()} == {item.group for item in cohort.training}


def test_rare_images_validate_only_with_what_they_stay_together_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first three of "b" are copies of one image, and the first of them is of a patient with images of "a" too."""
    cohort = _cohort({"a": 20, "b": 6}, lambda label, n: f"p{n}" if label == "a" or n == 0 else None)
    digests = {item.path: item.name.encode() for item in cohort.training}
    copies = [item.path for item in cohort.training if item.label == "b"][:3]
    digests |= dict.fromkeys(copies, b"one")
    seen = set()
    for seed in range(20):
        carved = carve_validation(cohort, share=0.3, seed=seed, digests=digests, rare=["b"])
        assert {len(sections) for sections in _places(carved, digests).values()} == {1}
        held = {item.path for item in carved.validation if item.label == "b"}
        assert held in (set(), set(copies))
        seen.add(bool(held))
    assert seen == {True, False}
    assert not caplog.records


def test_digests_of_different_images_change_no_draw() -> None:
    for cohort in (_cohort(UNEVEN), GROUPED):
        digests = _digests(cohort, copies=1)
        assert split_cohort(cohort, seed=0, digests=digests) == split_cohort(cohort, seed=0)
        assert fold_cohort(cohort, folds=3, seed=0, digests=digests) == fold_cohort(cohort, folds=3, seed=0)


def test_few_labels_show_few_copies() -> None:
    cohort = _cohort({"a": 12, "b": 12})
    digests = _digests(cohort, copies=3)
    drawn = draw_labeled(cohort, labels_per_class=4, seed=0, digests=digests)
    assert len({digests[item.path] for item in drawn.training}) == 8


def test_unlabeled_copies_of_held_out_images_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    cohort = _cohort(UNEVEN)
    copies = tuple(
        replace(item, path=Path("u") / item.path, name=f"u/{item.name}", label=None)
        for item in cohort.training
    )
    cohort = replace(cohort, unlabeled=copies)
    digests = {item.path: item.path.name.encode() for _, item in cohort.placed()}
    with caplog.at_level(logging.WARNING):
        divided = split_cohort(cohort, validation=0.2, test=0.2, seed=0, digests=digests)
    held = {*_names(divided.validation), *_names(divided.test)}
    assert {item.path.name for item in divided.unlabeled} == _names(divided.training)
    counts = [int(record.getMessage().split()[0]) for record in caplog.records]
    assert sum(counts) == len(held)
    assert without_unlabeled_of(cohort, [], digests) == cohort
    unread = {path: digest for path, digest in digests.items() if path.parent == Path()}
    assert len(split_cohort(cohort, seed=0, digests=unread).unlabeled) == len(copies)


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


def test_test_images_may_be_none_or_those_that_are_there() -> None:
    split = split_cohort(_cohort(UNEVEN), validation=0.2, test=0, seed=0)
    assert [len(split.section(name)) for name in ("training", "validation", "test")] == [60, 15, 0]
    tested = split_cohort(_cohort(UNEVEN), validation=0, test=0.2, seed=0)
    assert split_cohort(tested, validation=0.25, test=0, seed=0) == carve_validation(
        tested, share=0.25, seed=0
    )
    validated = split_cohort(split, validation=0, test=0.25, seed=0)
    assert (validated.validation, len(validated.test)) == (split.validation, 15)


def test_a_division_into_one_part_is_refused() -> None:
    for refuse in (require_divisible, partial(split_cohort, seed=0)):
        with pytest.raises(ConfigError, match=r"--validation and --test are both 0.*share above 0"):
            refuse(_cohort(UNEVEN), validation=0, test=0)


def test_what_stands_there_already_is_named_with_the_option_that_keeps_it() -> None:
    split = split_cohort(_cohort(UNEVEN), seed=0)
    with pytest.raises(DatalistError, match=r"15 test images already.*--test 0"):
        require_divisible(split, validation=0.1, test=0.2)
    with pytest.raises(DatalistError, match=r"7 validation images already.*--validation 0"):
        require_divisible(split, validation=0.1, test=0)


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


def test_one_fold_is_one_of_all(caplog: pytest.LogCaptureFixture) -> None:
    cohort = draw_labeled(GROUPED, labels_per_class=20, seed=0)
    folds = fold_cohort(cohort, folds=3, seed=0)
    caplog.clear()
    assert one_fold(cohort, 2, folds=3, seed=0) == folds[1]
    lost = len(cohort.unlabeled) - len(folds[1].unlabeled)
    assert [text.split(":")[0] for text in caplog.messages] == [f"{lost} unlabeled images left out"]
    for number in (0, 4):
        with pytest.raises(ConfigError, match=f"no fold {number} of 3"):
            one_fold(cohort, number, folds=3, seed=0)


def test_folds_need_as_many_images_and_groups() -> None:
    with pytest.raises(DatalistError, match=r"for 11 folds: 'c' has 10; expected 11"):
        fold_cohort(_cohort(UNEVEN), folds=11, seed=0)
    with pytest.raises(DatalistError, match="'b' has 1; expected 2"):
        fold_cohort(
            _cohort({"a": 9, "b": 9}, lambda label, _: "p" if label == "b" else None), folds=2, seed=0
        )
    with pytest.raises(ConfigError, match="folds is 1"):
        fold_cohort(_cohort(UNEVEN), folds=1, seed=0)
