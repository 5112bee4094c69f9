"""Do no harm: what is returned is never worse than labeled-only on the held-out scans, and says so."""

import json
import os
import shlex
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from phantoms import TINY, write_subject
from runs import StopAfter, same, table, texts, weights

from medssl.engines import TrainingInterrupted, VanishingClasses
from medssl.errors import ConfigError, DatalistError, InputError, MedsslError, OutputError
from medssl.evaluation.verdict import NONE_LEFT
from medssl.functional.anatomy_weight import WEIGHTS
from medssl.io.cohort import read_cohort
from medssl.io.datalist import write_datalist
from medssl.io.leaks import plain_id
from medssl.io.subjects import Cohort, Subject
from medssl.labels import BRAIN_TISSUES
from medssl.workflows import atlases, harmless
from medssl.workflows.factor_check import gains_at_inference
from medssl.workflows.harmless import decided, is_checked, planned_runs, train_checked
from medssl.workflows.models import known_scans, load_model
from medssl.workflows.segment import Options, segment
from medssl.workflows.target_example import read_target_example
from medssl.workflows.train import TrainOptions, prepare_run, train

STEPS = 4  # of each candidate


def options(**changes):
    settings = {**TINY, "steps_per_epoch": 2, **changes.pop("settings", {})}
    fixed = {"method": "ssldec", "budget": "quick", "device": "cpu", "settings": settings}
    return TrainOptions(**{**fixed, **changes})


