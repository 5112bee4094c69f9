"""The supervised baseline beside every method: same budget, an honest sentence, the better one returned."""

import json
import os
import socket

import pytest
import yaml
from pictures import options, write_pictures
from runs import StopAfter, same, weights

from medssl.engines import TrainingInterrupted, VanishingClasses
from medssl.errors import ConfigError, DatalistError, OutputError
from medssl.workflows.classification import baseline
from medssl.workflows.classification.baseline import (
    METHOD_PARTS,
    METHOD_SETTINGS,
    has_baseline,
    shared_settings,
    train_with_baseline,
)
from medssl.workflows.classification.methods import INSIDE, ONLINE
from medssl.workflows.classification.train import BUNDLE
from medssl.workflows.models import packaged_bundle, read_config


def record(run):
    return json.loads((run / "run.json").read_text())


def test_both_are_trained_with_the_same_steps_images_and_augmentation(compared):
    done, _ = compared
    runs = [done.training.run / "candidates" / name for name in ("supervised", "ssldec")]
    assert record(runs[0])["budget"] == record(runs[1])["budget"]
    configs = [yaml.safe_load((run / "configs" / "train.yaml").read_text()) for run in runs]
    for name in ("preset", "batch_size", "learning_rate", "epochs", "seed", "image_size"):
        assert configs[0][name] == configs[1][name]


def test_the_better_one_is_at_the_top_and_the_sentence_says_so(compared):
    done, said = compared
    run = done.training.run
    told = json.loads((run / "verdict.json").read_text())
    assert told == record(run)["verdict"]
    assert said[-1] == told["sentence"] == done.verdict.sentence
    assert same(weights(run), weights(run / "candidates" / told["returned"]))
    assert "--no-baseline" not in record(run)["command"]
    card = (run / "MODEL_CARD.md").read_text()
    assert told["sentence"] in card
    steps = sum(record(run / "candidates" / name)["budget"]["steps"] for name in ("ssldec",))
    assert f"| {steps} steps of" in card
    assert "| started from | random weights |" in card


@pytest.mark.parametrize(("wins", "returned"), [(True, "ssldec"), (False, "supervised")])
def test_what_is_returned_follows_the_verdict(wins, returned, pictures, tmp_path, monkeypatch):
    found = baseline.ClassificationVerdict("helped" if wins else "did not help", "said", 24, None, None)
    monkeypatch.setattr(baseline, "compare_runs", lambda *_, **__: found)
    done = train_with_baseline(pictures, tmp_path / "run", options(method="ssldec"))
    assert record(done.training.run)["method"] == returned
    assert same(weights(done.training.run), weights(tmp_path / "run" / "candidates" / returned))


@pytest.mark.parametrize(
    ("changes", "lost", "returned"),
    [({}, [], "ssldec"), ({"rounds": 1}, [], "supervised"), ({}, ["light"], "supervised")],
)
def test_where_nothing_is_held_out_only_what_is_safe_is_returned(
    changes, lost, returned, tmp_path, monkeypatch
):
    """No class has the five labels that a validation image is taken from; rounds, or a lost class, go wrong unseen."""
    monkeypatch.setattr(VanishingClasses, "_compare", lambda self, _: setattr(self, "vanished", lost))
    images = write_pictures(tmp_path / "images", training=4, validation=0, test=0)
    done = train_with_baseline(images, tmp_path / "run", options(method="ssldec", **changes))
    assert done.verdict.answer == "cannot tell"
    assert record(done.training.run)["verdict"]["returned"] == returned
    assert ("can go wrong unseen" in done.verdict.sentence) is (returned == "supervised")
    assert same(weights(done.training.run), weights(tmp_path / "run" / "candidates" / returned))


def test_a_stopped_comparison_goes_on_where_it_stopped(compared, pictures, tmp_path):
    chosen = options(method="ssldec", settings={"unlabeled_start": 0.0})
    with pytest.raises(TrainingInterrupted):
        train_with_baseline(pictures, tmp_path / "run", chosen, StopAfter(6))
    assert has_baseline(tmp_path / "run")
    done = train_with_baseline(pictures, tmp_path / "run", options(), resume=True)
    assert same(weights(done.training.run), weights(compared[0].training.run))
    with pytest.raises(OutputError, match="is finished"):
        train_with_baseline(pictures, tmp_path / "run", options(), resume=True)


