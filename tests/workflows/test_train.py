import csv
import json
import shutil
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from phantoms import write_subject
from runs import texts

from medssl.engines import TrainingInterrupted
from medssl.errors import CheckpointError, ConfigError, DatalistError, InputError, OutputError
from medssl.workflows.models import load_model
from medssl.workflows.train import REGISTRATIONS, prepare_run, train
from medssl.workflows.watching import Watcher


def weights(run: Path) -> dict:
    return torch.load(run / "models" / "model.pt", weights_only=True)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class StopAfter(Watcher):
    """Send Ctrl-C so that training stops after this step."""

    def __init__(self, step: int) -> None:
        self.when = step

    def step(self, step: int, loss: float) -> None:
        if step == self.when - 1:
            signal.raise_signal(signal.SIGINT)


def test_a_run_folder_is_a_bundle_with_record_curve_and_weights(cohort, tmp_path, tiny_options):
    run = tmp_path / "run"
    result = train(cohort, run, tiny_options(hold_out=1))
    assert result.steps == 6
    assert result.best == pytest.approx(max(float(row["val_dice"]) for row in rows(run)), abs=1e-5)
    record = json.loads((run / "run.json").read_text())
    assert record["finished"]
    assert len(record["subjects"]["training"]) == 2
    assert load_model(run).spacing == (2.0, 2.0, 2.0)
    assert list((run / "events").glob("events.out.tfevents.*"))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_no_file_of_a_run_names_a_folder_of_this_machine(cohort, tmp_path, tiny_options):
    run = tmp_path / "run"
    train(cohort, run, tiny_options())
    assert texts(run)
    assert not [path.name for path in run.rglob("*") if socket.gethostname() in path.name]
    assert not [path.name for path in texts(run) if str(tmp_path) in path.read_text()]


def test_registrations_that_a_user_names_are_found_by_a_resume_and_told_as_seen_from_the_run(
    cohort, tmp_path, tiny_options
):
    run, shared = tmp_path / "run", tmp_path / "shared"
    options = tiny_options(method="ssldec", settings={REGISTRATIONS: str(shared)})
    with pytest.raises(TrainingInterrupted):
        train(cohort, run, options, StopAfter(2))
    made = sorted(shared.glob("registrations/sub-04/*.npz"))
    assert len(made) == 3
    for path in made:
        path.unlink()
    train(cohort, run, resume=True)
    assert sorted(shared.glob("registrations/sub-04/*.npz")) == made
    assert not (run / "registrations").exists()
    record = json.loads((run / "run.json").read_text())
    assert record["registrations"] == "../shared"
    assert f"{REGISTRATIONS}=shared" in record["command"]
    assert not [path.name for path in texts(run) if str(tmp_path) in path.read_text()]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(cohort, tmp_path, tiny_options):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(cohort, tmp_path / name, tiny_options(seed=seed))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize("step", [2, 3])
def test_stopped_and_resumed_equals_uninterrupted(cohort, tmp_path, tiny_options, step):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(cohort, whole, tiny_options(hold_out=1))
    with pytest.raises(TrainingInterrupted, match=f"after step {step}"):
        train(cohort, parts, tiny_options(hold_out=1), StopAfter(step))
    train(cohort, parts, resume=True)
    assert same(weights(whole), weights(parts))
    drop = {"elapsed_s"}
    assert [{k: v for k, v in row.items() if k not in drop} for row in rows(whole)] == [
        {k: v for k, v in row.items() if k not in drop} for row in rows(parts)
    ]