def make_cohort(root, labeled=("01", "02", "03"), unlabeled=("04", "05")):
    for seed, name in enumerate((*labeled, *unlabeled)):
        write_subject(root, name, 10 * seed, labeled=name in labeled)
    return root


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Read only."""
    return make_cohort(tmp_path_factory.mktemp("harmless") / "cohort")


@pytest.fixture(scope="module")
def validated(scans):
    """A finished run whose check had a held-out scan: read only."""
    said = []
    done = train_checked(scans, scans.parent / "validated", options(hold_out=1), say=said.append)
    return done, said


def prefer(monkeypatch, method):
    """Let the method, or labeled-only, have the better Dice."""

    def dice(run, subjects, resample):
        return {"GM": [0.8 if ("ssldec" in run.name) == method else 0.5 for _ in subjects]}

    monkeypatch.setattr(harmless, "dice_of_run", dice)


def names(run):
    return sorted(path.name for path in (run / "candidates").iterdir() if (path / "run.json").is_file())


def record(run, *inside):
    return json.loads(run.joinpath(*inside, "run.json").read_text())


def test_with_held_out_scans_two_networks_are_trained_and_compared(validated):
    done, said = validated
    run = done.training.run
    assert names(run) == ["labeled-only", "ssldec"]
    assert done.training.steps == STEPS
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict == record(run)["verdict"]
    assert verdict["sentence"] == said[-1] == done.verdict.sentence
    assert verdict["answer"] == done.verdict.answer
    assert list(verdict["dice"]) == record(run)["subjects"]["validation"]
    pair = next(iter(verdict["dice"].values()))
    assert pair["semi-supervised"] - pair["labeled-only"] == pytest.approx(verdict["difference"])
    assert verdict["returned"] == ("ssldec" if done.verdict.method_wins else "labeled-only")
    assert same(weights(run), weights(run / "candidates" / verdict["returned"]))


def test_the_weight_of_registered_labels_is_chosen_on_the_held_out_scan(validated):
    done, said = validated
    run = done.training.run
    weighed = record(run)["anatomy_weight"]
    assert weighed == json.loads((run / "anatomy_weight.json").read_text())
    assert weighed["held_out"] == record(run)["subjects"]["validation"]
    single = {one["weight"]: round(one["log_likelihood"], 6) for one in weighed["candidates"]}
    assert list(single) == list(WEIGHTS)
    assert weighed["weight"] == max(single, key=single.__getitem__) > 0
    assert weighed["sentence"] in said
    config = yaml.safe_load((run / "candidates" / "ssldec" / "configs" / "train.yaml").read_text())
    assert config["anatomy_weight"] == weighed["weight"]


def test_it_is_said_what_registered_labels_are_worth_at_inference(validated, scans, tmp_path):
    """The record holds the Dice of the maps that `segment --anatomy` writes with the returned network."""
    done, said = validated
    run = done.training.run
    told = json.loads((run / "anatomy_at_inference.json").read_text())
    assert record(run)["anatomy_at_inference"] == told
    assert told["sentence"] in said[:-1]
    (held_out,) = record(run)["subjects"]["validation"]
    chosen = "semi-supervised" if done.verdict.method_wins else "labeled-only"
    assert told["dice"][held_out]["without"] == record(run)["verdict"]["dice"][held_out][chosen]
    segment(scans, tmp_path / "maps", run, Options(pictures=False, device="cpu", anatomy=run))
    dice = evaluate(tmp_path / "maps", scans)
    assert told["dice"][held_out]["with"] == pytest.approx(dice[held_out], abs=1e-6)
    assert told["difference"] == told["dice"][held_out]["with"] - told["dice"][held_out]["without"]


def evaluate(maps, scans):
    """Return the mean Dice over the labels of each labeled scan of a folder of maps."""
    rows = {}
    for path in maps.rglob("*_dseg.nii.gz"):
        name = path.name.split("_")[0]
        truth = next(scans.rglob(f"derivatives/manual/{name}/anat/*_dseg.nii.gz"), None)
        if truth is not None:
            found, expected = (np.asarray(nib.load(one).dataobj) for one in (path, truth))
            both = [(found == label, expected == label) for label in (1, 2, 3)]
            rows[name] = np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in both])
    return rows


def test_the_candidates_share_their_registrations(validated):
    run = validated[0].training.run
    held_out, *_ = record(run)["subjects"]["validation"]
    assert {path.name for path in (run / "registrations").iterdir()} == {"sub-04", "sub-05", held_out}
    assert len(list((run / "registrations" / held_out).glob("*.npz"))) == 2  # each labeled scan, once
    assert not list((run / "candidates").glob("*/registrations"))


def test_both_networks_have_the_same_budget_and_the_baseline_no_unlabeled_scan(validated):
    run = validated[0].training.run
    before, after = (record(run, "candidates", name) for name in ("labeled-only", "ssldec"))
    for name in ("steps", "budget", "seed", "network"):
        assert before[name] == after[name]
    assert before["method"] == "supervised"
    assert not before["subjects"]["unlabeled"]
    assert len(after["subjects"]["unlabeled"]) == 2
    assert "head.centers" not in weights(run / "candidates" / "labeled-only")


@pytest.mark.parametrize("better", [True, False])
def test_without_held_out_scans_a_part_decides_and_all_train(scans, tmp_path, monkeypatch, better):
    prefer(monkeypatch, better)
    run = tmp_path / "run"
    said = []
    done = train_checked(scans, run, options(), say=said.append)
    winner = "ssldec" if better else "labeled-only"
    assert names(run) == ["check-labeled-only", "check-ssldec", "labeled-only", *(["ssldec"] * better)]
    for name in names(run):
        used = record(run, "candidates", name)["subjects"]
        assert len(used["training"]) == (2 if name.startswith("check") else 3)
        assert not used["validation"]
    held_out = set(record(run)["subjects"]["training"]) - set(
        record(run, "candidates", "check-ssldec")["subjects"]["training"]
    )
    for name in ("check-labeled-only", "check-ssldec"):
        used = record(run, "candidates", name)["subjects"]
        assert not held_out & {*used["training"], *used["unlabeled"]}
    assert set(done.verdict.dice) == held_out
    assert json.loads((run / "verdict.json").read_text())["returned"] == winner
    assert same(weights(run), weights(run / "candidates" / winner))
    assert ("did not help" in said[-1]) != better
    assert {path.name for path in (run / "registrations").iterdir()} == {"sub-04", "sub-05", *held_out}
    assert not list((run / "candidates").glob("*/registrations"))
    made = list((run / "registrations" / "sub-04").glob("*.npz"))
    pairs = {path.name.rpartition("_")[0] for path in made}
    assert len(pairs) == (3 if better else 2)
    assert len(made) == len(pairs)  # made once
    assert read_target_example(run).subject in ("sub-04", "sub-05")  # whoever won


def with_later_sessions(root, spell=str):
    """Write a list in which each labeled subject has an unlabeled session too, its name perhaps spelled otherwise."""
    cohort = read_cohort(make_cohort(root / "cohort", unlabeled=("04", "05", "06")))
    later = tuple(
        replace(scan, subject=spell(labeled.subject), session="later")
        for scan, labeled in zip(cohort.unlabeled, cohort.training, strict=True)
    )
    data = root / "listed" / "datalist.json"
    data.parent.mkdir()
    write_datalist(data, replace(cohort, unlabeled=later))
    return data


def test_another_session_of_a_held_out_subject_is_not_used_in_the_check(tmp_path, monkeypatch):
    prefer(monkeypatch, False)
    data = with_later_sessions(tmp_path)
    done = train_checked(data, tmp_path / "run", options())
    (held_out,) = (key.split("_")[0] for key in done.verdict.dice)
    used = record(tmp_path / "run", "candidates", "check-ssldec")["subjects"]
    assert len(used["unlabeled"]) == 2
    assert not [key for key in (*used["training"], *used["unlabeled"]) if key.startswith(held_out)]


def test_a_check_has_unlabeled_scans_to_learn_from(tmp_path):
    """Unlabeled is one subject's session alone: another judges, and where no other may, nobody can tell."""
    cohort = read_cohort(with_later_sessions(tmp_path))
    for own in cohort.training:
        some = replace(cohort, unlabeled=tuple(one for one in cohort.unlabeled if one.subject == own.subject))
        judges = [plain_id(one.subject) for one in cohort.training]
        for seed in range(4):
            part, why_not = harmless._for_check(some, seed, judges)
            assert (len(part.unlabeled), why_not) == (1, "")
            (judge,) = part.validation
            assert judge.subject != own.subject
        assert harmless._for_check(some, 0, [plain_id(own.subject)])[1] == NONE_LEFT


