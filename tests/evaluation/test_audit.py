import json
import math

import numpy as np
import pytest

from medssl.evaluation.audit import audit_pseudo_labels, class_warnings, threshold_curve
from medssl.io.files import write_json
from medssl.labels import UNKNOWN

CLASSES = ("a", "b", "c")


@pytest.fixture
def pool():
    """Six unlabeled images; the one called "e" is in between."""
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],
            [0.2, 0.8, 0.0],
            [0.1, 0.9, 0.0],
            [0.6, 0.4, 0.0],
            [0.4, 0.35, 0.25],
            [0.95, 0.05, 0],
        ]
    )
    return list("bcadef"), probabilities, probabilities.max(1) > 0.7


def _reference_curve(labels, probabilities, threshold):
    kept = [
        (row.argmax(), label)
        for row, label in zip(probabilities, labels, strict=True)
        if max(row) > threshold
    ]
    precision = sum(a == b for a, b in kept) / len(kept) if kept else math.nan
    return len(kept) / len(labels), precision, len(kept)


def test_coverage_and_counts(pool):
    found = audit_pseudo_labels(*pool, CLASSES, (2, 2, 2))
    assert (found.n, found.n_kept) == (6, 4)
    assert found.coverage == pytest.approx(4 / 6)
    assert found.predicted == (4, 2, 0)
    assert found.kept == (2, 2, 0)
    assert sum(found.confidence) == 6
    assert sum(found.confidence_kept) == 4
    assert len(found.edges) == len(found.confidence) + 1
    assert found.confidence[8] == 1  # 0.40 to 0.45


def test_the_least_certain_come_first_and_the_order_of_the_images_does_not_matter(pool):
    names, probabilities, kept = pool
    found = audit_pseudo_labels(*pool, CLASSES, (2, 2, 2), least=4).least_certain
    assert [(one.name, one.label, one.confidence, one.kept) for one in found] == [
        ("e", "a", 0.4, False), ("d", "a", 0.6, False), ("c", "b", 0.8, True), ("a", "b", 0.9, True),
    ]  # fmt: skip
    turned = audit_pseudo_labels(names[::-1], probabilities[::-1], kept[::-1], CLASSES, (2, 2, 2), least=4)
    assert turned.least_certain == found


def test_the_curve_agrees_with_a_naive_loop_and_is_strict():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 50)
    tenths = np.round(rng.dirichlet([1, 1, 1], 50), 1)
    tenths[:, 0] += 1 - tenths.sum(1)
    probabilities = np.clip(tenths, 0, None)
    probabilities /= probabilities.sum(1, keepdims=True)
    for point in threshold_curve(labels, probabilities.argmax(1), probabilities.max(1)):
        expected = _reference_curve(labels, probabilities, point.threshold)
        assert (point.coverage, point.precision, point.n) == pytest.approx(expected, nan_ok=True)
    exactly = threshold_curve(np.array([0]), np.array([0]), np.array([0.5]), (0.5, 0.49))
    assert [point.n for point in exactly] == [0, 1]
    assert math.isnan(exactly[0].precision)


def test_threshold_0_keeps_all_and_unknown_images_do_not_count(pool):
    labels = np.array([0, 1, 1, UNKNOWN, 0, 0])
    told = (labels, pool[1].argmax(1), pool[1].max(1))
    curve = audit_pseudo_labels(*pool, CLASSES, (2, 2, 2), validation=told).curve
    assert (curve[0].threshold, curve[0].coverage, curve[0].n) == (0, 1.0, 5)
    assert curve[0].precision == 1.0


def test_d23_a_class_without_a_pseudo_label_is_warned_of(pool):
    """Spec 8, D23: class imbalance of pseudo-labels unchecked."""
    (warning,) = audit_pseudo_labels(*pool, CLASSES, {"a": 2, "b": 2, "c": 2}).warnings
    assert warning.startswith("No pseudo-label says 'c'")


def test_d23_a_class_of_more_than_three_times_its_labeled_share_is_warned_of():
    """Spec 8, D23. Exactly three times is not more."""
    assert class_warnings(("a", "b"), (60, 40), (20, 80)) == ()
    (warning,) = class_warnings(("a", "b"), (61, 39), (20, 80))
    assert "61% of the pseudo-labels say 'a', which is 20% of the labeled images" in warning
    assert class_warnings(("a", "b"), (50, 50), (50, 50)) == ()
    assert "which is 0%" in class_warnings(("a", "b"), (1, 99), (0, 10))[0]


def test_no_pseudo_label_at_all_is_one_warning():
    (warning,) = class_warnings(("a", "b"), (0, 0), (5, 5))
    assert "training sees the labeled images alone" in warning


def test_labels_by_vote_are_counted_as_they_were_given(pool):
    label, confidence = pool[1].argmax(1), pool[1].max(1)
    label[0], confidence[0] = (label[0] + 1) % 3, 0.01
    found = audit_pseudo_labels(*pool, CLASSES, (2, 2, 2), given=(label, confidence))
    assert found.predicted == tuple(np.bincount(label, minlength=3).tolist())
    assert found.least_certain[0].name == pool[0][0]
    assert found.confidence[0] == 1


def test_an_empty_pool_has_no_coverage():
    found = audit_pseudo_labels([], np.zeros((0, 3)), np.zeros(0, bool), CLASSES, (1, 1, 1))
    assert math.isnan(found.coverage)
    assert found.least_certain == ()


def test_the_record_is_plain(pool, tmp_path):
    found = audit_pseudo_labels(
        *pool, CLASSES, (2, 2, 2), validation=(np.array([2]), np.array([0]), np.array([0.9]))
    )
    write_json(tmp_path / "audit.json", found.record())
    plain = json.loads((tmp_path / "audit.json").read_text())
    assert plain["kept"] == [2, 2, 0]
    assert plain["curve"][-1]["precision"] is None
    assert plain["least_certain"][0]["name"] == "e"


def test_what_does_not_belong_together_is_refused(pool):
    names, probabilities, kept = pool
    with pytest.raises(ValueError, match="5 names, 6 rows of probabilities and 6 decisions"):
        audit_pseudo_labels(names[1:], probabilities, kept, CLASSES, (1, 1, 1))
    with pytest.raises(ValueError, match="logits"):
        audit_pseudo_labels(names, 2 * probabilities, kept, CLASSES, (1, 1, 1))
