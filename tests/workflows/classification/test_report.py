"""What the report on a classifier says of its labels, its arms and its weights."""

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from pictures import CLASSES

from medssl.evaluation.classification import scores
from medssl.evaluation.operating_points import AbstainPoint
from medssl.io.files import write_csv, write_json
from medssl.io.image_cohort import ImageCohort, read_image_cohort
from medssl.io.image_items import ImageItem
from medssl.workflows.classification import report
from medssl.workflows.classification.audit import run_audit
from medssl.workflows.classification.evaluate import evaluate_classifier
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import numbers_of, predict_items
from medssl.workflows.classification.pseudo_labels import KeepRule
from medssl.workflows.classification.report import _arms, _operating, _warnings, spread, write_report

MODEL = SimpleNamespace(card=SimpleNamespace(classes=CLASSES))
COHORT = ImageCohort(
    Path(),
    CLASSES,
    training=tuple(ImageItem(Path(f"{name}.png"), f"{name}.png", name) for name in CLASSES),
)


def labeled(folder, number, kept, **facts):
    """Write a round: whether the labels of some images are kept, by name."""
    path = folder / "pseudo_labels" / f"round-{number}.csv"
    answers = [
        {"path": name, "label": CLASSES[0], "kept": said, "confidence": 0.7, "p_dark": 0.7, "p_light": 0.3}
        for name, said in kept.items()
    ]
    write_csv(path, answers, list(answers[0]))
    if facts:
        write_json(path.with_suffix(".json"), facts)


@pytest.mark.parametrize("facts", [{}, {"targets": "hard", "views": ["identity"]}])
def test_kept_labels_are_counted_over_all_rounds_and_all_images(tmp_path, facts):
    """With and without a record of how a table was made."""
    labeled(tmp_path, 1, {"a": "yes", "b": "no", "c": "no", "d": "unlike"}, **facts)
    labeled(tmp_path, 2, {"b": "yes", "c": "no", "d": "no"}, **facts)
    labeled(tmp_path, 10, {"c": "no", "d": "yes"}, **facts)
    found = run_audit(tmp_path, COHORT, CLASSES)
    assert (found["n"], found["n_kept"], found["kept"]) == (4, 3, (3, 0))
    assert {one["name"] for one in found["least_certain"] if one["kept"]} == {"a", "b", "d"}


def test_a_label_that_is_taken_back_is_not_kept(tmp_path):
    labeled(tmp_path, 1, {"a": "yes", "b": "yes"})
    labeled(tmp_path, 2, {"a": "no", "b": "yes"})
    assert run_audit(tmp_path, COHORT, CLASSES)["n_kept"] == 1


def test_of_soft_targets_all_answers_are_learned_and_nothing_is_warned_of(tmp_path):
    labeled(tmp_path, 1, {"a": "no", "b": "no"}, targets="soft", views=["identity"])
    found = run_audit(tmp_path, COHORT, CLASSES)
    assert (found["n"], found["n_kept"], found["warnings"], found["targets"]) == (2, 2, [], "soft")


def test_without_a_table_there_is_no_audit(tmp_path):
    assert run_audit(tmp_path, COHORT, CLASSES) is None


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({**vars(KeepRule(threshold=0.7)), "targets": "hard"}, 0.7),
        ({**vars(KeepRule(top_k=5)), "targets": "hard"}, None),
        ({**vars(KeepRule(percentile=80)), "targets": "hard"}, None),
        ({**vars(KeepRule(threshold=(0.8, 0.6))), "targets": "hard"}, None),
        ({**vars(KeepRule()), "targets": "soft"}, None),
        ({"views": ["identity"]}, None),
        ({}, None),
    ],
)
def test_the_threshold_of_the_pseudo_labels_is_that_of_the_record(facts, expected, compared, pictures, tmp_path,
                                                                   monkeypatch):  # fmt: skip
    """Where another rule or one threshold a class decided, there is none to draw."""
    labeled(tmp_path, 9, {"unlabelled/0.png": "yes"}, **facts and {**facts, "threshold": 0.1})
    labeled(tmp_path, 10, {"unlabelled/1.png": "yes"}, **facts)
    pages = []
    monkeypatch.setattr(report, "render_classification_report", lambda page: pages.append(page) or "")
    monkeypatch.setattr(report, "_least_certain", lambda *_: [])
    run = compared[0].training.run
    write_report(tmp_path, pictures, run, evaluate_classifier(pictures, run), student=tmp_path)
    assert pages[0].threshold == expected


def test_all_arms_are_calibrated_on_the_same_validation_images(compared, pictures, monkeypatch):
    """The run has its temperature since it was promoted; exported files have that of the run."""
    run, record = compared[0].training.run, {"method": "ssldec", "verdict": {"returned": "ssldec"}}
    asked = []

    def fit(labels, scores):
        asked.append(labels.tolist())
        return 3.0

    monkeypatch.setattr("medssl.workflows.classification.calibrate.fit_temperature", fit)
    result = evaluate_classifier(pictures, run)
    cohort = read_image_cohort(pictures)
    arms = {arm.name: arm.scores for arm in _arms(run, cohort, result, record, None)}
    baseline = load_classifier(run / "candidates" / "supervised").at_temperature(3.0)
    q = predict_items(cohort.test, [baseline]).probabilities
    expected = scores(numbers_of(cohort.test, CLASSES), q, CLASSES).record()
    assert set(arms) == {"labeled-only", "ssldec"}
    assert arms["labeled-only"]["ece"] == pytest.approx(expected["ece"])
    assert [sorted(one) for one in asked] == [sorted(numbers_of(cohort.validation, CLASSES).tolist())]


def test_the_accuracy_of_no_answers_is_not_a_number_to_show():
    silent = AbstainPoint(threshold=0.99, coverage=0.0, accuracy=math.nan, n=3)
    told = dict(_operating(SimpleNamespace(abstaining=silent, finding=None)))
    assert told["images that get an answer"] == "0.0 %"
    assert told["right among them"] == "n/a"


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 11, 400])
def test_the_images_that_are_looked_at_are_spread_over_all_of_them(n):
    found = spread(range(n), 4)
    assert len(found) == len(set(found)) == min(4, n)
    gaps = [after - before for before, after in pairwise([*found, n])]
    assert not gaps or 0 < min(gaps) <= max(gaps) <= min(gaps) + 1


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"config": {"pretrained": None}}, []),
        ({"config": {"pretrained": "cached"}}, ["weights of mobileone_s1 are under"]),
        ({}, ["mobileone_s1, if it began with those, are under"]),
    ],
)
def test_the_license_of_published_weights_matters_where_a_training_began_with_them(extra, told):
    """As the model card says it; an exported file does not tell how its training began."""
    card = SimpleNamespace(network={"name": "mobileone_s1"}, extra=extra)
    found = _warnings(SimpleNamespace(card=card), {})
    assert len(found) == len(told)
    assert all(part in one for part, one in zip(told, found, strict=True))


def test_a_report_says_where_not_all_unlabeled_images_were_looked_at(
    compared, pictures, tmp_path, monkeypatch
):
    run = compared[0].training.run
    result = evaluate_classifier(pictures, run)
    assert "of 20, evenly" not in write_report(tmp_path, pictures, run, result).read_text()
    monkeypatch.setattr("medssl.workflows.classification.report.MOST_LOOKED_AT", 5)
    page = write_report(tmp_path, pictures, run, result).read_text()
    assert "among 5 of 20, evenly spread" in page
