"""`medssl classify split`: shares of 0, and what it says."""

import shutil

import pytest
from click.testing import CliRunner
from pictures import write_pictures

from medssl.cli import main


@pytest.fixture
def images(tmp_path):
    return write_pictures(tmp_path / "images", training=10, validation=0, test=0, unlabeled=4)


def call(*words):
    return CliRunner().invoke(main, ["classify", "split", *map(str, words)])


@pytest.mark.parametrize(
    ("shares", "counts"),
    [
        (["--test", 0, "--validation", 0.2], "16 training, 4 validation, 0 test, 4 unlabeled images."),
        (["--test", 0.2, "--validation", 0], "16 training, 0 validation, 4 test, 4 unlabeled images."),
    ],
)
def test_a_part_may_be_left_out(images, tmp_path, shares, counts):
    done = call(images, "--out", tmp_path / "split.csv", *shares)
    assert done.exit_code == 0, done.output
    assert counts in done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "split.csv")]


def test_a_split_into_nothing_is_refused_with_the_options_and_the_cure(images, tmp_path):
    done = call(images, "--out", tmp_path / "split.csv", "--test", 0, "--validation", 0)
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "--validation and --test are both 0" in said
    assert "Give one of them a share above 0" in said


def test_unlabeled_copies_that_are_left_out_are_counted(images, tmp_path):
    for path in (images / "train" / "dark").iterdir():
        shutil.copyfile(path, images / "unlabelled" / f"copy{path.name}")
    done = call(images, "--out", tmp_path / "split.csv", "--test", 0.2, "--validation", 0)
    assert done.exit_code == 0, done.output
    assert "2 unlabeled images left out" in done.stderr
    assert "16 training, 0 validation, 4 test, 12 unlabeled images." in done.stderr
