import json
import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from medssl.evaluation import classification
from medssl.evaluation.classification import (
    MEASURES,
    WITH_INTERVAL,
    as_text,
    auroc,
    confusion_matrix,
    reliability,
    scores,
)
from medssl.functional.calibration import calibration_error
from medssl.io.files import write_json
from medssl.labels import UNKNOWN

CLASSES = ("benign", "malignant", "other")


def _reference_f1(labels, pred, one):
    """Count image by image; 0 for a class that is there and never called, NaN for one that is not there."""
    hits = calls = images = 0
    for label, called in zip(labels, pred, strict=True):
        hits += label == one and called == one
        calls += called == one
        images += label == one
    return math.nan if not images else 2 * hits / (calls + images)


def _reference_auroc(labels, probabilities):
    """Every pair of an image of the class and one of the rest; equal ones count half."""
    areas = []
    for one in range(probabilities.shape[1]):
        inside = [row[one] for row, label in zip(probabilities, labels, strict=True) if label == one]
        outside = [row[one] for row, label in zip(probabilities, labels, strict=True) if label != one]
        if inside and outside:
            wins = sum((a > b) + 0.5 * (a == b) for a in inside for b in outside)
            areas.append(wins / (len(inside) * len(outside)))
    return sum(areas) / len(areas)