def test_scans_that_nobody_uses_are_no_change_of_the_data(tmp_path):
    """The unlabeled session of a held-out subject."""
    data = with_later_sessions(tmp_path)
    with pytest.raises(TrainingInterrupted):
        train_checked(data, tmp_path / "run", options(hold_out=1), StopAfter(STEPS + 1))
    train_checked(data, tmp_path / "run", TrainOptions(), resume=True)
    assert len(record(tmp_path / "run", "candidates", "ssldec")["subjects"]["unlabeled"]) == 2


def test_held_out_subjects_lose_their_unlabeled_sessions(tmp_path, caplog):
    """Unless held-out scans may be among the unlabeled ones."""
    caplog.set_level("INFO")
    data = with_later_sessions(tmp_path, spell=lambda name: name.lstrip("0"))
    prepare_run(data, tmp_path / "run", options(hold_out=1))
    subjects = record(tmp_path / "run")["subjects"]
    (held_out,) = (key.removeprefix("sub-0") for key in subjects["validation"])
    kept = {f"sub-{number}_ses-later" for number in "123"} - {f"sub-{held_out}_ses-later"}
    assert set(subjects["unlabeled"]) == kept
    assert f"unlabeled scans of held-out subjects: sub-{held_out}_ses-later" in caplog.text
    prepare_run(data, tmp_path / "transductive", options(hold_out=1, transductive=True))
    assert len(record(tmp_path / "transductive")["subjects"]["unlabeled"]) == 3


def test_with_one_labeled_scan_it_cannot_tell_and_keeps_both(tmp_path):
    said = []
    data = make_cohort(tmp_path / "cohort", labeled=("01",), unlabeled=("04",))
    late = {"unlabeled_start": 0.5}
    done = train_checked(data, tmp_path / "run", options(settings=late), say=said.append)
    assert done.verdict.answer == "cannot tell"
    assert "Cannot tell" in said[-1]
    assert names(tmp_path / "run") == ["labeled-only", "ssldec"]
    verdict = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert verdict["returned"] == "ssldec"
    assert verdict["difference"] is None
    labels_only, ramped = table(tmp_path / "run" / "candidates" / "ssldec" / "metrics.tsv")
    assert not labels_only["loss_unlabeled"]
    assert ramped["loss_unlabeled"]
    assert not (tmp_path / "run" / "anatomy_weight.json").exists()
    assert not (tmp_path / "run" / harmless.FACTOR).exists()
    config = yaml.safe_load((tmp_path / "run" / "configs" / "train.yaml").read_text())
    assert config["anatomy_weight"] == 0.5
    assert load_model(tmp_path / "run" / "candidates" / "labeled-only").table.values == (0, 1, 2, 3)


def test_rounds_from_new_weights_are_not_returned_unchecked(tmp_path):
    data = make_cohort(tmp_path / "cohort", labeled=("01",), unlabeled=("04",))
    risky = options(rounds=1, schedule="union_reinit", settings={"epochs": 3})
    done = train_checked(data, tmp_path / "run", risky)
    assert done.verdict.answer == "cannot tell"
    assert record(tmp_path / "run")["verdict"]["returned"] == "labeled-only"
    assert names(tmp_path / "run") == ["labeled-only", "ssldec"]
    assert "can go wrong unseen" in done.verdict.sentence


@pytest.mark.parametrize("held_out", [0, 1])
def test_without_unlabeled_scans_labeled_only_is_trained_and_that_is_said(tmp_path, held_out):
    said = []
    data = make_cohort(tmp_path / "cohort", labeled=("01", "02"), unlabeled=())
    done = train_checked(data, tmp_path / "run", options(hold_out=held_out), say=said.append)
    assert names(tmp_path / "run") == ["labeled-only"]
    assert "supervised only" in said[-1]
    assert "helped" not in said[-1]
    assert record(tmp_path / "run")["verdict"]["answer"] == "no unlabeled scans"
    assert done.training.steps == STEPS
    assert load_model(tmp_path / "run").table.values == (0, 1, 2, 3)


def test_a_copy_of_a_held_out_scan_is_not_used_in_the_check(tmp_path, monkeypatch, caplog):
    """Unlabeled copies of labeled scans teach nothing, but in the check they would be the answer."""
    prefer(monkeypatch, False)
    data = make_cohort(tmp_path / "cohort", labeled=("01", "02"), unlabeled=("04",))
    for number in ("1", "2"):
        other = data / f"sub-copy{number}" / "anat"
        other.mkdir(parents=True)
        for image in (data / f"sub-0{number}" / "anat").glob("*_T?w.nii.gz"):
            shutil.copyfile(image, other / image.name.replace(f"sub-0{number}", f"sub-copy{number}"))
    done = train_checked(data, tmp_path / "run", options())
    (held_out,) = done.verdict.dice
    copy = held_out.replace("sub-0", "sub-copy")
    assert f"Left out of the check, being held-out scans too: {copy}" in caplog.text
    used = record(tmp_path / "run", "candidates", "check-ssldec")["subjects"]["unlabeled"]
    assert "sub-04" in used
    assert copy not in used
    assert len(used) == 2


