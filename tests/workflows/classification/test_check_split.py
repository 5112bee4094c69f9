"""Looking at a folder of images, and dividing it without moving one."""

import shutil

import numpy as np
import pytest
from pictures import options, write_pictures
from PIL import Image

from medssl.errors import ConfigError, DatalistError, ImageError, MedsslError, OutputError
from medssl.io import image_leaks
from medssl.io.image_cohort import read_image_cohort, write_manifest
from medssl.io.image_items import SECTIONS
from medssl.io.images import read_image
from medssl.workflows.classification.check import check_folder
from medssl.workflows.classification.split import split_folder
from medssl.workflows.classification.train import usable_cohort


def test_a_good_folder_has_no_problems(pictures):
    found = check_folder(pictures)
    assert found.problems == ()
    assert found.counts == (("dark", "6", "12", "5"), ("light", "6", "12", "5"))
    assert (found.unlabeled, found.sizes, found.channels) == (20, "16 x 16", "1")


def test_unreadable_and_leaking_images_are_named(tmp_path):
    images = write_pictures(tmp_path / "images")
    (images / "train" / "dark" / "0.png").write_bytes(b"")
    shutil.copyfile(images / "test" / "light" / "1.png", images / "unlabelled" / "copy.png")
    problems = "\n".join(check_folder(images).problems)
    assert "train/dark/0.png" in problems
    assert "copy.png" in problems
    assert not any("copy.png" in one for one in check_folder(images, transductive=True).problems)


def test_what_is_missing_is_remarked_on(tmp_path):
    images = write_pictures(tmp_path / "images", training=2, validation=0, test=0, unlabeled=0)
    said = " ".join(check_folder(images).remarks)
    for word in ("Fewer than 5", "No validation", "No test", "No unlabeled"):
        assert word in said


def test_files_that_may_be_images_are_remarked_on(tmp_path):
    images = write_pictures(tmp_path / "images")
    for name in ("a.webp", "b.webp", "c.gif", "d", "e.png.bak"):
        (images / "train" / "dark" / name).write_bytes(b"RIFF")
    (images / "train" / "dark" / "notes.txt").write_text("x")
    said = check_folder(images).remarks
    (remark,) = [one for one in said if "may be images" in one]
    named = ", ".join(f"train/dark/{name}" for name in ("a.webp", "b.webp", "c.gif"))
    assert f"5 files were passed over that may be images: {named} and 2 more." in remark
    assert "rename, convert" in remark
    assert any(one.startswith("1 hidden or other") for one in said)


def test_a_split_is_written_and_read_back(tmp_path):
    images = write_pictures(tmp_path / "images", training=20, validation=0, test=0)
    counts = split_folder(images, tmp_path / "split.csv", validation=0.2, test=0.2, labels_per_class=5)
    assert counts["test"] == 8
    assert counts["training"] == 10
    cohort = read_image_cohort(tmp_path / "split.csv", allow_outside=True)
    assert {name: len(cohort.section(name)) for name in counts} == counts
    with pytest.raises(OutputError, match="is there already"):
        split_folder(images, tmp_path / "split.csv")


def test_no_manifest_is_written_among_the_images(tmp_path):
    images = write_pictures(tmp_path / "images", training=20, validation=0, test=0)
    for out in (images / "images.csv", images / "lists" / "split.csv"):
        with pytest.raises(OutputError, match=r"lies inside the input folder.*Choose one outside"):
            split_folder(images, out)
        assert not out.exists()


def test_a_manifest_may_be_divided_into_one_beside_it(tmp_path):
    images = write_pictures(tmp_path / "images", training=20, validation=0, test=0)
    whole = tmp_path / "lists" / "all.csv"
    write_manifest(whole, read_image_cohort(images))
    split_folder(whole, whole.with_name("split.csv"), allow_outside=True)
    assert read_image_cohort(whole.with_name("split.csv"), allow_outside=True).test


def test_a_divided_folder_is_not_divided_again(pictures, tmp_path):
    with pytest.raises(DatalistError, match="test images already"):
        split_folder(pictures, tmp_path / "split.csv")


@pytest.fixture
def repeated(tmp_path):
    """Twelve images a class, each of them twice, and each a third time among the unlabeled."""
    images = write_pictures(tmp_path / "images", training=12, validation=0, test=0, unlabeled=4)
    for path in sorted(images.glob("train/*/*.png")):
        shutil.copyfile(path, images / "unlabelled" / f"{path.parent.name}{path.name}")
        Image.open(path).convert("RGB").save(path.with_suffix(".bmp"))
    return images


@pytest.mark.parametrize("how", [{"test": 0.2}, {"test": 0.0}, {"validation": 0.0}, {"fold": (2, 3)}])
def test_copies_stand_on_one_side_and_training_takes_the_manifest(repeated, tmp_path, caplog, how):
    with caplog.at_level("WARNING"):
        counts = split_folder(repeated, tmp_path / "split.csv", **how)
    cohort = usable_cohort(tmp_path / "split.csv", options(allow_outside=True, hold_out=0.0))
    assert {name: len(cohort.section(name)) for name in counts} == counts
    held_out = counts["validation"] + counts["test"]
    assert held_out >= 4
    assert counts["unlabeled"] == 4 + 24 - held_out // 2
    left_out = [text for text in caplog.messages if "unlabeled images left out" in text]
    assert sum(int(text.split()[0]) for text in left_out) == held_out // 2


