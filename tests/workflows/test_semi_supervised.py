"""Every semi-supervised method, online and in rounds: budget, repeats, resumes, refusals."""

import functools
import json
import shutil
from dataclasses import replace
from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
import torch
from phantoms import TINY, ellipsoid_labels, save, write_subject
from runs import StopAfter, same, table, texts, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medssl.engines import TrainingInterrupted
from medssl.errors import ConfigError, DatalistError, GridError, InputError
from medssl.functional.clustering import log_target_distribution
from medssl.io.cohort import read_cohort
from medssl.io.datalist import write_datalist
from medssl.labels import UNKNOWN
from medssl.networks import ClusteringNetwork, reinitialize
from medssl.objectives import SemiSupervisedObjective
from medssl.transforms import Targets
from medssl.workflows.methods import method_values
from medssl.workflows.models import load_model
from medssl.workflows.rounds import Rounds
from medssl.workflows.segment import Options, segment
from medssl.workflows.train import TrainOptions, train

ONLINE = {
    "ssldec": {"method": "ssldec"},
    "pseudo-label": {"method": "pseudo-label"},
    "mean-teacher": {"method": "mean-teacher"},
}
IN_ROUNDS = {
    "union_warm": {"method": "ssldec", "rounds": 2, "schedule": "union_warm"},
    "union_reinit": {"method": "ssldec", "rounds": 2, "schedule": "union_reinit"},
    "alternate": {"method": "ssldec", "rounds": 2, "schedule": "alternate"},
    "hard": {"method": "pseudo-label", "rounds": 2},
    "anatomical": {"method": "ssldec", "rounds": 2, "prior": "anatomical"},
}
CASES = {**ONLINE, **IN_ROUNDS}
STEPS = 12
START = 6  # first step with unlabeled crops
STAGES = [6, 9, 12]  # steps after which the labeled-only stage and two rounds end
SCANS = ("04", "05")


