"""What the report on a classifier says of its labels, its arms and its weights."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pictures import CLASSES

from medssl.io.files import write_csv, write_json
from medssl.io.image_cohort import ImageCohort
from medssl.io.image_items import ImageItem
from medssl.workflows.classification.report import _audit

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
        {"path": name, "label": CLASSES[0], "kept": said, "p_dark": 0.7, "p_light": 0.3}
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
    found = _audit(tmp_path, COHORT, MODEL)
    assert (found["n"], found["n_kept"], found["kept"]) == (4, 3, (3, 0))
    assert {one["name"] for one in found["least_certain"] if one["kept"]} == {"a", "b", "d"}


def test_a_label_that_is_taken_back_is_not_kept(tmp_path):
    labeled(tmp_path, 1, {"a": "yes", "b": "yes"})
    labeled(tmp_path, 2, {"a": "no", "b": "yes"})
    assert _audit(tmp_path, COHORT, MODEL)["n_kept"] == 1


def test_of_soft_targets_all_answers_are_learned_and_nothing_is_warned_of(tmp_path):
    labeled(tmp_path, 1, {"a": "no", "b": "no"}, targets="soft", views=["identity"])
    found = _audit(tmp_path, COHORT, MODEL)
    assert (found["n"], found["n_kept"], found["warnings"], found["targets"]) == (2, 2, [], "soft")


def test_without_a_table_there_is_no_audit(tmp_path):
    assert _audit(tmp_path, COHORT, MODEL) is None