@pytest.mark.parametrize("changes", [{}, {"rounds": 1}])
def test_both_networks_take_all_their_steps(scans, tmp_path, changes):
    done = train_checked(scans, tmp_path / "run", options(hold_out=1, settings={"epochs": 3}, **changes))
    for name in ("labeled-only", "ssldec"):
        config = (tmp_path / "run" / "candidates" / name / "configs" / "train.yaml").read_text()
        assert yaml.safe_load(config)["patience"] == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["verdict"]["patience"] == 0
    assert done.training.steps == 6


def test_a_patience_that_a_user_asks_for_is_that_of_both_networks(scans):
    asked = options(settings={"patience": 3})
    assert harmless._labeled_only(asked).settings["patience"] == asked.settings["patience"]


@pytest.mark.parametrize("steps", [2, STEPS, STEPS + 2])  # in the first candidate, at its end, in the second
def test_stopped_and_resumed_equals_uninterrupted(scans, validated, tmp_path, steps):
    run = tmp_path / "run"
    with pytest.raises(TrainingInterrupted):
        train_checked(scans, run, options(hold_out=1), StopAfter(steps))
    assert is_checked(run)
    assert not (run / "models").exists()
    if steps == STEPS:  # the second one was being prepared
        (run / "candidates" / "ssldec").mkdir()
        (run / "candidates" / "ssldec" / "LICENSE").write_text("half")
    done = train_checked(scans, run, TrainOptions(), resume=True)
    whole = validated[0]
    for name in ("labeled-only", "ssldec"):
        assert same(weights(run / "candidates" / name), weights(whole.training.run / "candidates" / name))
    assert done.verdict == whole.verdict
    assert same(weights(run), weights(whole.training.run))


def test_registrations_that_a_user_names_are_those_of_all_candidates_and_of_a_resume(
    scans, tmp_path, monkeypatch
):
    prefer(monkeypatch, True)
    run, shared = tmp_path / "run", tmp_path / "shared"
    named = {harmless.REGISTRATIONS: str(shared), "anatomy_weight": 0.5}
    with pytest.raises(TrainingInterrupted):
        train_checked(scans, run, options(hold_out=1, settings=named), StopAfter(2))
    train_checked(scans, run, TrainOptions(), resume=True)
    held_out, *_ = record(run)["subjects"]["validation"]
    laid_over = {path.name for path in (shared / "registrations").iterdir()}
    assert laid_over == {"sub-04", "sub-05", held_out}
    assert not list(run.rglob("registrations"))
    assert (
        json.loads((run / "plan.json").read_text())["options"]["settings"][harmless.REGISTRATIONS]
        == "../shared"
    )
    assert record(run, "candidates", "ssldec")["registrations"] == "../../../shared"
    assert record(run)["registrations"] == "../shared"
    assert not [path.name for path in texts(run) if str(tmp_path) in path.read_text()]


def test_a_finished_run_is_not_resumed(validated, scans):
    run = validated[0].training.run
    assert is_checked(run)
    with pytest.raises(OutputError, match="finished"):
        train_checked(scans, run, TrainOptions(), resume=True)


@pytest.mark.parametrize("change", ["label", "scan", "more"])
def test_a_resume_with_changed_data_is_refused(tmp_path, change):
    """The candidate that is finished had the old scans; one that is trained on new ones cannot be compared."""
    data = make_cohort(tmp_path / "cohort", labeled=("01", "02"), unlabeled=("04",))
    with pytest.raises(TrainingInterrupted):
        train_checked(data, tmp_path / "run", options(hold_out=1), StopAfter(STEPS + 2))
    if change == "more":
        write_subject(data, "05", 7, labeled=False)
    else:
        write_subject(data, "01" if change == "label" else "04", 99, labeled=change == "label")
    with pytest.raises(InputError, match=r"data changed.*sub-0[145]"):
        train_checked(data, tmp_path / "run", TrainOptions(), resume=True)


def test_a_label_that_comes_in_while_a_run_trains_is_left_for_the_next(tmp_path):
    """Somebody goes on correcting maps: both networks have the scans that the run began with."""
    data = make_cohort(tmp_path / "cohort", labeled=("02", "03"), unlabeled=("04",))

    def correct(sentence):
        if sentence == "Training ssldec":
            write_subject(data, "01", 7)

    train_checked(data, tmp_path / "run", options(hold_out=1), say=correct)
    one, other = (
        record(tmp_path / "run" / "candidates" / name)["subjects"] for name in ("labeled-only", "ssldec")
    )
    assert one["training"] == other["training"]
    assert one["validation"] == other["validation"]
    assert (data / "sub-01").is_dir()