def test_training_holds_out_what_a_split_would(repeated, tmp_path):
    split_folder(repeated, tmp_path / "split.csv", validation=0.2, test=0.0, seed=3)
    found = usable_cohort(repeated, options(hold_out=0.2, seed=3))
    expected = read_image_cohort(tmp_path / "split.csv", allow_outside=True)
    assert found.validation
    for section in SECTIONS:
        assert [item.path for item in found.section(section)] == [
            item.path for item in expected.section(section)
        ]


def test_every_image_is_read_once(repeated, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(image_leaks, "read_image", lambda path: read.append(path) or read_image(path))
    split_folder(repeated, tmp_path / "split.csv", labels_per_class=3)
    assert len(read) == len(set(read)) == 48 + 28


def test_a_repeated_image_with_two_labels_is_refused(tmp_path):
    images = write_pictures(tmp_path / "images", training=10, validation=0, test=0)
    shutil.copyfile(images / "train/dark/3.png", images / "train/light/copy.png")
    with pytest.raises(DatalistError, match=r"two labels.*Decide which label"):
        split_folder(images, tmp_path / "split.csv")
    assert not (tmp_path / "split.csv").exists()


def test_images_that_cannot_be_read_are_refused_or_left_out(tmp_path):
    images = write_pictures(tmp_path / "images", training=10, validation=0, test=0)
    for name in ("train/dark/3.png", "train/light/4.png"):
        (images / name).write_bytes(b"")
    with pytest.raises(ImageError, match=r"2 of .*3\.png.*4\.png.*--skip-unreadable"):
        split_folder(images, tmp_path / "split.csv")
    assert not (tmp_path / "split.csv").exists()
    counts = split_folder(images, tmp_path / "split.csv", skip_unreadable=True)
    assert sum(counts.values()) == 38
    assert "dark/3.png" not in (tmp_path / "split.csv").read_text()


def test_a_folder_keeps_its_test_images_where_none_are_to_be_drawn(tmp_path):
    images = write_pictures(tmp_path / "images", training=10, validation=0, test=5)
    shutil.copyfile(images / "test/dark/0.png", images / "unlabelled" / "copy.png")
    counts = split_folder(images, tmp_path / "split.csv", validation=0.2, test=0.0)
    assert counts == {"training": 16, "validation": 4, "test": 10, "unlabeled": 20}
    cohort = usable_cohort(tmp_path / "split.csv", options(allow_outside=True))
    assert {item.path.parent.parent.name for item in cohort.test} == {"test"}
    assert {item.path.parent.parent.name for item in cohort.validation} == {"train"}


def test_a_folder_keeps_its_validation_images_where_none_are_to_be_drawn(tmp_path):
    images = write_pictures(tmp_path / "images", training=10, validation=3, test=0)
    counts = split_folder(images, tmp_path / "split.csv", validation=0.0, test=0.2)
    assert counts == {"training": 16, "validation": 6, "test": 4, "unlabeled": 20}


@pytest.mark.parametrize(
    ("training", "how"),
    [
        (5, {"validation": 0.0, "test": 0.0}),
        (5, {}),
        (5, {"fold": (1, 3)}),
        (5, {"test": 0.0, "fold": (4, 3)}),
    ],
)
def test_what_cannot_be_divided_is_refused_before_an_image_is_read(tmp_path, monkeypatch, training, how):
    images = write_pictures(tmp_path / "images", training=training)
    monkeypatch.setattr(image_leaks, "read_image", lambda path: pytest.fail("was read"))
    with pytest.raises(MedsslError):
        split_folder(images, tmp_path / "split.csv", **how)


def test_the_folds_of_a_folder_validate_each_image_once(tmp_path):
    images = write_pictures(tmp_path / "images", training=10, validation=0, test=0, unlabeled=0)
    held_out = []
    for number in (1, 2, 3):
        split_folder(images, tmp_path / f"{number}.csv", test=0.2, fold=(number, 3))
        cohort = read_image_cohort(tmp_path / f"{number}.csv", allow_outside=True)
        assert not {item.path for item in cohort.validation} & {item.path for item in cohort.training}
        assert len(cohort.test) == 4
        held_out += [item.path for item in cohort.validation]
    assert len(held_out) == len(set(held_out)) == 16
    assert split_folder(images, tmp_path / "no-test.csv", test=0.0, fold=(1, 4))["test"] == 0
    few = split_folder(images, tmp_path / "few.csv", test=0.2, fold=(1, 4), labels_per_class=3)
    assert (few["training"], few["validation"]) == (6, 4)
    with pytest.raises(ConfigError, match="no fold 4 of 3"):
        split_folder(images, tmp_path / "4.csv", test=0.2, fold=(4, 3))
    assert not (tmp_path / "4.csv").exists()


def test_images_that_look_alike_are_named_where_asked_for(tmp_path):
    images = write_pictures(tmp_path / "images")
    values = np.asarray(Image.open(images / "test" / "dark" / "0.png"))
    Image.fromarray(values + np.uint8(3)).save(images / "unlabelled" / "brighter.png")
    told = check_folder(images, similar=True).remarks
    assert any("test/dark/0.png looks like unlabelled/brighter.png" in one for one in told)
    assert not any("looks like" in one for one in check_folder(images).remarks)
