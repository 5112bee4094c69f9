"""The model card of a run says what its two networks reached."""

import json
from dataclasses import asdict

import pytest
from pictures import options

from medssl.evaluation.classification import scores
from medssl.reporting.model_card import Origin
from medssl.workflows.classification.baseline import compare_runs
from medssl.workflows.classification.model_card import write_model_card
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import numbers_of, predict_items
from medssl.workflows.classification.train import cohort_of_run, train_classifier


def row(run, cohort, name):
    """Score a run anew."""
    q = predict_items(cohort.validation, [load_classifier(run)]).probabilities
    labels = numbers_of(cohort.validation, cohort.classes)
    found = scores(labels, q, cohort.classes, draws=0).measures
    return f"| {name} | {found['macro_f1']:.3f} | {found['accuracy']:.3f} |"


@pytest.fixture(scope="module")
def able(pictures):
    """A run that is better than those of four plain steps."""
    settings = {"steps_per_epoch": 1, "learning_rate": 0.01, "average": 0.5, "epochs": 4}
    return train_classifier(pictures, pictures.parent / "able", options(settings=settings)).run


@pytest.mark.parametrize("returned", ["supervised", "ssldec"])
def test_the_scores_of_both_networks_are_those_that_they_have(returned, able, compared, monkeypatch):
    other = compared[0].training.run / "candidates" / "supervised"
    baseline, method = (able, other) if returned == "supervised" else (other, able)
    record = json.loads((able / "run.json").read_text())
    cohort = cohort_of_run(able, record["classes"])
    found = compare_runs("ssldec", cohort, baseline, method)
    assert abs(found.macro_f1.value) > 0.1
    record["verdict"] = {"returned": returned, **asdict(found)}
    written = []
    monkeypatch.setattr(
        "medssl.workflows.classification.model_card.write_text", lambda _, text: written.append(text)
    )
    write_model_card(able, record, Origin(4, 0, "random weights"), cohort.validation)
    names = ["supervised baseline", "semi-supervised network"]
    names[returned == "ssldec"] += " (returned)"
    both = [row(run, cohort, name) for run, name in zip((baseline, method), names, strict=True)]
    assert "\n".join(both) in written[0]
