import logging
from pathlib import Path

import numpy as np
import pytest
from image_trees import hash_of_tree, noise, save_picture, write_tree
from PIL import Image

from medssl.errors import ConfigError, DatalistError, ImageError
from medssl.io import image_facts, image_leaks
from medssl.io.image_cohort import ImageCohort, read_image_cohort
from medssl.io.image_leaks import (
    check_images,
    find_image_leaks,
    inspect_images,
    pixel_digest,
    require_no_image_leaks,
    without_images,
)

BOTH = {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1, "unlabeled": 2}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data", BOTH)


def _copy(root: Path, one: str, other: str) -> None:
    """Write the pixels of an image again, by Pillow and under another name and format."""
    with Image.open(root / one) as image:
        image.convert("RGB").save(root / other)


def _manifest(root: Path, *lines: str) -> ImageCohort:
    text = "\n".join(("path,label,split,group", *lines))
    (root / "images.csv").write_text(text, encoding="utf-8")
    return read_image_cohort(root)


def test_different_images_are_no_leak(root: Path) -> None:
    assert require_no_image_leaks(read_image_cohort(root)) == []


@pytest.mark.parametrize(
    ("one", "other", "sections"),
    [
        ("train/a/1.png", "val/a/copy.bmp", ("training", "validation")),
        ("train/a/1.png", "test/b/copy.tif", ("training", "test")),
        ("unlabeled/1.png", "val/a/copy.bmp", ("unlabeled", "validation")),
        ("unlabeled/1.png", "test/a/copy.tif", ("unlabeled", "test")),
        ("val/a/1.png", "test/a/copy.bmp", ("validation", "test")),
    ],
)
def test_a_copy_on_the_other_side_of_a_split_is_refused(
    root: Path, one: str, other: str, sections: tuple[str, str]
) -> None:
    """The copy is packed in another way and stored as color: no byte of the files agrees."""
    _copy(root, one, other)
    cohort = read_image_cohort(root)
    (leak,) = find_image_leaks(cohort)
    assert (leak.sections, leak.kind, leak.count) == (sections, "same pixels", 2)
    with pytest.raises(
        DatalistError, match=rf"1 leaks.*{one} in '{sections[0]}'.*{other} in '{sections[1]}'"
    ):
        require_no_image_leaks(cohort)


@pytest.mark.parametrize(
    ("one", "allowed"), [("unlabeled/1.png", True), ("train/a/1.png", False), ("val/a/1.png", False)]
)
def test_transductive_allows_held_out_images_without_their_labels_only(
    root: Path, one: str, allowed: bool
) -> None:
    _copy(root, one, "test/a/copy.bmp")
    cohort = read_image_cohort(root)
    if allowed:
        (leak,) = require_no_image_leaks(cohort, transductive=True)
        assert leak.transductive
    else:
        with pytest.raises(DatalistError, match="Keep all copies"):
            require_no_image_leaks(cohort, transductive=True)


@pytest.mark.parametrize("other", ["train/a/copy.bmp", "unlabeled/copy.bmp"])
def test_copies_on_one_side_are_reported(root: Path, other: str, caplog: pytest.LogCaptureFixture) -> None:
    _copy(root, "train/a/1.png", other)
    with caplog.at_level(logging.WARNING):
        (leak,) = require_no_image_leaks(read_image_cohort(root))
    assert leak.harmless
    assert "1 images have copies on the same side of the split" in caplog.text


def test_copies_inside_the_test_images_are_reported(root: Path) -> None:
    _copy(root, "test/a/1.png", "test/b/copy.bmp")
    (leak,) = require_no_image_leaks(read_image_cohort(root))
    assert (leak.sections, leak.kind) == (("test", "test"), "same pixels, two labels")


def test_one_image_with_two_labels_in_training_is_refused(root: Path) -> None:
    _copy(root, "train/a/1.png", "train/b/copy.bmp")
    with pytest.raises(DatalistError, match=r"\('a'\).*\('b'\): same pixels, two labels.*which label"):
        require_no_image_leaks(read_image_cohort(root), transductive=True)


def test_many_copies_are_one_leak_a_pair_of_sections(root: Path) -> None:
    for number in range(5):
        _copy(root, "train/a/1.png", f"train/a/copy{number}.bmp")
        _copy(root, "train/a/1.png", f"test/a/copy{number}.bmp")
    leaks = find_image_leaks(read_image_cohort(root))
    assert [(leak.sections, leak.count) for leak in leaks] == [
        (("training", "training"), 6),
        (("test", "test"), 5),
        (("training", "test"), 11),
    ]