def test_settings_of_a_method_do_not_reach_the_baseline():
    given = {"unlabeled_weight": 2, "loss#rule": "dec", "learning_rate": 0.1, "train#sampler#mixture": None}
    assert shared_settings(options(settings=given)) == {"learning_rate": 0.1}


def test_a_value_of_the_overlay_does_not_reach_the_baseline(pictures, tmp_path):
    chosen = options(method="softmatch", settings={"alignment": "none"})
    train_with_baseline(pictures, tmp_path / "run", chosen)
    configs = [
        yaml.safe_load((tmp_path / "run" / "candidates" / name / "configs" / "train.yaml").read_text())
        for name in ("supervised", "softmatch")
    ]
    assert [config.get("alignment") for config in configs] == [None, "none"]


def test_a_value_that_the_baseline_refuses_leaves_no_run_folder(pictures, tmp_path, monkeypatch):
    """Known to the method alone, and taken for one that the baseline has too."""
    monkeypatch.setattr(baseline, "METHOD_SETTINGS", METHOD_SETTINGS - {"alignment"})
    with pytest.raises(ConfigError, match="alignment"):
        train_with_baseline(
            pictures, tmp_path / "run", options(method="softmatch", settings={"alignment": "none"})
        )
    assert not (tmp_path / "run").exists()


def test_mean_teacher_weighs_the_mean_over_classes_as_published(compared, pictures, tmp_path):
    """USB: 50 times the mean over classes; the term here is the sum over them."""
    run = train_with_baseline(pictures, tmp_path / "run", options(method="mean-teacher")).training.run
    folder = run / "candidates" / "mean-teacher"
    parser = read_config(folder / "configs" / "train.yaml", {"bundle_root": str(folder)})
    assert parser.get_parsed_content("loss").weight == 25.0  # two classes


def test_two_processes_do_not_train_in_one_folder(pictures, tmp_path):
    (tmp_path / ".medssl-train-lock-run").write_text(
        json.dumps({"process": os.getppid(), "host": socket.gethostname(), "since": "2026-11-28"})
    )
    with pytest.raises(OutputError, match="is being written by process"):
        train_with_baseline(pictures, tmp_path / "run", options(method="ssldec"))
    assert not (tmp_path / "run").exists()


def test_every_value_of_an_overlay_is_known_as_one():
    configs = packaged_bundle(BUNDLE) / "configs"
    of_methods = {name for method in (*ONLINE.values(), *INSIDE.values()) for name in method.overlays}
    assert {"train_ssldec.yaml", "train_fixmatch.yaml", "train_mixmatch.yaml"} <= of_methods
    for path in map(configs.joinpath, of_methods):
        for name in yaml.safe_load(path.read_text()):
            root = name.partition("#")[0]
            assert root in METHOD_SETTINGS | {"targets"} or name.startswith(METHOD_PARTS), (path.name, name)


def test_a_value_that_does_not_work_is_seen_before_the_baseline_trains(pictures, tmp_path):
    begun = []
    with pytest.raises(ConfigError):
        train_with_baseline(
            pictures,
            tmp_path / "run",
            options(method="ssldec", target_rule="sharpest"),
            say=begun.append,
        )
    assert not begun


def test_without_unlabeled_images_there_is_nothing_to_compare(tmp_path):
    images = write_pictures(tmp_path / "images", unlabeled=0)
    with pytest.raises(DatalistError, match="no unlabeled image"):
        train_with_baseline(images, tmp_path / "run", options(method="fixmatch"))
    assert not (tmp_path / "run").exists()


def test_the_record_names_data_that_are_there(compared):
    run = compared[0].training.run
    assert (run / record(run)["data"]).is_dir()
    assert all((run / name).is_file() for name in record(run)["data_sha256"])
