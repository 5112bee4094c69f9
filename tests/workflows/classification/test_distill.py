"""Distillation: who teaches whom, which labels are kept, and that the budget is shared."""

import csv
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pictures import CLASSES, options, write_pictures
from runs import StopAfter, same, table, weights

from medssl.engines import TrainingInterrupted
from medssl.errors import ConfigError, DatalistError, InputError, MedsslError, OutputError
from medssl.evaluation.classification_verdict import ClassificationVerdict
from medssl.io.image_cohort import read_image_cohort
from medssl.io.images import read_image
from medssl.io.pseudo_label_table import kept_labels, taught_entries
from medssl.transforms.image_views import VIEW_PRESETS
from medssl.workflows.classification import audit, predict
from medssl.workflows.classification.audit import AUDIT_FILE
from medssl.workflows.classification.baseline import train_with_baseline
from medssl.workflows.classification.distill import distill
from medssl.workflows.classification.distill_options import DistillOptions
from medssl.workflows.classification.methods import DISTILLATIONS, Distillation
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import (
    numbers_of,
    predict_items,
    predict_passes,
    scores_of,
)
from medssl.workflows.classification.pseudo_labels import KeepRule
from medssl.workflows.classification.report import _done
from medssl.workflows.classification.train import cohort_of_run, train_classifier


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def chosen(kind="plain", **changes):
    student = options(**{"steps": 12, **changes.pop("student", {})})
    return DistillOptions(kind=kind, student=student, **changes)


@pytest.fixture(scope="module")
def distilled(pictures):
    """Read only."""
    return distill(pictures, pictures.parent / "distilled", chosen("data", rule=KeepRule(threshold=0.0)))


def test_every_unlabeled_image_has_a_row_and_the_kept_ones_are_learned(distilled):
    """D16."""
    run = distilled.training.run
    labels = rows(run / "pseudo_labels" / "round-1.csv")
    assert len(labels) == 20
    assert {row["kept"] for row in labels} == {"yes"}, "a threshold of 0 keeps all"
    student = read_image_cohort(run / "candidates" / "student" / "images.csv", allow_outside=True)
    assert len(student.training) == 12 + 20
    assert {row["n_views"] for row in labels} == {"3"}


def test_without_a_baseline_the_student_is_returned_and_nothing_is_claimed(pictures, tmp_path):
    options_of = chosen(rule=KeepRule(threshold=0.0), baseline=False)
    with pytest.raises(TrainingInterrupted):
        distill(pictures, tmp_path / "run", options_of, StopAfter(8))
    done = distill(pictures, tmp_path / "run", DistillOptions(), resume=True)
    run = done.training.run
    assert [folder.name for folder in (run / "candidates").iterdir()] == ["student"]
    assert done.verdict.answer == "cannot tell"
    record = json.loads((run / "run.json").read_text())
    assert record["verdict"]["returned"] == "student"
    assert "no supervised baseline was trained beside plain distillation" in record["verdict"]["sentence"]
    assert "--no-baseline" in record["command"]
    told = " ".join(_done(run, record))
    assert "was trained for 6 steps" in told
    assert told.endswith("Teachers, rounds and student of the distillation share 12 steps of as many images.")


def test_the_student_tells_the_command_that_repeats_its_distillation(distilled):
    folders = (distilled.training.run, distilled.training.run / "candidates" / "student")
    commands = {json.loads((folder / "run.json").read_text())["command"] for folder in folders}
    assert len(commands) == 1
    assert commands.pop().startswith("medssl classify distill")


def test_the_overlay_of_the_bundle_finds_what_the_student_learned(distilled):
    run = distilled.training.run
    student = cohort_of_run(run / "candidates" / "student", list(CLASSES))
    found = taught_entries(run, run / "pseudo_labels", list(CLASSES), allow_outside=True)
    told = {(Path(entry["image"]).resolve(), CLASSES[entry["label"]]) for entry in found}
    assert told == {(item.path.resolve(), item.label) for item in student.training}
    assert len(found) > len(cohort_of_run(run, list(CLASSES)).training)


def test_teachers_and_student_share_the_steps_of_the_baseline(distilled):
    run = distilled.training.run
    steps = [json.loads(path.read_text())["steps"] for path in run.glob("teachers/*/run.json")]
    student, baseline = (
        json.loads((run / "candidates" / name / "run.json").read_text())["steps"]
        for name in ("student", "supervised")
    )
    assert sum(steps) + student == baseline == 12


