import math

import numpy as np
import pytest

from medssl.evaluation import verdict as segmentation
from medssl.evaluation.classification import scores
from medssl.evaluation.classification_verdict import CANNOT_TELL, DID_NOT_HELP, HELPED, verdict
from medssl.labels import UNKNOWN

LABELS = np.arange(60) % 3
CLASSES = ("a", "b", "c")


def answers(wrong, labels=LABELS, n_classes=3):
    """Probabilities that are right but for the named places."""
    pred = labels % n_classes
    pred[list(wrong)] = (pred[list(wrong)] + 1) % n_classes
    return 0.1 / n_classes + 0.9 * np.eye(n_classes)[pred]


def test_the_words_are_those_of_segmentation():
    assert (HELPED, DID_NOT_HELP, CANNOT_TELL) == (
        segmentation.HELPED, segmentation.DID_NOT_HELP, segmentation.CANNOT_TELL,
    )  # fmt: skip


def test_a_clear_gain_helped():
    found = verdict("fixmatch", LABELS, answers(range(20)), answers(range(4)))
    assert found.answer == HELPED
    assert found.method_wins
    assert found.macro_f1.low > 0
    assert found.accuracy.value == pytest.approx(16 / 60)
    assert found.sentence.startswith("The unlabeled images helped: fixmatch against labeled-only +")
    assert "points of macro F1 on 60 held-out labeled images; accuracy +26.7 (95 % interval" in found.sentence


def test_the_differences_are_those_of_the_scores():
    before, after = answers(range(0, 30, 2)), answers(range(10))
    found = verdict("m", LABELS, before, after)
    first, second = (scores(LABELS, one, CLASSES, draws=0).measures for one in (before, after))
    assert found.macro_f1.value == pytest.approx(second["macro_f1"] - first["macro_f1"])
    assert found.accuracy.value == pytest.approx(second["accuracy"] - first["accuracy"])


def test_a_small_gain_cannot_be_told_from_none_and_the_method_is_returned():
    found = verdict("ssldec", LABELS, answers(range(6)), answers(range(1, 6)))
    assert found.answer == CANNOT_TELL
    assert found.macro_f1.low <= 0 < found.macro_f1.value
    assert found.method_wins
    assert "since the interval holds 0" in found.sentence
    assert "the semi-supervised network is returned" in found.sentence


def test_a_loss_did_not_help():
    for after in (answers(range(7)), answers(range(40))):
        found = verdict("mixmatch", LABELS, answers(range(6)), after)
        assert found.answer == DID_NOT_HELP
        assert not found.method_wins
        assert "did not help: mixmatch against labeled-only -" in found.sentence
        assert found.sentence.endswith("The labeled-only network is returned.")


def test_a_tie_goes_to_labeled_only():
    """Also one between different answers, and one that only a float's last digit decides."""
    last_digit = (answers((2, 5, 8)), answers((0, 3, 6)))  # the same three F1 in another order
    for before, after in (
        (answers(range(6)), answers(range(3, 9))),
        (answers((1,)), answers((1,))),
        last_digit,
    ):
        found = verdict("m", LABELS, before, after)
        assert found.answer == DID_NOT_HELP
        assert found.macro_f1.value == 0
        assert "+0.0" in found.sentence


def test_fewer_than_ten_images_tell_nothing():
    labels = np.arange(9) % 3
    better = verdict("m", labels, answers(range(9), labels), answers((), labels))
    worse = verdict("m", labels, answers((), labels), answers(range(9), labels))
    assert better.answer == worse.answer == CANNOT_TELL
    assert better.method_wins
    assert not worse.method_wins
    assert "fewer than 10 images were held out" in worse.sentence
    assert "the labeled-only network is returned" in worse.sentence
    ten = np.arange(10) % 3
    assert verdict("m", ten, answers(range(10), ten), answers((), ten)).answer == HELPED


@pytest.mark.parametrize("labels", [[], [UNKNOWN, UNKNOWN]])
def test_without_a_held_out_image_it_cannot_tell(labels):
    q = np.full((len(labels), 3), 1 / 3)
    found = verdict("m", np.array(labels, dtype=int), q, q)
    assert (found.answer, found.n, found.macro_f1) == (CANNOT_TELL, 0, None)
    assert found.method_wins
    assert found.sentence.startswith("Cannot tell")


def test_unknown_images_do_not_count():
    labels = np.where(np.arange(60) < 50, LABELS, UNKNOWN)
    found = verdict("m", labels, answers(range(50, 60)), answers(range(50, 60)))
    assert found.n == 50
    assert found.accuracy.value == 0


def test_the_interval_is_paired_and_repeats():
    """Two networks that err on the same images differ by nothing in every resample."""
    same = verdict("m", LABELS, answers(range(20)), answers(range(20)))
    assert (same.macro_f1.low, same.macro_f1.high) == (0, 0)
    first = verdict("m", LABELS, answers(range(20)), answers(range(9, 24)), seed=1)
    assert first == verdict("m", LABELS, answers(range(20)), answers(range(9, 24)), seed=1)
    assert first != verdict("m", LABELS, answers(range(20)), answers(range(9, 24)), seed=2)


def test_the_interval_is_as_wide_as_a_sum_of_changed_answers_has_it():
    """Accuracy moves by the images that changed: 10 of 60 here, spread over the classes alike."""
    found = verdict("m", LABELS, answers(range(12)), answers(()), draws=20_000).accuracy
    p = 12 / 60
    deviation = math.sqrt(p * (1 - p) / 60)
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_other_images_or_classes_are_refused():
    with pytest.raises(ValueError, match="different images or classes"):
        verdict("m", LABELS, answers(()), answers(())[:-1])
    with pytest.raises(ValueError, match="logits"):
        verdict("m", LABELS, answers(()), 3 * answers(()))