@pytest.fixture
def sample():
    """Sixty images of three classes, probabilities rounded so that many tie."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 60, p=[0.6, 0.3, 0.1])
    raw = rng.random((60, 3)) + 0.6 * np.eye(3)[labels]
    tenths = np.round(10 * raw / raw.sum(1, keepdims=True))
    tenths[:, 0] += 10 - tenths.sum(1)
    return labels, tenths / 10


def one_hot(pred, n=3):
    return np.eye(n)[pred]


def test_measures_agree_with_naive_loops(sample):
    labels, probabilities = sample
    found = scores(labels, probabilities, CLASSES, draws=0)
    pred = probabilities.argmax(1)
    per_class = [_reference_f1(labels, pred, one) for one in range(3)]
    assert [one.f1 for one in found.per_class] == pytest.approx(per_class)
    assert found.measures["macro_f1"] == pytest.approx(sum(per_class) / 3)
    assert found.measures["accuracy"] == pytest.approx(sum(labels == pred) / 60)
    assert found.measures["auroc"] == pytest.approx(_reference_auroc(labels, probabilities), abs=1e-12)
    assert [one.n for one in found.per_class] == [sum(labels == one) for one in range(3)]
    assert [one.n_pred for one in found.per_class] == [sum(pred == one) for one in range(3)]


def test_measures_agree_with_scikit_learn(sample):
    """A second opinion on classes that are all there and all called."""
    labels, probabilities = sample
    pred = probabilities.argmax(1)
    found = scores(labels, probabilities, CLASSES, draws=0).measures
    assert found["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(labels, pred))
    assert found["macro_precision"] == pytest.approx(sklearn.precision_score(labels, pred, average="macro"))
    assert found["macro_recall"] == pytest.approx(sklearn.recall_score(labels, pred, average="macro"))
    assert found["macro_f1"] == pytest.approx(sklearn.f1_score(labels, pred, average="macro"))
    expected = sklearn.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert found["auroc"] == pytest.approx(expected)
    assert (confusion_matrix(labels, pred, 3) == sklearn.confusion_matrix(labels, pred)).all()


def test_a_confusion_matrix_by_hand():
    found = scores(np.array([0, 0, 1, 1, 1]), one_hot([0, 1, 1, 1, 0], 2), ("no", "yes"), draws=0)
    assert found.confusion.tolist() == [[1, 1], [1, 2]]
    assert found.measures["accuracy"] == pytest.approx(3 / 5)
    assert found.measures["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.measures["binary_f1_positive"] == pytest.approx(2 / 3)
    other = scores(np.array([0, 0, 1, 1, 1]), one_hot([0, 1, 1, 1, 0], 2), ("no", "yes"), positive=0, draws=0)
    assert other.measures["binary_f1_positive"] == pytest.approx(1 / 2)


def test_a_class_that_is_never_called_has_no_precision_and_f1_0():
    """Never a silent 0 for the precision: NaN in the data, "n/a" in print; the F1 of 0 counts."""
    found = scores(np.array([0, 0, 1, 2]), one_hot([0, 0, 1, 1]), CLASSES, draws=0)
    other = found.per_class[2]
    assert math.isnan(other.precision)
    assert (other.recall, other.f1, other.n, other.n_pred) == (0.0, 0.0, 1, 0)
    assert math.isnan(found.measures["macro_precision"])
    assert found.measures["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert as_text(other.precision) == as_text(found.measures["macro_precision"]) == "n/a"
    assert as_text(2 / 3) == "0.667"


def test_a_class_without_images_is_left_out_of_macro_means_even_where_it_was_called():
    found = scores(np.array([0, 0, 1, 1]), one_hot([0, 2, 1, 1]), CLASSES, draws=0)
    absent = found.per_class[2]
    assert absent.precision == 0
    assert math.isnan(absent.recall)
    assert math.isnan(absent.f1)
    assert found.measures["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert found.measures["balanced_accuracy"] == pytest.approx(0.75)
    assert found.measures["macro_precision"] == 1


def test_equal_probabilities_give_an_auroc_of_one_half_and_one_class_none():
    even = np.full((4, 2), 0.5)
    assert auroc(np.array([0, 1, 1, 0]), even) == 0.5
    assert math.isnan(auroc(np.array([1, 1, 1, 1]), even))


def test_the_two_areas_of_two_classes_are_one():
    rng = np.random.default_rng(1)
    labels, p = rng.integers(0, 2, 40), np.round(rng.random(40), 1)
    both = np.stack([1 - p, p], 1)
    assert auroc(labels, both) == pytest.approx(sklearn.roc_auc_score(labels, p))


def test_calibration_error_is_that_of_the_pure_function(sample):
    labels, probabilities = sample
    right = torch.tensor(probabilities.argmax(1) == labels)
    expected = calibration_error(torch.tensor(probabilities.max(1)), right)
    found = reliability(labels, probabilities)
    assert found.error == pytest.approx(expected)
    assert scores(labels, probabilities, CLASSES, draws=0).measures["ece"] == pytest.approx(expected)
    rng = np.random.default_rng(3)
    fine = rng.dirichlet([0.7] * 3, 200)  # calibrated: bins err in both directions, so that their width shows
    drawn = np.array([rng.choice(3, p=row) for row in fine])
    expected = calibration_error(torch.tensor(fine.max(1)), torch.tensor(fine.argmax(1) == drawn))
    assert reliability(drawn, fine).error == pytest.approx(expected)
    assert found.count.sum() == 60
    assert len(found.count) == 15
    assert np.isnan(found.accuracy[found.count == 0]).all()


def test_images_of_unknown_class_are_left_out_and_counted(sample):
    labels, probabilities = sample
    more = np.concatenate([labels, [UNKNOWN, UNKNOWN]])
    found = scores(more, np.concatenate([probabilities, probabilities[:2]]), CLASSES, draws=0)
    assert (found.n, found.n_unknown) == (60, 2)
    assert found.measures == pytest.approx(
        scores(labels, probabilities, CLASSES, draws=0).measures, nan_ok=True
    )


def test_intervals_hold_the_value_repeat_and_narrow_with_the_images(sample):
    labels, probabilities = sample
    found = scores(labels, probabilities, CLASSES, draws=400, seed=5)
    assert set(found.interval) == set(WITH_INTERVAL)
    for name, (low, high) in found.interval.items():
        assert low <= found.measures[name] <= high
        assert low < high
    assert found.interval == scores(labels, probabilities, CLASSES, draws=400, seed=5).interval
    assert found.interval != scores(labels, probabilities, CLASSES, draws=400, seed=6).interval
    many = scores(np.tile(labels, 9), np.tile(probabilities, (9, 1)), CLASSES, draws=400)
    assert np.diff(many.interval["accuracy"]) < 0.5 * np.diff(found.interval["accuracy"])


def test_resampled_measures_are_those_of_the_repeated_images(sample):
    """A weight of three is an image given three times."""
    labels, probabilities = sample
    weights = np.random.default_rng(2).integers(0, 4, (2, 60)).astype(float)
    areas = auroc(labels, probabilities, weights)
    confusions = confusion_matrix(labels, probabilities.argmax(1), 3, weights)
    for row, area, confusion in zip(weights, areas, confusions, strict=True):
        repeated = np.repeat(np.arange(60), row.astype(int))
        assert area == pytest.approx(_reference_auroc(labels[repeated], probabilities[repeated]))
        plain = confusion_matrix(labels[repeated], probabilities.argmax(1)[repeated], 3)
        assert (confusion == plain).all()


def test_a_perfect_classifier_scores_one_everywhere():
    labels = np.arange(12) % 3
    found = scores(labels, one_hot(labels), CLASSES, draws=50)
    assert {found.measures[name] for name in MEASURES[:6]} == {1.0}
    assert found.measures["ece"] == 0
    assert found.interval["macro_f1"] == (1.0, 1.0)


def test_the_record_is_plain_and_names_missing_values_null(tmp_path):
    found = scores(np.array([0, 0, 1, 2]), one_hot([0, 0, 1, 1]), CLASSES, draws=20)
    write_json(tmp_path / "metrics.json", found.record())
    plain = json.loads((tmp_path / "metrics.json").read_text())
    assert plain["per_class"][2]["precision"] is None
    assert plain["macro_precision"] is None
    assert plain["confusion"] == [[2, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert plain["classes"] == list(CLASSES)
    assert len(plain["reliability"]["accuracy"]) == 15
    assert set(plain["interval"]) == set(WITH_INTERVAL)


@pytest.mark.parametrize(
    ("labels", "probabilities", "text"),
    [
        ([0, 3], np.full((2, 3), 1 / 3), r"class numbers \[3\]"),
        ([0, -1], np.full((2, 3), 1 / 3), r"class numbers \[-1\]"),
        ([0, 1], np.full((3, 3), 1 / 3), r"shape \(3, 3\); expected \(2, 3\)"),
        ([0, 1], np.full((2, 2), 1 / 2), r"expected \(2, 3\)"),
        ([0, 1], np.array([[1, 0, 0], [2.0, -1, 0]]), "Row 1 .* logits"),
        ([0, 1], np.array([[1, 0, 0], [math.nan, 0, 0]]), "Row 1"),
        ([0, 1], np.array([[0.4, 0, 0], [1, 0, 0]]), "Row 0"),
        ([UNKNOWN, UNKNOWN], np.full((2, 3), 1 / 3), "no image with a known class among 2"),
    ],
)
def test_what_does_not_fit_is_refused(labels, probabilities, text):
    with pytest.raises(ValueError, match=text):
        scores(np.array(labels), probabilities, CLASSES)


def test_the_positive_f1_of_an_all_positive_model_flatters():
    """Spec 1.4: 62.5 % positive gives 0.77, although the model finds nothing."""
    confusion = np.array([[0.0, 234], [0, 390]])
    assert classification.binary_f1_positive(confusion) == pytest.approx(0.769, abs=5e-4)
    assert math.isnan(classification.binary_f1_positive(np.eye(3)))