def test_nothing_is_kept_above_a_threshold_of_one(pictures, tmp_path):
    """The student is then what supervised training of its steps makes, bit for bit."""
    done = distill(pictures, tmp_path / "run", chosen(rule=KeepRule(threshold=1.0), baseline=False))
    assert {row["kept"] for row in rows(tmp_path / "run" / "pseudo_labels" / "round-1.csv")} == {"no"}
    run = done.training.run / "candidates" / "student"
    assert len(read_image_cohort(run / "images.csv", allow_outside=True).training) == 12
    steps = json.loads((run / "run.json").read_text())["steps"]
    supervised = train_classifier(pictures, tmp_path / "supervised", options(steps=steps)).run
    assert same(weights(run), weights(supervised))


def test_one_teacher_and_one_view_are_plain_distillation_by_whatever_name(pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(VIEW_PRESETS, "none", ())
    monkeypatch.setitem(DISTILLATIONS, "model", Distillation(1, views=False, summary=""))
    found = {}
    for kind in ("plain", "data", "model"):
        run = distill(
            pictures, tmp_path / kind, chosen(kind, rule=KeepRule(threshold=0.5), baseline=False)
        ).training.run
        found[kind] = (run / "pseudo_labels" / "round-1.csv").read_bytes(), weights(run)
    table, student = found["plain"]
    assert b"yes" in table
    for other, learned in found.values():
        assert other == table
        assert same(learned, student)


def test_several_teachers_and_rounds(pictures, tmp_path):
    rule = KeepRule(threshold=0.5)
    done = distill(pictures, tmp_path / "run", chosen("model", rounds=2, rule=rule, student={"seed": 3}))
    assert len(list((tmp_path / "run" / "teachers").iterdir())) in (2, 4)
    first = rows(tmp_path / "run" / "pseudo_labels" / "round-1.csv")
    kept = [row["path"] for row in first if row["kept"] == "yes"]
    second = tmp_path / "run" / "pseudo_labels" / "round-2.csv"
    if second.is_file():
        assert not set(kept) & {row["path"] for row in rows(second)}, "only what has no label yet is labeled"
    assert done.outcome.rounds <= 2


def test_the_table_tells_views_and_votes_of_several_teachers_apart(pictures, tmp_path):
    run = distill(pictures, tmp_path / "run", chosen("data-model", rounds=1)).training.run
    table = rows(run / "pseudo_labels" / "round-1.csv")
    views = json.loads((run / "pseudo_labels" / "round-1.json").read_text())["views"]
    assert {row["n_views"] for row in table} == {str(len(views))}
    votes = {int(row["teacher_votes"]) for row in table}
    assert votes <= {0, 1, 2}, "a teacher votes once, whatever its views say"
    assert 2 in votes


def test_a_stopped_distillation_gives_the_same_student(pictures, tmp_path, distilled):
    same_options = chosen("data", rule=KeepRule(threshold=0.0))
    with pytest.raises(TrainingInterrupted):
        distill(pictures, tmp_path / "run", same_options, StopAfter(8))
    done = distill(pictures, tmp_path / "run", same_options, resume=True)
    students = [one.training.run / "candidates" / "student" for one in (done, distilled)]
    assert same(*[weights(run) for run in students])
    tables = [rows(one.training.run / "pseudo_labels" / "round-1.csv") for one in (done, distilled)]
    for one, other in zip(*tables, strict=True):  # paths are as seen from the table
        assert one | {"path": Path(one["path"]).name} == other | {"path": Path(other["path"]).name}


def test_a_resumed_distillation_keeps_its_own_options(pictures, tmp_path):
    with pytest.raises(TrainingInterrupted):
        distill(pictures, tmp_path / "run", chosen("data", rule=KeepRule(threshold=0.0)), StopAfter(2))
    distill(pictures, tmp_path / "run", DistillOptions(), resume=True)
    labels = rows(tmp_path / "run" / "pseudo_labels" / "round-1.csv")
    assert {row["kept"] for row in labels} == {"yes"}
    assert json.loads((tmp_path / "run" / "run.json").read_text())["network"] == "vgg-small-28"


def test_teachers_may_take_images_of_other_sizes(pictures, tmp_path):
    teachers = ("vgg-small-28", "vgg-small-64")
    done = distill(pictures, tmp_path / "run", chosen("model", teachers=teachers, student={"size": None}))
    assert len(rows(done.training.run / "pseudo_labels" / "round-1.csv")) == 20


def test_pseudo_labels_know_nothing_of_the_temperature(distilled, pictures):
    """It was fitted on validation labels."""
    run = distilled.training.run
    teacher = load_classifier(next((run / "teachers").iterdir())).uncalibrated()
    items = read_image_cohort(run / "images.csv", allow_outside=True).unlabeled
    found = predict_items(items, [teacher], ("identity", *VIEW_PRESETS["none"])).probabilities.max(1)
    written = [float(row["confidence"]) for row in rows(run / "pseudo_labels" / "round-1.csv")]
    assert written == pytest.approx(found.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "model", "teachers": ("vgg-small-28",)}, "at least 2"),
        ({"kind": "plain", "teachers": ("vgg-small-28", "vgg-small-28")}, "one teacher"),
        ({"kind": "big"}, "data-model"),
        ({"rounds": 0}, "below 1"),
        ({"relabel": "all"}, "found one round"),
        ({"recipe": "best"}, "no recipe 'best'"),
        ({"targets": "soft", "recipe": "paper"}, "keeps no labels, with --recipe"),
        ({"targets": "soft", "rule": KeepRule(weight="confidence")}, "keeps no labels, with --weight"),
        ({"targets": "soft", "rule": KeepRule(energy_percentile=95)}, "keeps no labels, with --energy-perc"),
        ({"targets": "soft", "rule": KeepRule(threshold=0.9)}, "keeps no labels, with --threshold"),
        ({"relabel": "some", "rounds": 2}, "'some'. Choose one of: remaining, all"),
        ({"views": ("upside_down",), "kind": "data"}, "upside_down"),
        ({"views": ("vflip",), "kind": "plain"}, "--view vflip with --kind plain"),
        ({"views": ("vflip",), "kind": "model"}, "--view vflip with --kind model"),
        ({"rule": KeepRule(threshold=0.9, top_k=3)}, "--threshold 0.9 with --top-k"),
        ({"rule": KeepRule(threshold=(0.9, 0.8), percentile=50)}, "with --percentile"),
        ({"student": {"network": "vgg-smal-28"}}, "vgg-smal-28"),
        ({"teachers": ("vgg-smal-28",)}, "vgg-smal-28"),
        ({"kind": "model", "student": {"steps": 2}}, "cannot be shared"),
    ],
)
def test_bad_options_are_refused_before_a_teacher_trains(changes, words, pictures, tmp_path):
    with pytest.raises(ConfigError, match=words):
        distill(pictures, tmp_path / "run", chosen(**changes))
    assert not (tmp_path / "run" / "teachers").exists()