def test_channels_last_trains_as_contiguous_and_resumes_exactly(cohort, tmp_path, tiny_options):
    layout = {"channels_last": True}
    whole, parts, plain = (tmp_path / name for name in ("whole", "parts", "plain"))
    train(cohort, plain, tiny_options())
    train(cohort, whole, tiny_options(settings=layout))
    with pytest.raises(TrainingInterrupted, match="after step 3"):
        train(cohort, parts, tiny_options(settings=layout), StopAfter(3))
    train(cohort, parts, resume=True)
    assert same(weights(whole), weights(parts))
    kernels = [value for value in weights(whole).values() if value.ndim == 5 and value[0, 0].numel() > 1]
    assert all(value.is_contiguous(memory_format=torch.channels_last_3d) for value in kernels)
    losses = [[float(row["loss"]) for row in rows(run) if row["loss"]] for run in (plain, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert load_model(whole).spacing == load_model(plain).spacing


def test_without_held_out_scans_the_last_step_is_kept(cohort, tmp_path, tiny_options):
    result = train(cohort, tmp_path / "run", tiny_options())
    last = torch.load(tmp_path / "run" / "checkpoints" / "resume.pt", weights_only=True)["model"]
    assert result.best is None
    assert same(weights(tmp_path / "run"), last)


@pytest.mark.parametrize(
    ("spacing", "told"), [([2, 2, 2.5], True), ([2.0, 2.0, 2.0], False), ("$[2.0] * 3", False), (None, False)]
)
def test_scans_that_are_interpolated_are_named_whoever_chose_the_spacing(
    cohort, tmp_path, tiny_options, caplog, spacing, told
):
    caplog.set_level("INFO")
    settings = {} if spacing is None else {"spacing": spacing}
    prepare_run(cohort, tmp_path / "run", tiny_options(settings=settings))
    words = "Interpolated to 2 x 2 x 2.5 mm, along R, A, S: sub-01 (2 x 2 x 2 mm)"
    assert (words in caplog.text) is told
    assert ("Interpolated" in caplog.text) is told


def test_patience_stops_a_run_that_no_longer_gains(cohort, tmp_path, tiny_options):
    still = {"learning_rate": 0.0, "network_def#dropout_prob": 0.0, "network_def#norm": "instance"}
    settings = {**still, "patience": 2, "epochs": 8}
    result = train(cohort, tmp_path / "run", tiny_options(hold_out=1, settings=settings))
    assert result.steps == 3 * 3


def test_init_starts_from_the_given_weights(cohort, tmp_path, tiny_options):
    train(cohort, tmp_path / "first", tiny_options())
    options = tiny_options(
        init=str(tmp_path / "first"), seed=5, settings={"learning_rate": 0.0, "weight_decay": 0.0}
    )
    train(cohort, tmp_path / "second", options)
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    learned = [name for name in first if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(first[name], second[name]) for name in learned)


def test_ssldec_starts_from_weights_without_a_clustering_head_and_back(cohort, tmp_path, tiny_options):
    """As ``--method ssldec --init packaged`` does."""
    still = {**tiny_options().settings, "learning_rate": 0.0, "weight_decay": 0.0}
    train(cohort, tmp_path / "first", tiny_options())
    chosen = {"method": "ssldec", "prior": "class", "settings": still}
    train(cohort, tmp_path / "second", tiny_options(init=str(tmp_path / "first"), **chosen))
    train(cohort, tmp_path / "third", tiny_options(init=str(tmp_path / "second"), settings=still))
    first, second, third = (weights(tmp_path / name) for name in ("first", "second", "third"))
    learned = [name for name in first if "running" not in name and "num_batches" not in name]
    body = [name for name in learned if not name.startswith("classifier.2")]
    assert len(body) == len(learned) - 2
    assert all(torch.equal(first[name], second[f"backbone.{name}"]) for name in body)
    assert all(torch.equal(first[name], third[name]) for name in body)


def test_init_of_another_network_is_refused(cohort, tmp_path, tiny_options):
    train(cohort, tmp_path / "first", tiny_options())
    options = tiny_options(init=str(tmp_path / "first"), settings={"network_def#stem_channels": 16})
    with pytest.raises(CheckpointError, match="another network"):
        train(cohort, tmp_path / "second", options)


def test_changed_data_stop_a_resume_by_name(cohort, tmp_path, tiny_options):
    with pytest.raises(TrainingInterrupted):
        train(cohort, tmp_path / "run", tiny_options(), StopAfter(2))
    write_subject(cohort, "02", 99)
    with pytest.raises(InputError, match=r"changed .*sub-02_T1w"):
        train(cohort, tmp_path / "run", resume=True)


def test_a_run_folder_moves_with_its_cohort(cohort, tmp_path, tiny_options):
    with pytest.raises(TrainingInterrupted):
        train(cohort, tmp_path / "run", tiny_options(), StopAfter(2))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(cohort, elsewhere / "cohort")
    shutil.move(tmp_path / "run", elsewhere / "run")
    assert train(elsewhere / "cohort", elsewhere / "run", resume=True).steps == 6


def test_one_contrast_and_nine_structures_train_and_segment(tmp_path, tiny_options):
    root = tmp_path / "cohort"
    for name in ("01", "02"):
        write_subject(root, name, int(name))
    table = "index\tname\n" + "\n".join(
        f"{value}\tstructure {value}" for value in (1, 2, 3, 17, 18, 26, 49, 50, 53)
    )
    (root / "derivatives" / "manual" / "dseg.tsv").write_text(table + "\n")
    train(root, tmp_path / "run", tiny_options(contrasts=("T1w",)))
    model = load_model(tmp_path / "run")
    assert model.contrasts == ("T1w",)
    assert model.table.values == (0, 1, 2, 3, 17, 18, 26, 49, 50, 53)
    assert model.network(torch.zeros(1, 1, 16, 16, 16)).shape[1] == 10


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"network": "unet"}, ConfigError, "dense-fcn"),
        ({"budget": "huge"}, ConfigError, "quick, standard, full"),
        ({"settings": {"learnin_rate": 1}}, ConfigError, "Did you mean 'learning_rate'"),
        ({"hold_out": 3}, DatalistError, "leaves no scan to train on"),
        ({"init": "nowhere"}, InputError, "nowhere"),
        (
            {"method": "ssldec", "settings": {REGISTRATIONS: "$@bundle_root"}},
            ConfigError,
            "expected the path of a folder",
        ),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(
    cohort, tmp_path, tiny_options, changes, error, words
):
    with pytest.raises(error, match=words):
        train(cohort, tmp_path / "run", tiny_options(**changes))
    assert not (tmp_path / "run").exists()