@pytest.mark.parametrize("changed", ["scan", "weights"])
def test_what_changes_while_a_run_trains_is_no_comparison(changed, scans, tmp_path):
    data = make_cohort(tmp_path / "cohort", labeled=("02", "03"), unlabeled=("04",))
    first, other = (
        train(scans, tmp_path / name, options(method="supervised", seed=seed)).run
        for seed, name in enumerate(("first", "other"))
    )

    def change(sentence):
        if sentence == "Training labeled-only" and changed == "scan":
            write_subject(data, "04", 99, labeled=False)
        elif sentence == "Training labeled-only":
            shutil.copyfile(other / "models" / "model.pt", first / "models" / "model.pt")

    weights_of = {"init": first} if changed == "weights" else {}
    with pytest.raises(
        MedsslError, match="sub-04" if changed == "scan" else "weights of --init.*have changed"
    ):
        train_checked(data, tmp_path / "run", options(hold_out=1, **weights_of), say=change)
    assert names(tmp_path / "run") == ["labeled-only"]


def test_a_resume_with_other_data_is_refused(scans, tmp_path):
    with pytest.raises(TrainingInterrupted):
        train_checked(scans, tmp_path / "run", options(hold_out=1), StopAfter(2))
    other = make_cohort(tmp_path / "other")
    with pytest.raises(InputError, match="other data"):
        train_checked(other, tmp_path / "run", TrainOptions(), resume=True)


def test_the_record_repeats_the_whole_run_from_its_own_folder(validated, scans):
    run = validated[0].training.run
    said = record(run)
    words = shlex.split(said["command"])
    assert (run.parent / words[2]).resolve() == scans.resolve()
    assert words[words.index("--out") + 1] == run.name
    assert words[words.index("--method") + 1] == "ssldec"
    assert "--no-check" not in words
    assert (run / said["data"]).resolve() == scans.resolve()
    assert all((run / path).is_file() for path in said["data_sha256"])


def test_the_record_of_a_candidate_repeats_that_candidate(validated):
    run = validated[0].training.run
    assert "--no-check" in record(run, "candidates", "ssldec")["command"]
    assert "--no-check" not in record(run, "candidates", "labeled-only")["command"]


def test_the_run_folder_is_a_model_and_moves_with_its_data(tmp_path):
    data = make_cohort(tmp_path / "here" / "cohort", labeled=("01", "02"), unlabeled=("04",))
    train_checked(data, tmp_path / "here" / "run", options(hold_out=1))
    shutil.move(tmp_path / "here", tmp_path / "there")
    run = tmp_path / "there" / "run"
    assert load_model(run).contrasts == ("T1w", "T2w")
    listed = read_cohort(run).all()
    assert len(listed) >= 2
    assert all(path.is_file() for scan in listed for path in scan.images)
    assert (run / "metrics.tsv").is_file()
    assert not [path.name for path in texts(run) if str(tmp_path) in path.read_text()]


def test_the_plan_of_runs_is_what_is_trained(scans):
    cohort = read_cohort(scans)
    assert planned_runs(cohort, checked=True) == 4
    assert planned_runs(cohort, checked=False) == 2
    held_out = replace(cohort, training=cohort.training[1:], validation=cohort.training[:1])
    assert planned_runs(held_out, checked=True) == 2
    assert planned_runs(replace(cohort, unlabeled=()), checked=False) == 1


def trained(monkeypatch):
    """Count the trainings that begin."""
    begun = []
    monkeypatch.setattr(
        harmless, "train", lambda data, run, *rest, **more: begun.append(run.name) or pytest.fail("trains")
    )
    return begun


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"settings": {"unlabeled_wieght": 1.0}}, ConfigError, "unlabeled_wieght"),
        ({"method": "pseudo-label", "target_rule": "dec"}, ConfigError, "target rule"),
        ({"hold_out": 3}, DatalistError, "leaves no scan"),
        ({"budget": "huge"}, ConfigError, "quick"),
        ({"settings": {"loss#distance": "cosine"}}, ConfigError, "no distance .cosine."),
        ({"settings": {"features": "many"}}, ConfigError, "does not work"),
    ],
)
def test_bad_options_are_refused_before_a_candidate_trains(
    scans, tmp_path, monkeypatch, changes, error, words
):
    begun = trained(monkeypatch)
    with pytest.raises(error, match=words):
        train_checked(scans, tmp_path / "run", options(**changes))
    assert not begun
    assert not (tmp_path / "run").exists()


def test_a_leak_is_refused_before_a_candidate_trains(scans, tmp_path, monkeypatch):
    begun = trained(monkeypatch)
    cohort = read_cohort(scans)
    data = tmp_path / "leaking" / "datalist.json"
    data.parent.mkdir()
    leak = replace(cohort.training[0], label=None)
    write_datalist(
        data,
        replace(
            cohort,
            training=cohort.training[1:],
            validation=cohort.training[:1],
            unlabeled=(*cohort.unlabeled, leak),
        ),
    )
    with pytest.raises(DatalistError, match="sub-01"):
        train_checked(data, tmp_path / "run", options())
    assert not begun
    assert not (tmp_path / "run").exists()


