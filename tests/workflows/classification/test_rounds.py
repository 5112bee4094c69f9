"""SSLDEC in rounds: stages share the budget, targets follow the formula, the published schedule is there."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from pictures import options
from runs import same, table, texts, weights

from medssl.errors import ConfigError
from medssl.io.image_cohort import read_image_cohort
from medssl.workflows.classification import rounds
from medssl.workflows.classification.baseline import _origin, train_with_baseline
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import predict_passes
from medssl.workflows.classification.rounds import CENTER_START
from medssl.workflows.classification.train import cohort_of_run, train_classifier
from medssl.workflows.running import Training

RUNS = ("supervised", "ssldec-round-0", "ssldec-round-1")


@pytest.fixture(scope="module")
def in_rounds(pictures):
    """Read only."""
    chosen = options(
        method="ssldec",
        steps=85,
        rounds=2,
        target_rule="dec",
        schedule="union_reinit",
        settings={CENTER_START: "class_means"},
    )
    return train_with_baseline(pictures, pictures.parent / "rounds", chosen).training.run


def test_targets_are_those_of_the_paper(in_rounds):
    """Enguehard 2019, equation of the target distribution, over the whole pool."""
    folder = in_rounds / "candidates"
    cohort = cohort_of_run(in_rounds, ["dark", "light"])
    q = predict_passes(
        cohort.unlabeled,
        [load_classifier(folder / "ssldec-round-0").uncalibrated()],
        ["identity"],
    )
    q = q[0].double()
    expected = q**2 / q.sum(0)
    expected = expected / expected.sum(1, keepdim=True)
    stored = torch.load(folder / "ssldec-round" / "targets-1.pt", weights_only=True)["log_p"].exp().double()
    assert torch.allclose(stored, expected, atol=1e-5)


def test_stages_share_the_budget(in_rounds):
    folder = in_rounds / "candidates"
    steps = [json.loads(path.read_text())["steps"] for path in sorted(folder.glob("*-round-*/run.json"))]
    assert steps == [25, 25, 35][: len(steps)]
    assert len(steps) in (2, 3)
    record = json.loads((folder / "ssldec" / "run.json").read_text())
    assert record["steps_of_rounds"] == sum(steps)
    told = _origin(in_rounds, record, cohort_of_run(in_rounds, ["dark", "light"]))
    assert told.steps == sum(steps)
    assert json.loads((folder / "supervised" / "run.json").read_text())["steps"] == 85
    assert table(folder / "ssldec-round" / "rounds.tsv")[0]["round"] == "1"


def test_the_last_stage_has_the_steps_that_are_left(pictures, tmp_path, monkeypatch):
    steps = []

    def training(run, cohort, own, *_):
        steps.append(own.steps)
        return Training(run, own.steps, None, 0.0)

    monkeypatch.setattr(rounds, "train_candidate", training)
    chosen = options(method="ssldec", steps=85, rounds=2, schedule="union_reinit")
    stages = rounds._Stages(tmp_path, read_image_cohort(pictures), chosen, pictures, None, print)
    stages.fit(0, None)
    for stage in (1, 2):
        stages.fit(stage, rounds.PoolTargets(torch.zeros(1, 2), torch.zeros(1), tmp_path / "targets.pt"))
    assert steps == [25, 25, 35]
    assert stages.spent == 85


def test_the_last_stage_is_the_candidate(in_rounds):
    folder = in_rounds / "candidates"
    last = max(folder.glob("ssldec-round-*"))
    assert same(weights(last), weights(folder / "ssldec"))
    assert json.loads((folder / "ssldec" / "run.json").read_text())["method"] == "ssldec"
    assert cohort_of_run(folder / "ssldec", ["dark", "light"]).unlabeled


def test_no_file_of_any_stage_names_a_place(in_rounds):
    assert not [path for path in texts(in_rounds) if str(in_rounds.parent) in path.read_text()]


def test_fewer_steps_than_stages_are_refused(pictures, tmp_path):
    with pytest.raises(ConfigError, match="cannot be shared"):
        train_with_baseline(pictures, tmp_path / "run", options(method="ssldec", steps=2, rounds=3))
    assert not (tmp_path / "run").exists(), "before the baseline trains"


def test_rounds_belong_to_ssldec(pictures, tmp_path):
    with pytest.raises(ConfigError, match="distill"):
        train_with_baseline(pictures, tmp_path / "run", options(method="fixmatch", rounds=2))
    assert not (tmp_path / "run").exists(), "before the baseline trains"


@pytest.mark.parametrize("train", [train_with_baseline, train_classifier])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "fixmatch", "target_rule": "dec"}, "--target-rule belongs to --method ssldec"),
        ({"method": "ssldec", "schedule": "alternate"}, "--schedule alternate, .* without --rounds"),
    ],
)
def test_what_nothing_follows_is_refused(train, changes, words, pictures, tmp_path):
    with pytest.raises(ConfigError, match=words):
        train(pictures, tmp_path / "run", options(**changes))
    assert not (tmp_path / "run").exists()


def test_the_baseline_s_command_has_nothing_of_the_rounds(in_rounds):
    command = json.loads((in_rounds / "candidates" / "supervised" / "run.json").read_text())["command"]
    assert not [word for word in ("--rounds", "--target-rule", "--schedule") if word in command]


def test_every_network_has_a_row_with_its_losses_apart(in_rounds):
    """Those of the labeled and of the unlabeled images, as in the curve of the stage that trained it."""
    folder = in_rounds / "candidates"
    rows = table(folder / "ssldec-round" / "rounds.tsv")
    stages = sorted(folder.glob("ssldec-round-*"))
    assert len(rows) == len(stages)
    for row, stage in zip(rows, stages, strict=True):
        for part in ("loss_labeled", "loss_unlabeled"):
            values = [float(one[part]) for one in table(stage / "metrics.tsv") if one[part]]
            if stage == stages[0] and part == "loss_unlabeled":
                assert (values, row[part]) == ([], "n/a")
            else:
                assert float(row[part]) == pytest.approx(sum(values) / len(values), rel=1e-5)
        best = json.loads((stage / "run.json").read_text())["best_validation_score"]
        assert float(row["val_f1"]) == pytest.approx(best, rel=1e-5)


def test_a_class_that_targets_lose_is_told_in_every_round(pictures, tmp_path, monkeypatch, caplog):
    def all_dark(items, *_, **__):
        return torch.tensor([[[1.0, 0.0]]]).repeat(1, len(items), 1)

    monkeypatch.setattr("medssl.workflows.classification.rounds.predict_passes", all_dark)
    train_with_baseline(pictures, tmp_path / "run", options(method="ssldec", steps=6, rounds=2))
    told = [one for one in caplog.messages if "goes to light; its targets stay finite" in one]
    assert [one.partition(":")[0] for one in told] == ["Round 1", "Round 2"]


@pytest.fixture(scope="module")
def in_turn(pictures):
    """Read only: rounds of four epochs of a step, centers at the means of the classes."""
    chosen = options(
        method="ssldec",
        steps=8,
        rounds=1,
        schedule="alternate",
        settings={"steps_per_epoch": 1, "epochs": 4, "val_interval": 1, CENTER_START: "class_means"},
    )
    return train_with_baseline(pictures, pictures.parent / "in-turn", chosen).training.run


def test_in_turn_a_round_sees_unlabeled_images_first_and_labeled_ones_then(in_turn):
    rows = table(in_turn / "candidates" / "ssldec-round-1" / "metrics.tsv")
    assert [bool(row["loss_unlabeled"]) for row in rows] == [True, True, False, False]
    assert [bool(row["loss_labeled"]) for row in rows] == [False, False, True, True]


def test_centers_start_anew_only_where_weights_do(in_turn, in_rounds):
    def starts(run):
        configs = [run / "candidates" / name / "configs" / "train.yaml" for name in RUNS]
        return [yaml.safe_load(path.read_text())["train"]["center_start"]["start"] for path in configs]

    assert starts(in_turn) == ["random", "class_means", "random"]
    assert starts(in_rounds) == ["random", "class_means", "class_means"]
    assert (in_turn / "candidates" / "ssldec-round-1" / "models" / "init.pt").is_file()
    assert not (in_rounds / "candidates" / "ssldec-round-1" / "models" / "init.pt").exists()


def test_centers_at_the_means_of_the_classes_give_other_weights(pictures, tmp_path):
    def centers(start):
        chosen = options(
            method="ssldec", steps=2, settings={CENTER_START: start, "learning_rate": 0.0, "average": 0.0}
        )
        return weights(train_classifier(pictures, tmp_path / start, chosen).run)["head.centers"]

    random, means = centers("random"), centers("class_means")
    assert not torch.allclose(random, means)
    assert random.shape == means.shape == (2, 16)


def test_a_run_that_is_killed_while_its_last_stage_is_copied_goes_on(in_rounds, monkeypatch):
    """``run.json`` was there, and the weights were not."""
    run = shutil.copytree(in_rounds, in_rounds.with_name("killed"))
    (run / "verdict.json").unlink()
    shutil.rmtree(run / "candidates" / "ssldec")
    copytree = shutil.copytree

    def killed(source, target, *arguments, **named):
        copytree(source, target, *arguments, **named)
        if (Path(target) / "run.json").is_file():  # not a folder below it
            shutil.rmtree(Path(target) / "models")
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("medssl.workflows.classification.rounds.shutil.copytree", killed)
        with pytest.raises(KeyboardInterrupt):
            train_with_baseline(in_rounds.parent / "images", run, options(), resume=True)
    train_with_baseline(in_rounds.parent / "images", run, options(), resume=True)
    again = run / "candidates" / "ssldec"
    assert same(weights(again), weights(in_rounds / "candidates" / "ssldec"))
    assert json.loads((again / "run.json").read_text())["method"] == "ssldec"
    assert not list(run.glob("candidates/.partial-*"))