def options(case, **changes):
    start = {"unlabeled_start": START / STEPS} if case == "ssldec" and "method" not in changes else {}
    settings = {**TINY, "epochs": 4, "val_interval": 2, **start, **changes.pop("settings", {})}
    fixed = {"budget": "quick", "device": "cpu", "hold_out": 1, "settings": settings}
    return TrainOptions(**{**fixed, **CASES[case], **changes})


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Three labeled and two unlabeled phantoms; read only."""
    root = tmp_path_factory.mktemp("semi") / "cohort"
    for seed, name in enumerate(("01", "02", "03")):
        write_subject(root, name, 10 * seed)
    for seed, name in enumerate(SCANS):
        write_subject(root, name, 40 + 10 * seed, labeled=False)
    return root


@pytest.fixture(scope="module")
def whole(scans):
    """Return the uninterrupted run of a case; each is trained once."""

    @functools.cache
    def make(case):
        run = scans.parent / f"whole-{case}"
        assert train(scans, run, options(case)).steps == STEPS
        return run

    return make


def watch_stages(monkeypatch):
    """Note the weights before and after the start of each round."""
    seen = []
    start = Rounds._start_stage

    def noted(self, stage):
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        start(self, stage)
        after = {name: value.clone() for name, value in self.network.state_dict().items()}
        seen.append((stage, before, after))

    monkeypatch.setattr(Rounds, "_start_stage", noted)
    return seen


@pytest.mark.parametrize("case", CASES)
def test_the_budget_is_spent_and_both_loss_terms_are_recorded(whole, case):
    run = whole(case)
    assert json.loads((run / "run.json").read_text())["steps"] == STEPS
    rows = table(run / "metrics.tsv")
    assert [int(row["step"]) for row in rows] == [3, 6, 9, 12]
    assert all(row["loss_labeled"] for row in rows if int(row["step"]) <= START)
    for name in ("loss_unlabeled", "unlabeled_weight", "confidence"):
        filled = [int(row["step"]) for row in rows if row[name]]
        assert filled
        assert min(filled) > START
    assert any(row["val_dice"] for row in rows)
    for row in rows:
        assert bool(row["val_calibration_error"]) == bool(row["val_dice"])
        assert not row["val_dice"] or 0 <= float(row["val_calibration_error"]) <= 1
    if case != "alternate":
        assert all(
            row["loss_labeled"] and (int(row["step"]) <= START or row["loss_unlabeled"]) for row in rows
        )


@pytest.mark.parametrize("case", ["ssldec", "union_reinit"])  # of the others `STOPS` tells
def test_the_same_seed_gives_the_same_weights(scans, whole, tmp_path, case):
    """Invariant 6: bit for bit on a CPU."""
    train(scans, tmp_path / "again", options(case))
    assert same(weights(whole(case)), weights(tmp_path / "again"))


def test_another_seed_gives_other_weights(scans, whole, tmp_path):
    train(scans, tmp_path / "other", options("ssldec", seed=1))
    assert not same(weights(whole("ssldec")), weights(tmp_path / "other"))


STOPS = [
    *[(case, step) for case in ONLINE for step in (5, 8)],  # before and after the unlabeled crops come in
    *[("union_warm", step) for step in (5, *STAGES, 8, 11)],  # first stage, each stage's end, in the rounds
    *[("union_reinit", step) for step in (6, 8, 9)],
    ("alternate", 8),
    ("hard", 6),
    ("hard", 11),
    ("anatomical", 8),
]


@pytest.mark.parametrize(("case", "step"), STOPS)
def test_stopped_and_resumed_equals_uninterrupted(scans, whole, tmp_path, case, step):
    """Invariant 8: a resumed run is the run."""
    run = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match=f"after step {step}"):
        train(scans, run, options(case), StopAfter(step if step in (3, *STAGES) else step - 1))
    assert train(scans, run, resume=True).steps == STEPS
    assert same(weights(whole(case)), weights(run))
    names = ["metrics.tsv", *(("rounds.tsv", "rounds.json") if case in IN_ROUNDS else ())]
    for name in names:
        if name.endswith("tsv"):
            assert table(whole(case) / name) == table(run / name), name
        else:
            assert (whole(case) / name).read_text() == (run / name).read_text()
    last = [torch.load(one / "checkpoints" / "resume.pt", weights_only=True) for one in (whole(case), run)]
    assert same(last[0]["model"], last[1]["model"])
    assert same(last[0]["teacher"], last[1]["teacher"])


def test_killed_between_two_predictions_it_goes_on_with_the_next(scans, whole, tmp_path, monkeypatch):
    predict = Rounds._predict_one
    asked = []

    def killed(self, sample, path):
        asked.append(path.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        predict(self, sample, path)

    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "_predict_one", killed)
        with pytest.raises(TrainingInterrupted):
            train(scans, tmp_path / "run", options("union_warm"))
    train(scans, tmp_path / "run", resume=True)
    assert same(weights(whole("union_warm")), weights(tmp_path / "run"))
    assert table(whole("union_warm") / "rounds.tsv") == table(tmp_path / "run" / "rounds.tsv")


def test_reinit_starts_each_round_from_new_weights_that_follow_the_seed(scans, tmp_path, monkeypatch):
    """Invariant 6."""
    seen = watch_stages(monkeypatch)
    train(scans, tmp_path / "run", options("union_reinit", seed=5))
    network = load_model(tmp_path / "run").network
    drawn = [name for name, value in network.named_parameters() if value.ndim > 1]
    assert "head.centers" in drawn
    assert [stage for stage, _, _ in seen] == [1, 2]
    for stage, before, after in seen:
        assert not [name for name in drawn if torch.equal(before[name], after[name])]
        reinitialize(network, 5 + stage)
        assert same(network.state_dict(), after)
    assert not [name for name in drawn if torch.equal(seen[0][2][name], seen[1][2][name])]


def test_warm_rounds_go_on_with_the_weights_they_have(scans, tmp_path, monkeypatch):
    """Invariant 6."""
    seen = watch_stages(monkeypatch)
    train(scans, tmp_path / "run", options("union_warm"))
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["kept_step"]
    assert STAGES[-2] < kept <= STAGES[-1], "the best of the last round, not of the labeled-only stage"
    assert len(seen) == 2
    assert all(same(before, after) for _, before, after in seen)


def watch_batches(monkeypatch):
    """Note the labels of each step, and whether unlabeled crops stand beside them."""
    seen = []
    forward = SemiSupervisedObjective.forward

    def noted(self, network, batch):
        seen.append((batch.get("label"), "unlabeled" in batch))
        return forward(self, network, batch)

    monkeypatch.setattr(SemiSupervisedObjective, "forward", noted)
    return seen


@pytest.mark.parametrize("case", ["union_warm", "union_reinit", "alternate", "hard"])
def test_labeled_crops_keep_their_labels_in_every_round(scans, tmp_path, monkeypatch, case):
    """Invariants 5 and 6: class numbers, those of labeled-only training; "alternate" has one kind a step."""
    seen = watch_batches(monkeypatch)
    train(scans, tmp_path / "alone", options(case, method="supervised", rounds=0, schedule=None))
    alone, seen[:] = [label for label, _ in seen], []
    train(scans, tmp_path / "run", options(case))
    assert len(alone) == len(seen) == STEPS
    for wanted, (label, _) in zip(alone, seen, strict=True):
        assert label is None or torch.equal(label, wanted[: len(label)])
    labels = torch.cat([label.flatten() for label, _ in seen if label is not None])
    assert set(labels.unique().tolist()) <= {0, 1, 2, 3, UNKNOWN}
    in_rounds = [(label is not None, unlabeled) for label, unlabeled in seen[START:]]
    turns = [(False, True), (True, False), (True, False)]  # of three steps half, rounded down, are unlabeled
    assert in_rounds == (2 * turns if case == "alternate" else [(True, True)] * (STEPS - START))
    listed = {path.stem for path in (tmp_path / "run" / "targets").rglob("*.pt")}
    assert listed == {f"sub-{name}" for name in SCANS}


def test_turns_say_how_rounds_alternate(scans, tmp_path, monkeypatch):
    seen = watch_batches(monkeypatch)
    train(scans, tmp_path / "run", options("alternate", settings={"turns": [1, 2]}))
    assert [unlabeled for _, unlabeled in seen] == [False] * START + 2 * [True, True, False]


def test_turns_without_alternate_are_refused_before_anything_is_written(scans, tmp_path):
    with pytest.raises(ConfigError, match="both kinds in every step"):
        train(scans, tmp_path / "run", options("union_warm", settings={"turns": [1, 2]}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("schedule", ["union_warm", "union_reinit"])
def test_other_labels_leave_the_frequencies_alone_while_the_network_answers_the_same(
    scans, tmp_path, schedule
):
    """Invariant 5: with a learning rate of 0 and no running statistics q on the unlabeled scans cannot change."""
    other = shutil.copytree(scans, tmp_path / "other")
    for path in (other / "derivatives").rglob("*_dseg.nii.gz"):
        image = nib.load(path)
        save(path, np.array([0, 3, 1, 2], np.uint8)[np.asarray(image.dataobj)], image.affine)
    still = {"learning_rate": 0.0, "network_def#norm": "instance"}
    found = []
    for number, data in enumerate((scans, other)):
        train(data, tmp_path / str(number), options("union_warm", schedule=schedule, settings=still))
        found.append({path.name: [torch.load(one, weights_only=True) for one in sorted(path.iterdir())]
                      for path in (tmp_path / str(number) / "targets").iterdir()})  # fmt: skip
    assert set(found[0]) == {"round-01", "round-02"}
    for name, scans_of_round in found[0].items():
        for one, another in zip(scans_of_round, found[1][name], strict=True):
            assert torch.equal(one["mass"], another["mass"])
            assert torch.equal(one["log_q"], another["log_q"])
    losses = [table(tmp_path / str(number) / "metrics.tsv")[0]["loss_labeled"] for number in (0, 1)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize(("case", "clusters"), [("union_warm", 3), ("hard", 4)])
def test_targets_take_two_bytes_a_class_and_voxel(whole, case, clusters):
    voxels = int(np.count_nonzero(ellipsoid_labels()))
    files = sorted((whole(case) / "targets" / "round-02").iterdir())
    assert len(files) == len(SCANS)
    for path in files:
        stored = torch.load(path, weights_only=True)
        assert stored["log_q"].shape == (clusters, voxels)
        assert stored["log_q"].dtype == torch.float16
        assert float(stored["mass"].sum()) == pytest.approx(voxels, rel=1e-5)
        assert 0 <= path.stat().st_size - 2 * clusters * voxels < 4096


@pytest.mark.parametrize("case", IN_ROUNDS)
def test_the_table_of_rounds_is_filled(whole, case):
    rows = table(whole(case) / "rounds.tsv")
    assert [(row["round"], int(row["step"])) for row in rows] == [("1", 6), ("2", 9), ("3", 12)]
    last = rows.pop()  # of the last student, which makes no targets
    names = ["gray matter", "white matter", "cerebrospinal fluid"]
    distances = [f"distance_{one}_{other}" for one, other in combinations(names, 2)] * (case != "hard")
    assert {name for name, value in last.items() if value != "n/a"} == {
        "round",
        "step",
        "val_dice",
        "val_calibration_error",
        "loss_labeled",
        "loss_unlabeled",
        "n_labeled",
        "n_unlabeled",
        *distances,
    }
    assert (
        rows[0].pop("loss_unlabeled") == rows[0].pop("n_unlabeled") == "n/a"
    )  # the first network saw labels alone
    assert rows[0].pop("changed") == "n/a"
    for row in rows:
        losses = {"loss_labeled", "loss_unlabeled", "n_labeled", "n_unlabeled", *distances} & set(row)
        assert all(float(row[name]) > 0 for name in losses)
        assert all(
            0 <= float(value) <= 1 for name, value in row.items() if name not in {"round", "step", *losses}
        )
        shares = [float(value) for name, value in row.items() if name.startswith("share_")]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert len(shares) == (4 if case == "hard" else 3)
    assert json.loads((whole(case) / "rounds.json").read_text()) == {
        "rounds": 2,
        "reason": "all 2 rounds are done",
    }


@pytest.mark.parametrize("case", ["union_warm", "alternate"])
def test_rounds_tell_what_their_terms_ran_over_and_how_far_centers_are_apart(whole, case):
    """In the table and in TensorBoard: voxels added up over the steps of a stage, distances of its last network."""
    rows, curve = (table(whole(case) / f"{name}.tsv") for name in ("rounds", "metrics"))
    events = EventAccumulator(str(whole(case) / "events")).Reload()
    for name in ("n_labeled", "n_unlabeled"):
        steps = [int(row["step"]) for row in rows]
        stages = [
            [float(row[name]) for row in curve if begin < int(row["step"]) <= end and row[name]]
            for begin, end in zip([0, *steps], steps, strict=False)
        ]
        assert [row[name] for row in rows] == [f"{sum(stage):.0f}" if stage else "n/a" for stage in stages]
        told = {str(point.step): point.value for point in events.Scalars(f"round_{name}")}
        assert told == {row["round"]: float(row[name]) for row in rows if row[name] != "n/a"}
    labeled, unlabeled = (int(rows[-1][name]) for name in ("n_labeled", "n_unlabeled"))
    assert labeled > unlabeled if case == "alternate" else labeled > 0  # two of three steps have labels alone
    last = torch.load(whole(case) / "checkpoints" / "resume.pt", weights_only=True)["model"]["head.centers"]
    found = [float(value) for name, value in rows[-1].items() if name.startswith("distance_")]
    wanted = [float((last[j] - last[k]).norm()) for j, k in combinations(range(3), 2)]
    assert found == pytest.approx(wanted, abs=1e-4)
    assert "round_distance_gray matter_white matter" in events.Tags()["scalars"]


def test_only_the_targets_of_the_last_two_rounds_are_kept(scans, tmp_path):
    small = {"epochs": 5, "steps_per_epoch": 1}
    train(scans, tmp_path / "run", options("union_warm", rounds=3, hold_out=0, settings=small))
    kept = sorted(path.name for path in (tmp_path / "run" / "targets").iterdir())
    assert kept == ["round-02", "round-03"]
    rows = table(tmp_path / "run" / "rounds.tsv")
    assert [row["val_dice"] for row in rows] == ["n/a"] * 3
    assert [row["val_calibration_error"] for row in rows] == ["n/a"] * 3


@pytest.mark.parametrize("budget", ["quick", "standard"])
def test_a_small_budget_has_steps_for_two_rounds(scans, tmp_path, budget):
    wanted = TrainOptions(method="ssldec", rounds=3, budget=budget, device="cpu")
    with pytest.raises(
        ConfigError, match=f"--rounds 3: the steps of --budget {budget} are enough for 2 rounds"
    ):
        train(scans, tmp_path / "run", wanted)
    assert not (tmp_path / "run").exists()
    for fits in (
        replace(wanted, budget="full"),
        replace(wanted, settings={"epochs": 9}),
        replace(wanted, rounds=2),
    ):
        assert method_values(fits)["rounds"] == fits.rounds


@pytest.mark.parametrize("case", ["union_warm", "hard"])
def test_rounds_stop_when_the_labels_have_settled(scans, tmp_path, case):
    still = {"learning_rate": 0.0, "network_def#norm": "instance", "epochs": 5, "steps_per_epoch": 1}
    done = train(scans, tmp_path / "run", options(case, rounds=3, settings=still))
    said = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert said["rounds"] == 1
    assert said["reason"] == "less than 0.1 % of the labels changed in round 1"
    assert done.steps == 3  # of the labeled-only stage and of one round
    assert float(table(tmp_path / "run" / "rounds.tsv")[-1]["changed"]) == 0


def test_the_weight_of_the_unlabeled_term_holds_in_rounds_too(scans, tmp_path):
    train(scans, tmp_path / "run", options("union_warm", settings={"unlabeled_weight": 0.25}))
    weight = [row["unlabeled_weight"] for row in table(tmp_path / "run" / "metrics.tsv")]
    assert weight == ["", "", "0.25000", "0.25000"]


@pytest.mark.parametrize("case", ["ssldec", "union_warm"])
def test_without_unlabeled_scans_it_says_supervised_only(tmp_path, caplog, case):
    for name in ("01", "02", "03"):
        write_subject(tmp_path / "cohort", name, int(name))
    assert train(tmp_path / "cohort", tmp_path / "run", options(case)).steps == STEPS
    assert "supervised only" in caplog.text
    rows = table(tmp_path / "run" / "metrics.tsv")
    assert not any(row["loss_unlabeled"] for row in rows)
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == sorted(rates, reverse=True), "no stage begins anew"


def test_no_labeled_scan_is_refused(tmp_path):
    write_subject(tmp_path / "cohort", "01", 1, labeled=False)
    with pytest.raises(DatalistError, match=r"No labeled scan .*1 unlabeled"):
        train(tmp_path / "cohort", tmp_path / "run", options("ssldec", hold_out=0))
    assert not (tmp_path / "run").exists()


def test_a_changed_unlabeled_scan_stops_a_resume_by_name(scans, tmp_path):
    cohort = tmp_path / "cohort"
    shutil.copytree(scans, cohort)
    with pytest.raises(TrainingInterrupted):
        train(cohort, tmp_path / "run", options("ssldec"), StopAfter(3))
    write_subject(cohort, "05", 99, labeled=False)
    with pytest.raises(InputError, match=r"changed .*sub-05_T1w"):
        train(cohort, tmp_path / "run", resume=True)


@pytest.mark.parametrize("case", ["ssldec", "union_warm"])
def test_unlabeled_scans_may_have_another_spacing(tmp_path, case, caplog):
    """They are interpolated, and that is logged by name, as in segmenting."""
    caplog.set_level("INFO", "medssl")
    write_subject(tmp_path / "cohort", "01", 1)
    write_subject(tmp_path / "cohort", "02", 2, labeled=False, affine=np.diag([1.5, 2.5, -3.0, 1]))
    assert train(tmp_path / "cohort", tmp_path / "run", options(case, hold_out=0)).steps == STEPS
    assert "Interpolated to 2 x 2 x 2 mm, along R, A, S: sub-02 (1.5 x 2.5 x 3 mm)" in caplog.text
    assert load_model(tmp_path / "run").spacing == (2.0, 2.0, 2.0)
    losses = [row["loss_unlabeled"] for row in table(tmp_path / "run" / "metrics.tsv")][2:]
    assert all(np.isfinite(float(loss)) for loss in losses)


@pytest.mark.parametrize("resample", [True, False])
def test_contrasts_of_an_unlabeled_scan_on_two_grids_are_resampled_only_where_asked(tmp_path, resample):
    write_subject(tmp_path / "cohort", "01", 1)
    write_subject(tmp_path / "cohort", "02", 2, labeled=False)
    (path,) = (tmp_path / "cohort" / "sub-02").rglob("*_T2w.nii.gz")
    image = nib.load(path)
    coarse = image.affine @ np.diag([2, 2, 2, 1.0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::2, ::2, ::2], coarse), path)
    call = tmp_path / "cohort", tmp_path / "run", options("mean-teacher", hold_out=0, resample=resample)
    if resample:
        assert train(*call).steps == STEPS
        return
    with pytest.raises(GridError, match=r"sub-02.*--resample"):
        train(*call)
    assert not (tmp_path / "run").exists()


def test_a_class_that_no_labeled_scan_has_is_named(scans, tmp_path, caplog):
    cohort = tmp_path / "cohort"
    shutil.copytree(scans, cohort)
    rows = ["index\tname", "1\tgray", "2\twhite", "3\tfluid", "4\tmyelin"]
    (cohort / "derivatives" / "manual" / "dseg.tsv").write_text("\n".join(rows) + "\n")
    train(cohort, tmp_path / "run", options("ssldec"))
    said = [record.getMessage() for record in caplog.records if "No labeled example of" in record.message]
    assert len(said) == 1
    assert "of myelin" in said[0]


@pytest.fixture
def leaking(scans, tmp_path):
    """A held-out scan stands among the unlabeled ones too."""
    found = read_cohort(scans)
    held_out = found.training[2:]
    unlabeled = (*found.unlabeled, replace(held_out[0], label=None))
    path = tmp_path / "leaking" / "datalist.json"
    path.parent.mkdir()
    write_datalist(
        path, replace(found, training=found.training[:2], validation=held_out, unlabeled=unlabeled)
    )
    return path


def test_a_held_out_scan_among_the_unlabeled_is_refused(leaking, tmp_path):
    """Invariant 10."""
    with pytest.raises(DatalistError, match="sub-03"):
        train(leaking, tmp_path / "run", options("ssldec", hold_out=0))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("section", "transductive"), [("training", False), ("training", True), ("unlabeled", False)]
)
def test_a_test_scan_that_training_would_see_is_refused(scans, tmp_path, section, transductive):
    """Invariant 10: never with its label, and without it only where the run says so."""
    found = read_cohort(scans)
    tested = found.training[2:]
    parts = {"training": found.training[:2], "unlabeled": found.unlabeled}
    parts[section] += tested if section == "training" else (replace(tested[0], label=None),)
    path = tmp_path / "listed" / "datalist.json"
    path.parent.mkdir()
    write_datalist(path, replace(found, test=tested, **parts))
    with pytest.raises((DatalistError, InputError), match="sub-03"):
        train(path, tmp_path / "run", options("ssldec", hold_out=0, transductive=transductive))
    assert not (tmp_path / "run").exists()


def test_a_labeled_only_run_does_not_care_for_unlabeled_scans(leaking, tmp_path):
    train(leaking, tmp_path / "run", options("ssldec", method="supervised", hold_out=0, transductive=True))
    metadata = json.loads((tmp_path / "run" / "configs" / "metadata.json").read_text())
    assert metadata["transductive"] is False
    assert "transductive" not in metadata["data_source"]
    assert not json.loads((tmp_path / "run" / "run.json").read_text())["subjects"]["unlabeled"]


def test_a_transductive_run_says_so(leaking, tmp_path):
    """Invariant 10."""
    train(leaking, tmp_path / "run", options("ssldec", hold_out=0, transductive=True))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "sub-03" in record["transductive"][0]
    assert "--transductive" in record["command"]
    assert load_model(tmp_path / "run").transductive
    assert {row["transductive"] for row in table(tmp_path / "run" / "metrics.tsv")} == {"yes"}


def test_the_rounds_of_a_transductive_run_say_so(leaking, tmp_path):
    """Invariant 10."""
    train(leaking, tmp_path / "run", options("union_warm", hold_out=0, transductive=True))
    assert {row["transductive"] for row in table(tmp_path / "run" / "rounds.tsv")} == {"yes"}


def test_a_clean_run_is_not_called_transductive(whole):
    assert "transductive" not in (whole("ssldec") / "run.json").read_text()
    assert "transductive" not in table(whole("ssldec") / "metrics.tsv")[0]


@pytest.mark.parametrize("case", ["ssldec", "union_reinit"])
def test_a_run_folder_is_a_model_that_segments(whole, scans, tmp_path, case):
    assert isinstance(load_model(whole(case)).network, ClusteringNetwork)
    done = segment(scans, tmp_path / "maps", whole(case), Options(pictures=False, device="cpu"))
    assert len(done.done) == 5
    made = np.asarray(nib.load(next((tmp_path / "maps").rglob("*_dseg.nii.gz"))).dataobj)
    truth = ellipsoid_labels()
    assert not made[truth == 0].any()
    assert set(np.unique(made[truth > 0])) <= {1, 2, 3}


@pytest.mark.filterwarnings("ignore:.*class balanced samples")
def test_background_inside_the_mask_gets_a_cluster_of_its_own(scans, tmp_path):
    train(scans, tmp_path / "run", options("ssldec", mask="none", hold_out=0))
    network = load_model(tmp_path / "run").network
    assert network.first == 0
    assert len(network.head.centers) == 4


@pytest.mark.parametrize("case", CASES)
def test_no_file_of_a_run_names_a_folder_of_this_machine(whole, scans, case):
    files = texts(whole(case))
    assert len(files) > 5
    assert not [path.name for path in files if str(scans.parent) in path.read_text()]


def test_soft_targets_that_are_stored_are_what_the_network_said():
    log_q = torch.randn(3, 50).log_softmax(0)
    targets = Targets("soft")
    targets.put("a", log_q)
    place = torch.full((5, 6, 2), -1)
    place.view(-1)[:50] = torch.arange(50)
    target = targets.look_up("a", place)
    expected = log_target_distribution(log_q[None], "soft")[0].exp()
    assert torch.allclose(target.reshape(3, -1)[:, :50], expected, atol=2e-3)
    assert not target.reshape(3, -1)[:, 50:].any()