def test_a_value_that_does_not_work_leaves_no_run_folder(scans, tmp_path):
    with pytest.raises(ConfigError, match="does not work"):
        train_checked(scans, tmp_path / "run", options(settings={"learning_rate": "fast"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"unlabeled_weight": 0.5, "unlabeled_start": 0.25, "anatomy_weight": 0.3},
        {"loss#momentum": 0.5, "network_def#alpha": 2.0},
        {"network_def#backbone#block_layers": 2},
    ],
)
def test_settings_of_the_method_do_not_reach_the_baseline(scans, tmp_path, settings):
    done = train_checked(scans, tmp_path / "run", options(hold_out=1, settings=settings))
    assert done.training.steps == STEPS
    assert names(tmp_path / "run") == ["labeled-only", "ssldec"]
    chosen = "anatomy_weight" not in settings  # otherwise there is nothing to choose
    assert (tmp_path / "run" / "anatomy_weight.json").is_file() is chosen
    both = [weights(tmp_path / "run" / "candidates" / name) for name in ("labeled-only", "ssldec")]
    if "network_def#backbone#block_layers" in settings:  # the same backbone in both
        assert len(both[0]) == len([name for name in both[1] if name.startswith("backbone")])


@pytest.mark.parametrize(
    ("changes", "safe"),
    [
        ({}, True),
        ({"method": "mean-teacher"}, True),
        ({"method": "mean-teacher", "settings": {"unlabeled_weight": 50.0}}, False),
        ({"prior": "class"}, False),
        ({"prior": "none"}, False),
        ({"settings": {"unlabeled_start": 0.1}}, False),
        ({"settings": {"unlabeled_start": 0.6}}, True),
        ({"rounds": 1}, False),
        ({"settings": {"unlabeled_start": 0.0}}, False),
        ({"settings": {"unlabeled_start": "$0.1 * 3"}}, False),
        ({"settings": {"loss#start": 0.0}}, False),
        ({"settings": {"registered_share": 0.0}}, False),
        ({"settings": {"anatomy_weight": 0.0}}, False),
        ({"settings": {"train#sampler#mixture#start": 0}}, False),
        ({"settings": {"train#unlabeled#dataset#data": []}}, False),
        ({"settings": {harmless.REGISTRATIONS: "kept", "learning_rate": 0.01}}, True),
        ({"settings": {"network_def#backbone#block_layers": 3}}, True),
        ({"target_rule": "dec"}, True),
        ({"settings": {"target_rule": "prior"}}, True),
        ({"target_rule": "dec", "settings": {"background_cluster": True}}, False),
    ],
)
def test_what_is_returned_unchecked_grows_from_what_the_labels_taught(scans, changes, safe):
    assert harmless.is_safe(TrainOptions(**{"method": "ssldec", **changes}), read_cohort(scans)) is safe


@pytest.fixture
def vanishing(monkeypatch):
    """Lets every training lose white matter; the end of it counts."""
    monkeypatch.setattr(VanishingClasses, "_compare", lambda self, _: self.vanished.append("white matter"))


@pytest.mark.parametrize(
    ("labeled", "hold_out", "answer"),
    [(("01", "02"), 0, "did not help"), (("01", "02"), 1, "did not help"), (("01",), 0, "cannot tell")],
)
def test_a_network_that_lost_a_class_is_not_returned(
    labeled, hold_out, answer, tmp_path, monkeypatch, vanishing
):
    prefer(monkeypatch, True)
    data = make_cohort(tmp_path / "cohort", labeled=labeled, unlabeled=("04",))
    done = train_checked(data, tmp_path / "run", options(hold_out=hold_out))
    said = record(tmp_path / "run")["verdict"]
    assert (done.verdict.answer, said["returned"]) == (answer, "labeled-only")
    assert "lost white matter" in said["sentence"]
    assert ("The unlabeled scans helped" in said["sentence"]) is (len(labeled) > 1), (
        "what was compared is told too"
    )
    assert same(weights(tmp_path / "run"), weights(tmp_path / "run" / "candidates" / "labeled-only"))
    assert "white matter" in record(tmp_path / "run" / "candidates" / "ssldec")["vanished"]


def test_one_labeled_scan_that_cannot_be_registered_teaches_labels_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(atlases, "register_and_save", lambda *_: "no overlap")
    data = make_cohort(tmp_path / "cohort", labeled=("01",), unlabeled=("04",))
    train_checked(data, tmp_path / "run", options())
    said = record(tmp_path / "run")["verdict"]
    assert (said["returned"], said["answer"]) == ("labeled-only", "cannot tell")
    assert "no labeled scan can be registered" in said["sentence"]
    assert record(tmp_path / "run" / "candidates" / "ssldec")["registered_pairs"] == 0