@pytest.mark.parametrize(
    ("section", "transductive", "refused"),
    [("train", False, True), ("train", True, True), ("unlabeled", False, True), ("unlabeled", True, False)],
)
def test_a_group_on_both_sides_is_refused(
    tmp_path: Path, section: str, transductive: bool, refused: bool
) -> None:
    write_tree(tmp_path, {".": 5})
    label = "" if section == "unlabeled" else "a"
    cohort = _manifest(
        tmp_path, "1.png,a,train,", "2.png,b,train,", f"3.png,{label},{section},p", "4.png,a,test,p"
    )
    if refused:
        with pytest.raises(DatalistError, match=r"3\.png .*and 4\.png .*: the group 'p'"):
            require_no_image_leaks(cohort, transductive=transductive)
    else:
        assert [leak.kind for leak in require_no_image_leaks(cohort, transductive=True)] == ["same group"]


def test_a_group_may_be_labeled_and_unlabeled(tmp_path: Path) -> None:
    write_tree(tmp_path, {".": 3})
    assert (
        require_no_image_leaks(_manifest(tmp_path, "1.png,a,train,p", "2.png,b,train,p", "3.png,,,p")) == []
    )


def test_images_are_equal_if_their_pixels_are() -> None:
    gray = noise(0)[..., None]
    others = [gray.swapaxes(0, 1), gray.astype(np.uint16), 255 - gray, gray.reshape(9, 8, 1)]
    digests = [
        pixel_digest(image, gray=True) for image in (gray, gray.copy(), np.repeat(gray, 3, 2), *others)
    ]
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests)) == 5


def test_an_image_is_looked_at_for_gray_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, looks = read_image_cohort(root), []
    for module in (image_facts, image_leaks):
        monkeypatch.setattr(module, "is_gray", lambda pixels: looks.append(pixels) or True, raising=False)
    inspect_images(cohort)
    assert len(looks) == len(list(cohort.placed()))


def test_unreadable_images_come_as_one_list(root: Path) -> None:
    """D24: a failure is counted as a failure."""
    (root / "train/a/1.png").write_bytes(b"")
    (root / "unlabeled/2.png").write_text("no image")
    cohort = read_image_cohort(root)
    with pytest.raises(
        ImageError, match=r"2 of 10 images cannot be used: .*is empty.*holds no image that is known"
    ):
        check_images(cohort)
    first, second = check_images(cohort, "skip")
    assert (first.section, first.item.name, second.item.name) == (
        "training",
        "train/a/1.png",
        "unlabeled/2.png",
    )
    kept = without_images(cohort, (first, second))
    assert [len(kept.section(name)) for name in ("training", "unlabeled")] == [3, 1]


def test_a_class_is_never_lost_by_leaving_out(root: Path) -> None:
    for number in (1, 2):
        (root / f"train/a/{number}.png").write_bytes(b"")
    cohort = read_image_cohort(root)
    with pytest.raises(DatalistError, match="no labeled training image of a is left"):
        without_images(cohort, check_images(cohort, "skip"))


def test_an_unknown_policy_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="policy for unreadable images is 'ignore'"):
        check_images(read_image_cohort(root), "ignore")


def test_one_look_serves_both_checks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "train/a/1.png").write_bytes(b"")
    cohort = read_image_cohort(root)
    seen = []
    check = inspect_images(cohort, progress=lambda name, done, total: seen.append((name, done, total)))
    assert (seen[0], seen[-1]) == (("train/a/1.png", 0, 10), ("unlabeled/2.png", 10, 10))
    monkeypatch.setattr("medssl.io.image_leaks.read_image", None)
    kept = without_images(cohort, check_images(cohort, "skip", check=check))
    assert require_no_image_leaks(kept, check=check) == []
    with pytest.raises(ImageError, match="1 of 10 images"):
        require_no_image_leaks(cohort, check=check)


def test_checking_changes_nothing_in_the_data(root: Path) -> None:
    """D7."""
    before = hash_of_tree(root)
    require_no_image_leaks(read_image_cohort(root))
    assert hash_of_tree(root) == before


def test_more_than_ten_leaks_are_counted(tmp_path: Path) -> None:
    for number in range(12):
        save_picture(tmp_path / f"train/{'ab'[number % 2]}/{number}.png", number)
        save_picture(tmp_path / f"test/{'ab'[number % 2]}/{number}.png", number)
    with pytest.raises(DatalistError, match=r"^12 leaks .*; and 2 more"):
        require_no_image_leaks(read_image_cohort(tmp_path))