def test_without_unlabeled_images_there_is_nothing_to_distill(tmp_path):
    images = write_pictures(tmp_path / "images", unlabeled=0)
    with pytest.raises(DatalistError, match="no unlabeled image"):
        distill(images, tmp_path / "run", chosen())


@pytest.mark.parametrize(("views", "seen"), [((), VIEW_PRESETS["digits"]), (("hflip",), ("hflip",))])
def test_teachers_see_views_that_suit_the_images(pictures, tmp_path, views, seen):
    run = distill(
        pictures, tmp_path / "run", chosen("data", views=views, student={"preset": "digits"})
    ).training.run
    assert json.loads((run / "pseudo_labels" / "round-1.json").read_text())["views"] == ["identity", *seen]
    assert ("--view" in json.loads((run / "run.json").read_text())["command"]) == bool(views)


@pytest.mark.parametrize(
    ("rule", "kept", "told"),
    [
        (KeepRule(top_k=3), lambda given, one: min(3, given.count(one)), "--top-k 3"),
        (KeepRule(percentile=100), lambda given, one: 0, "--percentile 100"),
        (
            KeepRule(threshold=(1.0, 0.0)),
            lambda given, one: given.count(one) * (one == CLASSES[1]),
            "--threshold 1.0,0.0",
        ),
        (
            KeepRule(threshold=(0.0, 1.0)),
            lambda given, one: given.count(one) * (one == CLASSES[0]),
            "--threshold 0.0,1.0",
        ),
    ],
)
def test_other_rules_keep_other_labels(pictures, tmp_path, rule, kept, told):
    run = distill(pictures, tmp_path / "run", chosen("plain", rule=rule)).training.run
    table = rows(run / "pseudo_labels" / "round-1.csv")
    given = [row["label"] for row in table]
    found = [row["label"] for row in table if row["kept"] == "yes"]
    assert {one: found.count(one) for one in CLASSES} == {one: kept(given, one) for one in CLASSES}
    assert told in json.loads((run / "run.json").read_text())["command"]


def test_as_many_thresholds_as_classes_are_asked_for_before_a_teacher_trains(pictures, tmp_path):
    with pytest.raises(ConfigError, match="3 thresholds for 2 classes: dark, light"):
        distill(pictures, tmp_path / "run", chosen(rule=KeepRule(threshold=(0.1, 0.2, 0.3))))
    assert not (tmp_path / "run").exists()


def test_an_unknown_weight_is_refused():
    with pytest.raises(ConfigError, match=r"'sureness' of kept labels\. Choose one of: none, confidence"):
        KeepRule(weight="sureness")


@pytest.mark.parametrize("percentile", [-1, 101, math.nan])
def test_an_energy_percentile_that_is_none_is_refused(percentile):
    with pytest.raises(ConfigError, match="expected one from 0 to 100"):
        KeepRule(energy_percentile=percentile)


