"""Predictions from the checkpoint alone, and how they are scored."""

import csv
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from pictures import CLASSES, picture
from PIL import Image
from torch import nn

from medssl.errors import CheckpointError, ConfigError, InputError
from medssl.io.classifier_card import ClassifierCard
from medssl.io.image_cohort import read_image_cohort
from medssl.io.image_items import ImageItem
from medssl.io.images import read_image
from medssl.transforms.classification import image_preprocessing
from medssl.transforms.image_views import VIEWS
from medssl.workflows.classification import predict
from medssl.workflows.classification.evaluate import evaluate_classifier, write_evaluation
from medssl.workflows.classification.models import ImageModel, load_classifier
from medssl.workflows.classification.predict import numbers_of, predict_folder, predict_items, predict_passes


@pytest.fixture(scope="module")
def run(compared):
    return compared[0].training.run


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_file_of_weights_is_enough(run, pictures, tmp_path):
    """D15."""
    alone = shutil.copyfile(run / "models" / "model.pt", tmp_path / "alone.pt")
    from_run = predict_folder(pictures / "test", tmp_path / "a.csv", run)
    from_file = predict_folder(pictures / "test", tmp_path / "b.csv", alone)
    assert np.array_equal(from_run.probabilities, from_file.probabilities)
    found = rows(tmp_path / "b.csv")
    assert list(found[0]) == ["path", "label", "confidence", "p_dark", "p_light"]
    assert found[0]["path"] == "dark/0.png"


def test_one_image_is_predicted_like_in_a_batch(run, pictures, tmp_path):
    """D17, D18."""
    whole = predict_folder(pictures / "test", tmp_path / "a.csv", run)
    one = predict_folder(pictures / "test" / "dark" / "0.png", tmp_path / "b.csv", run)
    assert one.names == ("0.png",)
    assert np.allclose(one.probabilities[0], whole.probabilities[0], atol=1e-5)


def test_views_are_averaged_and_unknown_ones_refused(run, pictures, tmp_path):
    items = read_image_cohort(pictures).test
    model = load_classifier(run)
    plain = predict_items(items, [model]).probabilities
    assert np.allclose(predict_items(items, [model, model]).probabilities, plain, atol=1e-6)
    both = predict_items(items, [model], ["identity", "hflip"]).probabilities
    alone = predict_items(items, [model], ["hflip"]).probabilities
    assert np.allclose(both, (plain + alone) / 2, atol=1e-6)
    with pytest.raises(ConfigError, match="upside_down"):
        predict_folder(pictures, tmp_path / "a.csv", run, views=["upside_down"])