def test_no_labeled_subject_is_refused(cohort, tmp_path, tiny_options):
    shutil.rmtree(cohort / "derivatives")
    with pytest.raises(DatalistError, match=r"No labeled scan .*4 unlabeled"):
        train(cohort, tmp_path / "run", tiny_options())
    assert not (tmp_path / "run").exists()


def test_a_test_subject_in_training_is_refused(cohort, tmp_path, tiny_options):
    from medssl.io.cohort import read_cohort
    from medssl.io.datalist import write_datalist

    found = read_cohort(cohort)
    write_datalist(cohort / "datalist.json", type(found)(**{**vars(found), "test": found.training[:1]}))
    with pytest.raises(DatalistError, match="sub-01"):
        train(cohort, tmp_path / "run", tiny_options())
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_refused(cohort, tmp_path, tiny_options):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        train(cohort, tmp_path / "run", tiny_options())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious.txt"]


def test_output_inside_the_input_is_refused(cohort, tiny_options):
    with pytest.raises(OutputError):
        train(cohort, cohort / "run", tiny_options())
    assert not (cohort / "run").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"learning_rate": "fast"}}, "does not work"),
        ({"device": "gpu"}, "no device that torch knows"),
    ],
)
def test_values_that_do_not_work_leave_no_run_folder(cohort, tmp_path, tiny_options, changes, words):
    with pytest.raises(ConfigError, match=words):
        train(cohort, tmp_path / "run", tiny_options(**changes))
    assert not (tmp_path / "run").exists()


def test_resume_with_other_data_is_refused(cohort, tmp_path, tiny_options):
    with pytest.raises(TrainingInterrupted):
        train(cohort, tmp_path / "run", tiny_options(), StopAfter(2))
    write_subject(tmp_path / "other", "01", 1)
    with pytest.raises(InputError, match="other data"):
        train(tmp_path / "other", tmp_path / "run", resume=True)


def test_stopped_after_the_last_step_it_only_finishes(cohort, tmp_path, tiny_options):
    train(cohort, tmp_path / "whole", tiny_options())
    with pytest.raises(TrainingInterrupted):
        train(cohort, tmp_path / "run", tiny_options(), StopAfter(6))
    assert train(cohort, tmp_path / "run", resume=True).steps == 6
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))
    assert len(rows(tmp_path / "run")) == 2


def test_init_with_another_label_table_starts_the_head_anew(cohort, tmp_path, tiny_options, caplog):
    train(cohort, tmp_path / "first", tiny_options())
    table = "index\tname\n" + "\n".join(f"{value}\tother {value}" for value in (1, 2, 3))
    (cohort / "derivatives" / "manual" / "dseg.tsv").write_text(table + "\n")
    still = {"learning_rate": 0.0, "weight_decay": 0.0}
    train(cohort, tmp_path / "second", tiny_options(init=str(tmp_path / "first"), seed=7, settings=still))
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    head = [name for name in first if name.startswith("classifier.2")]
    assert head
    assert not any(torch.equal(first[name], second[name]) for name in head)
    assert "start anew" in caplog.text


def test_labels_with_sides_are_not_mirrored(tmp_path, tiny_options):
    import yaml

    write_subject(tmp_path / "cohort", "01", 1)
    table = "index\tname\n1\tLeft cortex\n2\tRight cortex\n3\tfluid\n"
    (tmp_path / "cohort" / "derivatives" / "manual" / "dseg.tsv").write_text(table)
    train(tmp_path / "cohort", tmp_path / "run", tiny_options())
    config = yaml.safe_load((tmp_path / "run" / "configs" / "train.yaml").read_text())
    assert config["flip_probability"] == 0


def test_a_stock_network_of_monai_trains_under_the_clustering_head(cohort, tmp_path, tiny_options):
    small = {"network_def#backbone#features": [4, 4, 8, 8, 8, 4], "crop_size": [32, 32, 32], "epochs": 1}
    own = {
        name: value for name, value in tiny_options().settings.items() if not name.startswith("network_def")
    }
    options = tiny_options(network="basic-unet", clustering_head=True, settings=small)
    train(cohort, tmp_path / "run", replace(options, settings={**own, **small}))
    network = load_model(tmp_path / "run").network
    assert type(network.backbone).__name__ == "BasicUNet"
    assert network(torch.zeros(1, 2, 32, 32, 32)).shape[1] == 4