@pytest.mark.parametrize("number", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["cap", "balance"])
def test_a_bound_that_is_none_is_refused_by_its_name(name, number):
    with pytest.raises(ConfigError, match=f"--{name} {number}; expected a finite number"):
        KeepRule(**{name: number})


def test_two_rules_are_refused():
    with pytest.raises(ConfigError, match="each decides alone"):
        KeepRule(top_k=3, percentile=50)


@pytest.mark.parametrize("rounds", [3, 10])
def test_a_small_budget_has_steps_for_two_rounds(pictures, tmp_path, rounds):
    with pytest.raises(ConfigError, match="--budget quick are enough for 2 rounds"):
        distill(pictures, tmp_path / "run", chosen(rounds=rounds, student={"steps": None, "budget": "quick"}))
    assert not (tmp_path / "run").exists()


def test_a_threshold_of_zero_stands_in_the_command(distilled):
    assert "--threshold 0.0" in json.loads((distilled.training.run / "run.json").read_text())["command"]


@pytest.mark.parametrize("options_of", [KeepRule, DistillOptions, type(options())])
def test_options_are_given_by_name_alone(options_of):
    """D20: a confidence can never land where a batch size belongs."""
    with pytest.raises(TypeError):
        options_of(0.8)


def test_soft_targets_are_the_mean_answers_of_all_passes(pictures, tmp_path):
    done = distill(pictures, tmp_path / "run", chosen("data", targets="soft"))
    run = done.training.run
    teacher = load_classifier(next((run / "teachers").glob("round-*"))).uncalibrated()
    student = run / "candidates" / "student"
    cohort = read_image_cohort(student / "images.csv", allow_outside=True)
    assert len(cohort.unlabeled) == 20, "all unlabeled images teach, whatever is kept"
    answers = torch.load(student / "targets.pt", weights_only=True)["log_p"].exp()
    views = ("identity", *VIEW_PRESETS["none"])
    passes = predict_passes(cohort.unlabeled, [teacher], views)
    torch.testing.assert_close(answers.double(), passes.double().mean(0), atol=1e-6, rtol=1e-5)
    labeled = torch.load(student / "targets.pt", weights_only=True)["log_p_labeled"].exp()
    passes = predict_passes(cohort.training, [teacher], views)
    torch.testing.assert_close(labeled.double(), passes.double().mean(0), atol=1e-6, rtol=1e-5)
    config = yaml.safe_load((student / "configs" / "train.yaml").read_text())
    assert config["loss"]["_target_"] == "medssl.objectives.SoftDistillation"
    assert "--targets soft" in json.loads((run / "run.json").read_text())["command"]
    losses = [float(row["loss_unlabeled"]) for row in table(student / "metrics.tsv")]
    assert losses
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)


def test_a_setting_of_soft_distillation_reaches_the_student_alone(pictures, tmp_path):
    student = {"settings": {"temperature": 2.0, "teacher_weight": 1.0}}
    run = distill(pictures, tmp_path / "run", chosen("plain", targets="soft", student=student)).training.run
    config = yaml.safe_load((run / "candidates" / "student" / "configs" / "train.yaml").read_text())
    assert (config["temperature"], config["teacher_weight"]) == (2.0, 1.0)


@pytest.mark.parametrize(("reduce", "above"), [("mean_prob", 24), ("vote", 0)])
def test_the_curve_over_thresholds_is_of_labels_as_the_rule_makes_them(
    reduce, above, pictures, tmp_path, monkeypatch
):
    """One view says "dark" with .9, two "light" with .53: the mean is "dark" with .61, the vote "light" with .53."""
    said = torch.tensor([[0.9, 0.1], [0.47, 0.53], [0.47, 0.53]])
    monkeypatch.setattr(audit, "predict_passes", lambda items, *_: said[:, None].repeat(1, len(items), 1))
    rule = KeepRule(threshold=0.0, reduce=reduce)
    run = distill(pictures, tmp_path / "run", chosen("data", rule=rule, baseline=False)).training.run
    curve = {point["threshold"]: point["n"] for point in json.loads((run / AUDIT_FILE).read_text())["curve"]}
    assert (curve[0.5], curve[0.55]) == (24, above)


def test_soft_targets_in_rounds_are_refused(pictures, tmp_path):
    with pytest.raises(ConfigError, match="soft with 1 round"):
        distill(pictures, tmp_path / "run", chosen("plain", targets="soft", rounds=2))
    assert not (tmp_path / "run").exists()