class FirstPixels(nn.Module):
    """Says of an image what its upper left corner holds."""

    def forward(self, images):
        return 10 * images[:, :, :2, :2].mean((1, 3))


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16)])
def test_a_view_is_of_the_image_as_it_was_read(channels, dtype, fit, tmp_path, monkeypatch):
    """Decoded, then changed, then resized; oblong images can be turned."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr("medssl.workflows.classification.predict.BATCH", 2)
    images = [rng.integers(0, np.iinfo(dtype).max, (40, 24, channels), dtype=dtype) for _ in range(5)]
    items = [ImageItem(tmp_path / f"{number}.npy", f"{number}.npy", None) for number in range(5)]
    for item, image in zip(items, images, strict=True):
        np.save(item.path, image)
    card = ClassifierCard(CLASSES, {}, 10, channels, "bilinear", 2.0, fit=fit, white=65535)
    views = ("identity", "mean_blur", "rot90", "equalize")
    passes = predict_passes(items, [ImageModel("one", FirstPixels(), card, "")] * 2, views)
    assert passes.shape == (8, 5, 2)
    for number, view in enumerate(views):
        prepare = image_preprocessing(10, channels, fit=fit, white=65535, view=view)
        scores = FirstPixels()(torch.stack([prepare(image) for image in images]) / 255)
        for found in (passes[number], passes[4 + number]):
            torch.testing.assert_close(found, (scores / 2).softmax(1))
    plain = image_preprocessing(10, channels, fit=fit, white=65535)
    late = VIEWS["mean_blur"](torch.stack([plain(image) for image in images]) / 255)
    assert (passes[1] - (FirstPixels()(late) / 2).softmax(1)).abs().max() > 0.01


def test_models_of_one_input_share_the_images_and_others_get_their_own(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, (5, 24, 24, 1), dtype=np.uint8)
    items = [ImageItem(tmp_path / f"{number}.npy", f"{number}.npy", None) for number in range(5)]
    for item, image in zip(items, images, strict=True):
        np.save(item.path, image)
    opened = []
    reads = lambda path: opened.append(path) or read_image(path)  # noqa: E731
    monkeypatch.setattr("medssl.workflows.classification.predict.read_image", reads)
    small, large = (ClassifierCard(CLASSES, {}, size, 1, "bilinear", 1.0) for size in (10, 20))
    models = [
        ImageModel(name, FirstPixels(), card, "")
        for name, card in zip("abc", (small, large, small), strict=True)
    ]
    together = predict_passes(items, models, ["identity", "hflip"])
    assert len(opened) == 2 * len(items)
    apart = [predict_passes(items, [model], ["identity", "hflip"]) for model in models]
    assert torch.equal(together, torch.cat(apart))
    assert not torch.allclose(apart[0], apart[1])


def test_unsure_images_get_no_label(run, pictures, tmp_path):
    predict_folder(pictures / "test", tmp_path / "a.csv", run, abstain_below=1.0)
    assert {row["label"] for row in rows(tmp_path / "a.csv")} <= {"", *CLASSES}
    assert all(row["label"] == "" for row in rows(tmp_path / "a.csv") if float(row["confidence"]) < 1)


def test_the_confidence_that_was_chosen_in_training_can_be_asked_for(run, pictures, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(predict, "write_prediction_table", lambda *words: given.update(least=words[4]))
    loaded = load_classifier(run)
    for extra, least in (({"abstain_below": 0.7}, 0.7), ({}, None)):
        model = replace(loaded, card=replace(loaded.card, extra=extra))
        monkeypatch.setattr(predict, "open_classifier", lambda *_, model=model: model)
        if least is None:
            with pytest.raises(ConfigError, match="says none; expected 0 to 1, or 'chosen'"):
                predict_folder(pictures / "test", tmp_path / "a.csv", run, abstain_below="chosen")
        else:
            predict_folder(pictures / "test", tmp_path / "a.csv", run, abstain_below="chosen")
            assert given == {"least": least}


@pytest.mark.parametrize("asked", [1.5, -0.1, math.nan])
def test_a_confidence_out_of_range_is_refused_before_anything_is_written(asked, run, pictures, tmp_path):
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        predict_folder(pictures / "test", tmp_path / "a.csv", run, abstain_below=asked)
    assert not (tmp_path / "a.csv").exists()


def test_class_numbers_follow_the_model_not_the_folder(pictures):
    items = read_image_cohort(pictures).test
    assert numbers_of(items, ["light", "dark"]).tolist() == [1] * 5 + [0] * 5
    with pytest.raises(InputError, match="light"):
        numbers_of(items, ["dark", "dim"])


def test_weights_of_something_else_are_refused(run, tmp_path):
    with pytest.raises(InputError, match="No classifier"):
        load_classifier(tmp_path)
    brain = tmp_path / "brain.pt"
    import torch

    torch.save({"a": torch.zeros(1)}, brain)
    with pytest.raises(CheckpointError, match="does not say what"):
        load_classifier(brain)


def test_a_folder_without_images_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        predict_folder(tmp_path / "empty", tmp_path / "a.csv", run)


def test_evaluation_scores_the_test_images(run, pictures, tmp_path):
    result = evaluate_classifier(pictures, run)
    write_evaluation(tmp_path / "report", result, pictures)
    told = json.loads((tmp_path / "report" / "scores.json").read_text())
    predicted = rows(tmp_path / "report" / "predictions.csv")
    right = np.mean([row["label"] == row["path"].split("/")[1] for row in predicted])
    assert told["accuracy"] == pytest.approx(right)
    assert told["n"] == 10
    assert str(tmp_path) not in (tmp_path / "report" / "scores.json").read_text()


def test_a_folder_with_test_images_alone_is_scored_alike(run, pictures, tmp_path):
    shutil.copytree(pictures / "test", tmp_path / "alone" / "test")
    alone, within = evaluate_classifier(tmp_path / "alone", run), evaluate_classifier(pictures, run)
    assert np.array_equal(alone.predictions.probabilities, within.predictions.probabilities)
    assert np.array_equal(alone.labels, within.labels)


def test_evaluation_needs_the_models_classes(run, tmp_path):
    for label, name in enumerate(("dark", "bright")):
        folder = tmp_path / "images" / "test" / name
        folder.mkdir(parents=True)
        train = tmp_path / "images" / "train" / name
        train.mkdir(parents=True)
        Image.fromarray(picture(label, 1 + label)).save(folder / "0.png")
        Image.fromarray(picture(label, 5 + label)).save(train / "0.png")
    with pytest.raises(InputError, match="bright"):
        evaluate_classifier(tmp_path / "images", run)


@pytest.mark.parametrize("many", [False, True])
def test_all_unreadable_images_are_named_or_left_out(run, tmp_path, caplog, many, monkeypatch):
    if many:
        monkeypatch.setattr(predict, "BATCH", 2)
    for number in range(7):
        Image.fromarray(picture(number % 2, number)).save(tmp_path / f"{number}.png")
    for name in ("1.png", "6.png"):
        (tmp_path / name).write_bytes(b"no image")
    out = tmp_path.parent / f"{tmp_path.name}.csv"
    with pytest.raises(InputError, match=r"(?s)1\.png.*6\.png"):
        predict_folder(tmp_path, out, run)
    assert not out.exists()
    found = predict_folder(tmp_path, out, run, skip_unreadable=True)
    assert found.names == ("0.png", "2.png", "3.png", "4.png", "5.png")
    assert "1.png" in caplog.text
    assert "6.png" in caplog.text