@pytest.mark.parametrize(("reached", "returned"), [(0, "labeled-only"), (1, "labeled-only"), (2, "ssldec")])
def test_few_registrations_are_not_enough_to_return_what_nobody_checked(
    reached, returned, tmp_path, monkeypatch
):
    """Of three unlabeled scans."""
    made = atlases.register_and_save
    monkeypatch.setattr(
        atlases, "register_and_save", lambda *words: made(*words) if next(turns) < reached else "no overlap"
    )
    turns = iter(range(9))
    data = make_cohort(tmp_path / "cohort", labeled=("01",), unlabeled=("04", "05", "06"))
    registered = {"train#dataset#registered#processes": 1}
    train_checked(data, tmp_path / "run", options(settings=registered))
    assert record(tmp_path / "run")["verdict"]["returned"] == returned
    assert record(tmp_path / "run" / "candidates" / "ssldec")["registered_scans"] == [reached, 3]


@pytest.mark.parametrize(
    ("told", "good"),
    [
        ({"registered_pairs": 0}, False),
        ({"registered_pairs": 3}, True),
        ({"registered_pairs": 3, "registered_scans": [1, 3]}, False),
    ],
)
def test_records_of_earlier_versions_tell_of_registrations_too(told, good, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(told))
    assert (harmless._no_good(tmp_path, "cannot tell") == "") is good


def test_advice_of_a_network_that_is_not_returned_is_not_given(scans, tmp_path, monkeypatch, vanishing):
    prefer(monkeypatch, True)
    train_checked(scans, tmp_path / "run", options(hold_out=1))
    assert record(tmp_path / "run")["verdict"]["returned"] == "labeled-only"
    told = json.loads((tmp_path / "run" / harmless.FACTOR).read_text())
    assert told["network"] == "ssldec"
    assert "anatomy_at_inference" not in record(tmp_path / "run")
    assert not gains_at_inference(tmp_path / "run")


def test_held_out_scans_that_the_first_weights_know_do_not_judge(scans, tmp_path, caplog):
    """Under validation as well: they choose the step, which is said, and compare nothing."""
    before = train(scans, tmp_path / "first", options(method="supervised")).run
    done = train_checked(scans, tmp_path / "run", options(init=before, hold_out=1))
    assert (done.verdict.answer, dict(done.verdict.dice)) == ("cannot tell", {})
    assert "so that they do not judge" in caplog.text
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["judges"] == []


@pytest.mark.parametrize(("taught", "judge"), [(("01", "02", "03"), None), (("01", "03"), "02")])
def test_scans_that_the_first_weights_know_do_not_judge(scans, tmp_path, taught, judge):
    known = read_cohort(scans)
    some = tuple(one for one in known.training if one.subject in taught)
    write_datalist(tmp_path / "data" / "some.json", replace(known, training=some, unlabeled=()))
    first = options(method="supervised")
    before = train(tmp_path / "data" / "some.json", tmp_path / "first", first).run
    done = train_checked(scans, tmp_path / "run", options(init=before))
    assert list(done.verdict.dice) == ([f"sub-{judge}"] if judge else [])
    assert ("the weights of --init know" in done.verdict.sentence) is (judge is None)
    seen = known_scans(tmp_path / "run")
    assert all(seen.holds(one) for one in known.training)
    again = train(
        tmp_path / "data" / "some.json", tmp_path / "again", replace(first, init=tmp_path / "run")
    ).run
    assert all(known_scans(again).holds(one) for one in known.training), "through all runs between"


def test_the_check_reads_contrasts_of_other_grids_as_training_does(tmp_path):
    data = make_cohort(tmp_path / "cohort", labeled=("01", "02"), unlabeled=("04",))
    for path in data.rglob("*_T2w.nii.gz"):
        image = nib.load(path)
        affine = image.affine @ np.diag([2, 2, 2, 1.0])
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::2, ::2, ::2], affine), path)
    done = train_checked(data, tmp_path / "run", options(resample=True))
    assert len(done.verdict.dice) == 1


def test_one_subject_in_two_spellings_or_copies_is_not_on_both_sides_of_the_check(tmp_path):
    data = make_cohort(tmp_path / "cohort", labeled=("01", "1", "02"), unlabeled=("04",))
    write_subject(data, "copy", 20, labeled=True)  # the voxels of 02
    held_out = set()
    for seed in range(12):
        part = harmless._held_out_for_check(read_cohort(data), seed)
        sides = [{scan.subject for scan in some} for some in (part.training, part.validation)]
        for same_child in ({"01", "1"}, {"02", "copy"}):
            assert not all(side & same_child for side in sides)
        assert all(sides)
        held_out |= sides[1]
    assert held_out == {"01", "1", "02", "copy"}


def test_which_scan_is_held_out_follows_the_names_as_they_are(tmp_path):
    scans = tuple(Subject(f"{number:02d}", ()) for number in range(1, 12))
    cohort = Cohort(tmp_path, ("T1w",), BRAIN_TISSUES, training=scans)
    assert harmless._persons(cohort.training) == [str(number) for number in range(1, 12)]


