"""Channels and white are those of all images that training may see, and of no test image."""

import numpy as np
import pytest
from pictures import options, write_pictures
from PIL import Image

from medssl.io import image_leaks
from medssl.workflows.classification import image_input
from medssl.workflows.classification.baseline import train_with_baseline
from medssl.workflows.classification.image_input import channels_of, white_of_cohort
from medssl.workflows.classification.train import usable_cohort


def colored(path):
    """Turn a gray image blue."""
    gray = np.asarray(Image.open(path).convert("L"))
    Image.fromarray(np.stack([gray // 2, gray // 2, gray], 2)).save(path)


@pytest.mark.parametrize("section", ["train/light", "val/dark", "unlabelled"])
def test_one_color_image_among_many_gray_ones_is_seen(section, tmp_path):
    images = write_pictures(tmp_path / "images", training=80, validation=80, unlabeled=150)
    assert channels_of(usable_cohort(images, options())) == 1
    colored(sorted((images / section).iterdir())[3])
    assert channels_of(usable_cohort(images, options())) == 3


def test_images_are_read_for_it_once_a_run(tmp_path, monkeypatch):
    images = write_pictures(tmp_path / "images")
    read = []
    for module in (image_leaks, image_input):
        original = module.read_image
        monkeypatch.setattr(
            module, "read_image", lambda path, original=original: read.append(path) or original(path)
        )
    train_with_baseline(images, tmp_path / "run", options(method="mean-teacher", channels=None))
    assert len(read) == len(set(read)) == len(list(images.rglob("*.png")))


def test_test_images_do_not_decide_how_images_are_prepared(tmp_path):
    images = write_pictures(tmp_path / "images")
    for path in (images / "test").rglob("*.png"):
        colored(path)
    assert channels_of(usable_cohort(images, options())) == 1


def test_gray_images_that_are_stored_in_color_stay_gray(tmp_path):
    images = write_pictures(tmp_path / "images")
    for path in (images / "train" / "light").iterdir():
        Image.open(path).convert("RGB").save(path)
    assert channels_of(usable_cohort(images, options())) == 1


def test_dark_images_of_16_bits_keep_what_is_bright_in_them(tmp_path):
    """99.9 % of the pixels within 8 bits, and a few cells that glow."""
    images = write_pictures(tmp_path / "images")
    for path in images.rglob("*.png"):
        values = np.asarray(Image.open(path)).astype(np.uint16).repeat(8, 0).repeat(8, 1)
        values[0, 0] = 3000
        Image.fromarray(values).save(path)
    assert white_of_cohort(usable_cohort(images, options())) == 4095


def test_8_bits_in_files_of_16_stay_as_they_are(tmp_path):
    images = write_pictures(tmp_path / "images")
    for path in images.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16)).save(path)
    assert white_of_cohort(usable_cohort(images, options())) == 255
