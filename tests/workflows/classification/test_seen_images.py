"""Scores on images that a run has seen are refused, or say so."""

import json
import shutil
from pathlib import Path

import pytest
from image_trees import save_picture, write_tree

from medssl.errors import InputError
from medssl.io.files import write_json
from medssl.io.image_cohort import read_image_cohort, write_manifest
from medssl.io.image_items import ImageItem
from medssl.workflows.classification.evaluate import evaluate_classifier, write_evaluation
from medssl.workflows.classification.report import write_report
from medssl.workflows.classification.seen_images import remarks_on_seen_images
from medssl.workflows.classification.train import image_hashes

LEARNED = {f"{split}/{name}": 2 for split in ("train", "val") for name in ("cat", "dog")}


@pytest.fixture
def run(tmp_path):
    """A folder that says what a training saw, and nothing more."""
    cohort = read_image_cohort(write_tree(tmp_path / "images", LEARNED | {"unlabelled": 2}))
    out = tmp_path / "run"
    write_manifest(out / "images.csv", cohort)
    write_json(out / "run.json", {"transductive": False, "data_sha256": image_hashes(cohort, out)})
    return out


def other(run, *copied):
    """Return images of another folder: one of its own, and copies of those that are named."""
    root = run.parent / "other"
    items = [ImageItem(save_picture(root / "new.png", 99), "new.png", "cat")]
    for number, name in enumerate(copied):
        path = Path(shutil.copy(run.parent / "images" / name, root / f"copy{number}.png"))
        items.append(ImageItem(path, path.name, "cat"))
    return items


def test_new_images_are_nothing_to_speak_of(run):
    assert remarks_on_seen_images(other(run), "test", run) == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train/cat/1.png", r"1 of 2 test images were its labeled training images: copy0\.png\."),
        ("unlabelled/2.png", "1 of 2 test images were unlabeled images of its training"),
    ],
)
def test_test_images_that_taught_the_network_are_refused_under_any_name(run, name, words):
    with pytest.raises(InputError, match=rf"{words}.*--section training"):
        remarks_on_seen_images(other(run, name), "test", run)
    assert remarks_on_seen_images(other(run, name), "training", run) == ()


def test_where_the_images_of_a_run_are_gone_its_record_still_tells(run):
    items = other(run, "train/cat/1.png")
    shutil.rmtree(run.parent / "images")
    with pytest.raises(InputError, match="labeled training images"):
        remarks_on_seen_images(items, "test", run)


def test_a_transductive_run_may_have_seen_them_without_labels_only(run):
    write_json(run / "run.json", json.loads((run / "run.json").read_text()) | {"transductive": True})
    (said,) = remarks_on_seen_images(other(run, "unlabelled/2.png"), "test", run)
    assert said.startswith("1 of 2 test images were unlabeled images of its training")
    with pytest.raises(InputError, match="labeled training images"):
        remarks_on_seen_images(other(run, "unlabelled/2.png", "train/dog/1.png"), "test", run)


def test_a_labeled_image_that_is_unlabeled_too_counts_as_labeled(run):
    shutil.copy(run.parent / "images/train/cat/1.png", run.parent / "images/unlabelled/again.png")
    cohort = read_image_cohort(run.parent / "images")
    write_manifest(run / "images.csv", cohort)
    write_json(run / "run.json", {"transductive": True, "data_sha256": image_hashes(cohort, run)})
    with pytest.raises(InputError, match="labeled training images"):
        remarks_on_seen_images(other(run, "train/cat/1.png"), "test", run)


def test_validation_images_are_validation_images_and_no_test(run):
    items = other(run, "val/cat/2.png")
    assert remarks_on_seen_images(items, "validation", run) == ()
    (said,) = remarks_on_seen_images(items, "test", run)
    assert "validation images, on which its best step" in said
    (said,) = remarks_on_seen_images(other(run, "train/cat/2.png"), "validation", run)
    assert "1 of 2 validation images were its labeled training images" in said


def test_nothing_is_known_of_a_file_or_of_an_old_record(run):
    items = other(run, "train/cat/1.png")
    assert remarks_on_seen_images(items, "test", Path("model.onnx")) == ()
    write_json(run / "run.json", {"classes": ["cat", "dog"]})
    assert remarks_on_seen_images(items, "test", run) == ()


def test_scores_and_report_say_that_validation_images_were_scored(compared, pictures, tmp_path):
    run, data = compared[0].training.run, tmp_path / "data"
    shutil.copytree(pictures / "val", data / "test")
    result = evaluate_classifier(data, run)
    write_evaluation(tmp_path / "report", result, data)
    (said,) = json.loads((tmp_path / "report/scores.json").read_text())["warnings"]
    assert said.startswith("24 of 24 test images were its validation images")
    assert said in write_report(tmp_path / "report", data, run, result).read_text()
    shutil.copytree(pictures / "train", data / "test", dirs_exist_ok=True)
    with pytest.raises(InputError, match="12 of 24 test images were its labeled training images"):
        evaluate_classifier(data, run)