def test_a_distillation_and_a_training_are_told_apart_on_resume(pictures, tmp_path):
    with pytest.raises(TrainingInterrupted):
        distill(pictures, tmp_path / "distilled", chosen("data"), StopAfter(2))
    with pytest.raises(OutputError, match="is a distillation"):
        train_with_baseline(pictures, tmp_path / "distilled", options(), resume=True)
    with pytest.raises(TrainingInterrupted):
        train_with_baseline(pictures, tmp_path / "trained", options(method="ssldec"), StopAfter(2))
    with pytest.raises(OutputError, match="is no distillation"):
        distill(pictures, tmp_path / "trained", chosen("data"), resume=True)
    with pytest.raises(TrainingInterrupted):
        train_classifier(pictures, tmp_path / "alone", options(), StopAfter(1))
    with pytest.raises(OutputError, match="is no distillation"):
        distill(pictures, tmp_path / "alone", chosen("data"), resume=True)


@pytest.mark.parametrize("go", [train_classifier, train_with_baseline, distill])
def test_where_nothing_began_nothing_goes_on(go, pictures, tmp_path):
    with pytest.raises(InputError, match=r"no run to go on with.*Start it without --resume"):
        go(pictures, tmp_path / "run", chosen() if go is distill else options(), resume=True)
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_the_student_are_seen_before_a_teacher_trains(pictures, tmp_path):
    torch.save({"nothing": torch.zeros(1)}, tmp_path / "other.pt")
    begun = []
    with pytest.raises(MedsslError):
        distill(
            pictures,
            tmp_path / "run",
            chosen("data", student={"pretrained": str(tmp_path / "other.pt")}),
            say=begun.append,
        )
    assert not begun


def steps_of(run):
    """Steps of each teacher, of the student and of the baseline."""
    found = [json.loads(path.read_text())["steps"] for path in sorted(run.glob("teachers/*/run.json"))]
    own = [
        json.loads((run / "candidates" / name / "run.json").read_text())["steps"]
        for name in ("student", "supervised")
    ]
    return found, *own


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_teachers_whom_no_round_asks_are_not_trained_and_the_student_has_their_steps(
    threshold, pictures, tmp_path
):
    """All labels are kept in round 1, or none: another round would label nothing, or say the same."""
    rule = KeepRule(threshold=threshold)
    done = distill(pictures, tmp_path / "run", chosen("data", rounds=3, rule=rule))
    assert done.outcome.rounds < 3
    assert steps_of(tmp_path / "run") == ([3], 9, 12)
    assert [path.name for path in (tmp_path / "run" / "pseudo_labels").glob("*.csv")] == ["round-1.csv"]


def test_the_student_has_the_steps_that_equal_shares_leave(pictures, tmp_path):
    distill(pictures, tmp_path / "run", chosen("model", student={"steps": 11}))
    assert steps_of(tmp_path / "run") == ([3, 3], 5, 11)


def test_rounds_that_keep_more_and_more_share_the_steps(pictures, tmp_path):
    distill(pictures, tmp_path / "run", chosen("plain", rounds=2, rule=KeepRule(top_k=1)))
    assert steps_of(tmp_path / "run") == ([4, 4], 4, 12)


def test_a_stopped_student_goes_on_with_the_steps_that_were_left(pictures, tmp_path):
    options_of = chosen("data", rounds=3, rule=KeepRule(threshold=0.0))
    with pytest.raises(TrainingInterrupted):
        distill(pictures, tmp_path / "run", options_of, StopAfter(5))
    distill(pictures, tmp_path / "run", options_of, resume=True)
    assert steps_of(tmp_path / "run") == ([3], 9, 12)


@pytest.mark.parametrize("relabel", ["remaining", "all"])
def test_a_cap_holds_for_all_rounds_together(relabel, pictures, tmp_path):
    """12 labels are given."""
    rule = KeepRule(threshold=0.0, cap=0.5)
    how = chosen(rounds=3, rule=rule, relabel=relabel, baseline=False, student={"steps": 24})
    distill(pictures, tmp_path / "run", how)
    assert len(kept_labels(tmp_path / "run" / "pseudo_labels")) == 6


def test_all_images_are_labeled_anew_and_the_last_round_counts(pictures, tmp_path, monkeypatch):
    """Round 1 is sure of the first half of the images, round 2 of the second."""
    original, asked = predict_passes, []

    def half_of_the_round(*arguments):
        passes = torch.full_like(original(*arguments), 0.5)
        asked.append(len(passes[0]))
        half = (torch.arange(len(passes[0])) < 10) == (len(asked) == 1)
        passes[:, half] = torch.tensor([0.9, 0.1])
        return passes

    monkeypatch.setattr("medssl.workflows.classification.distill.predict_passes", half_of_the_round)
    options_of = chosen("plain", rounds=2, relabel="all")
    with pytest.raises(TrainingInterrupted):
        distill(pictures, tmp_path / "run", options_of, StopAfter(6))
    run = distill(pictures, tmp_path / "run", DistillOptions(), resume=True).training.run
    assert asked == [20, 20]
    cohort, student = (
        read_image_cohort(folder / "images.csv", allow_outside=True)
        for folder in (run, run / "candidates" / "student")
    )
    taught = {item.path.resolve() for item in student.training}
    assert taught == {item.path.resolve() for item in (*cohort.training, *cohort.unlabeled[10:])}
    assert "--relabel all" in json.loads((run / "run.json").read_text())["command"]