def test_two_processes_do_not_train_in_one_folder(validated, scans, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(TrainingInterrupted):
        train_checked(scans, run, options(hold_out=1), StopAfter(2))
    (tmp_path / ".medssl-train-lock-run").write_text(
        json.dumps({"process": os.getppid(), "host": socket.gethostname(), "since": "2026-11-28"})
    )
    with pytest.raises(OutputError, match="is being written by process"):
        train_checked(scans, run, TrainOptions(), resume=True)
    with pytest.raises(OutputError, match="is being written by process"):
        train_checked(scans, run, options(hold_out=1))
    assert is_checked(run), "what the other process has begun is left alone"


def test_ctrl_c_between_two_steps_says_how_to_go_on(scans, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(harmless, "dice_of_run", stop)
    with pytest.raises(TrainingInterrupted, match="between two steps"):
        train_checked(scans, tmp_path / "run", options(hold_out=1))
    monkeypatch.undo()
    assert train_checked(scans, tmp_path / "run", TrainOptions(), resume=True).training.steps == STEPS


def test_where_no_labeled_scan_can_be_registered_the_weight_stays_and_that_is_said(
    scans, tmp_path, monkeypatch
):
    def fail(*_):
        return "no overlap"

    monkeypatch.setattr(atlases, "register_and_save", fail)
    said = []
    train_checked(scans, tmp_path / "run", options(hold_out=1), say=said.append)
    weighed = json.loads((tmp_path / "run" / "anatomy_weight.json").read_text())
    assert (weighed["weight"], weighed["candidates"], weighed["held_out"]) == (0.5, [], [])
    assert len(weighed["without_registration"]) == 1
    factor = record(tmp_path / "run")["anatomy_at_inference"]
    assert (factor["difference"], factor["dice"]) == (None, {})
    assert factor["without_registration"] == weighed["without_registration"]
    assert "No labeled scan could be laid over a held-out one" in " ".join(said)
    config = yaml.safe_load(
        (tmp_path / "run" / "candidates" / "ssldec" / "configs" / "train.yaml").read_text()
    )
    assert config["anatomy_weight"] == 0.5


def test_what_is_advice_only_costs_no_comparison(scans, tmp_path, monkeypatch):
    def fail(*_, **__):
        msg = "sub-01 is not the file that the run was trained on."
        raise InputError(msg)

    monkeypatch.setattr(harmless, "check_factor", fail)
    said = []
    done = train_checked(scans, tmp_path / "run", options(hold_out=1), say=said.append)
    assert "was not found out: sub-01 is not the file" in " ".join(said)
    assert done.verdict.dice
    assert "anatomy_at_inference" not in record(tmp_path / "run")
    assert not (tmp_path / "run" / harmless.FACTOR).exists()


def test_a_stop_while_held_out_scans_are_scored_is_a_stop_and_what_is_known_is_not_asked_again(
    scans, tmp_path, monkeypatch
):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(harmless, "check_factor", stop)
    with pytest.raises(TrainingInterrupted, match="registrations that are done are kept"):
        train_checked(scans, tmp_path / "run", options(hold_out=1))
    told = {"sentence": "Known already.", "difference": 0.01, "dice": {}}
    (tmp_path / "run" / harmless.FACTOR).write_text(json.dumps(told))
    done = train_checked(scans, tmp_path / "run", TrainOptions(), resume=True)
    assert record(done.training.run)["anatomy_at_inference"] == told


def test_a_folder_in_use_is_refused(scans, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        train_checked(scans, tmp_path / "run", options())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious.txt"]


@pytest.mark.parametrize(("labeled", "prior"), [(8, "anatomical"), (9, "class")])
def test_what_auto_leaves_open_is_decided_on_all_known_scans(labeled, prior):
    """The check holds some of them out, and shall still judge the method that is returned."""
    scans = [Subject(f"{number:02d}", ()) for number in range(labeled + 1)]
    cohort = Cohort(Path(), ("T1w",), BRAIN_TISSUES, training=tuple(scans[:-1]), unlabeled=(scans[-1],))
    assert decided(TrainOptions(method="ssldec"), cohort).prior == prior
    assert decided(TrainOptions(method="ssldec", prior="none"), cohort).prior == "none"
    assert decided(TrainOptions(method="mean-teacher"), cohort).prior == "auto"


def test_a_transductive_comparison_says_so_even_if_labeled_only_wins(scans, tmp_path, monkeypatch):
    """Invariant 10."""
    cohort = read_cohort(scans)
    held_out = cohort.training[0]
    data = tmp_path / "leaking" / "datalist.json"
    data.parent.mkdir()
    unlabeled = (*cohort.unlabeled, replace(held_out, label=None))
    write_datalist(
        data, replace(cohort, training=cohort.training[1:], validation=(held_out,), unlabeled=unlabeled)
    )
    prefer(monkeypatch, method=False)
    run = train_checked(data, tmp_path / "run", options(transductive=True)).training.run
    assert record(run)["verdict"]["returned"] == "labeled-only"
    assert "sub-01" in record(run)["transductive"][0]
    assert json.loads((run / "verdict.json").read_text())["transductive"] == record(run)["transductive"]