def test_kept_labels_count_by_their_confidence(pictures, tmp_path):
    rule = KeepRule(threshold=0.0, weight="confidence")
    with pytest.raises(TrainingInterrupted):
        distill(pictures, tmp_path / "run", chosen("plain", rule=rule), StopAfter(2))
    run = distill(pictures, tmp_path / "run", DistillOptions(), resume=True).training.run
    table = rows(run / "pseudo_labels" / "round-1.csv")
    assert all(row["weight"] == row["confidence"] for row in table)
    cohort = read_image_cohort(run / "images.csv", allow_outside=True)
    student = read_image_cohort(run / "candidates" / "student" / "images.csv", allow_outside=True)
    weights_of = {item.path.resolve(): item.weight for item in student.training}
    expected = {row["path"]: float(row["confidence"]) for row in table}
    assert [weights_of[item.path.resolve()] for item in cohort.unlabeled] == [
        expected[item.name] for item in cohort.unlabeled
    ]
    assert {weights_of[item.path.resolve()] for item in cohort.training} == {1.0}
    assert "--weight confidence" in json.loads((run / "run.json").read_text())["command"]


def test_labels_weigh_the_same_unless_it_is_asked_for(distilled):
    run = distilled.training.run
    assert {row["weight"] for row in rows(run / "pseudo_labels" / "round-1.csv")} == {"1"}
    assert "--weight" not in json.loads((run / "run.json").read_text())["command"]


def test_images_unlike_the_held_out_ones_get_no_label(pictures, tmp_path, monkeypatch):
    """Nothing else decides: a threshold of 0 keeps all labels of the others."""
    rule = KeepRule(threshold=0.0, energy_percentile=40)
    opened = Counter()
    with monkeypatch.context() as patch:
        patch.setattr(predict, "read_image", lambda path: opened.update([path.resolve()]) or read_image(path))
        run = distill(pictures, tmp_path / "run", chosen("model", rule=rule)).training.run
    models = [load_classifier(run) for run in sorted((run / "teachers").glob("round-*"))]
    cohort = read_image_cohort(run / "images.csv", allow_outside=True)
    assert {opened[item.path.resolve()] for item in cohort.unlabeled} == {1}

    def energies(items):
        """One image and teacher at a time."""
        return [
            sum(
                -scores_of([item], [model], ["identity"]).double().exp().sum().log().item()
                for model in models
            )
            / 2
            for item in items
        ]

    ordered = sorted(energies(cohort.validation))
    limit = (
        ordered[9] + 0.2 * (ordered[10] - ordered[9]) if len(ordered) == 24 else math.nan
    )  # .4 of 23 steps
    expected = ["unlike" if value > limit else "yes" for value in energies(cohort.unlabeled)]
    table = {row["path"]: row for row in rows(run / "pseudo_labels" / "round-1.csv")}
    assert [table[item.name]["kept"] for item in cohort.unlabeled] == expected
    assert [float(table[item.name]["energy"]) for item in cohort.unlabeled] == pytest.approx(
        energies(cohort.unlabeled), rel=1e-4
    )
    assert set(expected) == {"yes", "unlike"}
    student = read_image_cohort(run / "candidates" / "student" / "images.csv", allow_outside=True)
    assert len(student.training) == 12 + expected.count("yes")
    assert "--energy-percentile 40" in json.loads((run / "run.json").read_text())["command"]


@pytest.fixture(scope="module")
def by_our_recipe(pictures):
    """Read only. It was stopped, and goes on with its own options; teachers get the temperatures 2 and 3."""
    run = pictures.parent / "by_our_recipe"
    given = chosen("data-model", rule=KeepRule(threshold=0.6), recipe="ours")
    fitted = []

    def fit(labels, scores):
        fitted.append((labels.tolist(), np.exp(scores)))
        return 1.0 + len(fitted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medssl.workflows.classification.calibrate.fit_temperature", fit)
        with pytest.raises(TrainingInterrupted):
            distill(pictures, run, given, StopAfter(3))
        distill(pictures, run, DistillOptions(), resume=True)
    return run, fitted


def test_calibrated_teachers_have_the_temperature_of_the_validation_images(by_our_recipe):
    """The temperature is fitted to what a teacher says of these images unchanged, and to their labels."""
    run, fitted = by_our_recipe
    cohort = read_image_cohort(run / "images.csv", allow_outside=True)
    teachers = [load_classifier(one) for one in sorted((run / "teachers").glob("round-*"))]
    for teacher, (labels, q) in zip(teachers, fitted[:2], strict=True):
        assert labels == numbers_of(cohort.validation, CLASSES).tolist()
        np.testing.assert_allclose(predict_items(cohort.validation, [teacher]).probabilities, q, atol=1e-6)
    facts = json.loads((run / "pseudo_labels" / "round-1.json").read_text())
    assert facts["temperatures"] == [2.0, 3.0]
    models = [teachers[0].at_temperature(2.0), teachers[1].at_temperature(3.0)]
    confidence = predict_items(cohort.unlabeled, models, facts["views"]).probabilities.max(1)
    table = {row["path"]: row for row in rows(run / "pseudo_labels" / "round-1.csv")}
    written = [float(table[item.name]["confidence"]) for item in cohort.unlabeled]
    assert written == pytest.approx(confidence.tolist(), abs=1e-4)


def test_the_audit_asks_the_teachers_as_they_labeled(by_our_recipe):
    run, _ = by_our_recipe
    cohort = read_image_cohort(run / "images.csv", allow_outside=True)
    views = json.loads((run / "pseudo_labels" / "round-1.json").read_text())["views"]
    teachers = [load_classifier(one) for one in sorted((run / "teachers").glob("round-*"))]
    models = [teachers[0].at_temperature(2.0), teachers[1].at_temperature(3.0)]
    confidence = predict_items(cohort.validation, models, views).probabilities.max(1)
    written = json.loads((run / AUDIT_FILE).read_text())
    assert written["n"] == len(cohort.unlabeled)
    curve = written["curve"]
    assert [point["coverage"] for point in curve] == [
        pytest.approx((confidence > point["threshold"]).mean()) for point in curve
    ]


def test_all_trainings_follow_the_recipe(by_our_recipe):
    run, _ = by_our_recipe
    configs = [*run.glob("teachers/*/configs/train.yaml"), *run.glob("candidates/*/configs/train.yaml")]
    assert [yaml.safe_load(path.read_text())["average"] for path in configs] == [0.999] * 4
    kept = [row["label"] for row in rows(run / "pseudo_labels" / "round-1.csv") if row["kept"] == "yes"]
    assert len({kept.count(name) for name in kept}) <= 1, "as many of each class"
    command = json.loads((run / "run.json").read_text())["command"]
    assert "--calibrated --recipe ours" in command
    assert "--balance 1.0" in command


def test_too_few_validation_images_to_calibrate_are_told(tmp_path, caplog):
    images = write_pictures(tmp_path / "images", validation=4)
    distill(images, tmp_path / "run", chosen("plain", calibrated=True))
    assert any("8 validation images are too few to calibrate" in one.getMessage() for one in caplog.records)
    facts = json.loads((tmp_path / "run" / "pseudo_labels" / "round-1.json").read_text())
    assert facts["temperatures"] == [1.0]


def test_a_class_that_no_teacher_names_is_told_while_the_student_can_still_be_stopped(
    pictures, tmp_path, caplog, monkeypatch
):
    """D23."""
    original = predict_passes

    def one_class(*arguments):
        passes = original(*arguments)
        passes[..., 0], passes[..., 1:] = 0.98, 0.02 / (passes.shape[-1] - 1)
        return passes

    monkeypatch.setattr("medssl.workflows.classification.distill.predict_passes", one_class)
    distill(pictures, tmp_path / "run", chosen("plain", rule=KeepRule(threshold=0.5)))
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Round 1: ")]
    assert any("No pseudo-label says" in one for one in told)


def test_classes_are_counted_over_all_rounds(pictures, tmp_path, caplog, monkeypatch):
    """D23: what an earlier round labeled is not missing because a later one says nothing of it."""
    original, asked = predict_passes, []

    def class_of_the_round(*arguments):
        passes = original(*arguments)
        asked.append(len(passes[0]))
        passes[...] = 0.3 / (passes.shape[-1] - 1)
        half = torch.arange(len(passes[0])) < len(passes[0]) // 2
        passes[:, half, (len(asked) - 1) % passes.shape[-1]] = 0.7
        return passes / passes.sum(-1, keepdim=True)

    monkeypatch.setattr("medssl.workflows.classification.distill.predict_passes", class_of_the_round)
    distill(pictures, tmp_path / "run", chosen("plain", rounds=2, rule=KeepRule(threshold=0.6)))
    assert len(asked) == 2
    second = [one.getMessage() for one in caplog.records if one.getMessage().startswith("Round 2: ")]
    assert not any(f"says '{CLASSES[0]}'" in one for one in second), second


@pytest.mark.parametrize("verb", ["train", "distill"])
@pytest.mark.parametrize("named", ["plan with hashes", "older plan"])
def test_images_that_changed_between_two_trainings_are_told_before_more_is_trained(verb, named, tmp_path):
    """The first training is finished: nothing but the plan knows what the unlabeled images were."""
    images, run = write_pictures(tmp_path / "images"), tmp_path / "run"

    def go(watcher=None, *, resume=False):
        if verb == "distill":
            distill(images, run, chosen("plain"), watcher, resume=resume)
        else:
            train_with_baseline(images, run, options(method="ssldec"), watcher, resume=resume)

    with pytest.raises(TrainingInterrupted):
        go(StopAfter(1))
    shutil.rmtree(run / "teachers", ignore_errors=True)  # what was begun would know its own images
    shutil.rmtree(run / "candidates", ignore_errors=True)
    shutil.copyfile(images / "test" / "light" / "0.png", images / "unlabelled" / "3.png")
    if named == "older plan":
        plan = json.loads((run / "plan.json").read_text())
        del plan["data_sha256"]
        (run / "plan.json").write_text(json.dumps(plan))
        go(resume=True)
        assert (run / "verdict.json").is_file()
        return
    with pytest.raises(InputError, match=r"changed since the run in .*unlabelled/3\.png"):
        go(resume=True)
    assert not (run / "teachers").exists()
    assert not (run / "candidates").exists()


def test_a_round_that_is_killed_while_it_writes_has_its_sidecar(pictures, tmp_path, monkeypatch):
    def killed(*arguments, **named):
        raise KeyboardInterrupt

    for name in ("write_json", "write_pseudo_labels"):
        run = tmp_path / name
        with monkeypatch.context() as patched:
            patched.setattr(f"medssl.workflows.classification.distill.{name}", killed)
            with pytest.raises(KeyboardInterrupt):
                distill(pictures, run, chosen("plain"))
        distill(pictures, run, chosen("plain"), resume=True)
        labels = run / "pseudo_labels"
        assert sorted(path.name for path in labels.iterdir()) == ["audit.json", "round-1.csv", "round-1.json"]


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_a_student_that_is_returned_is_called_a_distillation(targets, pictures, tmp_path, monkeypatch):
    found = ClassificationVerdict("helped", "said", 24, None, None)
    monkeypatch.setattr("medssl.workflows.classification.distill.compare_runs", lambda *_: found)
    run = distill(pictures, tmp_path / "run", chosen("data", targets=targets)).training.run
    how = {"method": "data distillation", "rounds": 1, "targets": targets}
    for folder in (run, run / "candidates" / "student"):
        record = json.loads((folder / "run.json").read_text())
        assert {name: record[name] for name in how} == how
    told = load_classifier(run).card.extra
    assert {name: told[name] for name in how} == how
    card = (run / "MODEL_CARD.md").read_text()
    assert f"| method | data distillation, 1 round, {targets} targets |" in card
    baseline = json.loads((run / "candidates" / "supervised" / "run.json").read_text())
    assert baseline["method"] == "supervised"
    assert "targets" not in baseline


@pytest.mark.parametrize("transductive", [True, False])
def test_every_table_of_a_transductive_distillation_says_so(transductive, tmp_path):
    images, run = write_pictures(tmp_path / "images"), tmp_path / "run"
    if transductive:
        shutil.copyfile(images / "test" / "light" / "0.png", images / "unlabelled" / "3.png")
    rule = KeepRule(threshold=0.0)
    distill(images, run, chosen("plain", rule=rule, student={"transductive": transductive}))
    told = [json.loads((run / name).read_text()) for name in ("verdict.json", "pseudo_labels/round-1.json")]
    tables = [
        *table(run / "candidates" / "student" / "metrics.tsv"),
        *rows(run / "pseudo_labels" / "round-1.csv"),
    ]
    assert {one.get("transductive") for one in (*told, *tables)} == {"yes" if transductive else None}
    unaware = [run / "candidates" / "supervised", *run.glob("teachers/*")]
    assert not [one for run in unaware for one in table(run / "metrics.tsv") if "transductive" in one]


def test_a_run_that_is_killed_while_targets_are_copied_goes_on(pictures, tmp_path, monkeypatch):
    copyfile, run = shutil.copyfile, tmp_path / "run"

    def killed(source, target):
        if Path(target).name == "targets.pt":
            raise KeyboardInterrupt
        return copyfile(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", killed)
        with pytest.raises(KeyboardInterrupt):
            distill(pictures, run, chosen("plain", targets="soft"))
    distill(pictures, run, chosen("plain"), resume=True)
    assert (run / "candidates" / "student" / "targets.pt").is_file()
