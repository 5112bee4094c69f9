"""The commands that the overlays of semi-supervised methods print, run as printed but for smaller numbers."""

import csv
import json
import logging
import re
import runpy
import shlex
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

from medssl.errors import DatalistError
from medssl.workflows.models import load_model
from medssl.workflows.train import TrainOptions, prepare_run, train

pytestmark = pytest.mark.slow

SMALL = ["--crop_size", "[16,16,16]", "--epochs", "4", "--steps_per_epoch", "1"]
NETWORK = {"growth_rate": 4, "stem_channels": 8, "block_layers": 1, "levels": 2}
COMMANDS = {
    "ssldec": (["train_ssldec.yaml"], []),
    "ssldec with registration": (["train_ssldec.yaml", "train_anatomy.yaml"], []),
    "pseudo-label": (["train_pseudo_label.yaml"], []),
    "mean-teacher": (["train_mean_teacher.yaml"], []),
    "ssldec in rounds": (["train_ssldec.yaml", "train_rounds.yaml"], []),
    "ssldec in rounds with registration": (
        ["train_ssldec.yaml", "train_anatomy.yaml", "train_rounds.yaml", "train_rounds_anatomy.yaml"],
        [],
    ),
    "pseudo-label in rounds": (
        ["train_pseudo_label.yaml", "train_rounds.yaml"],
        ["--target_rule", "hard"],
    ),
}


def files(*names):
    return "[" + ",".join(f"'configs/{name}'" for name in ("train.yaml", *names)) + "]"


@pytest.fixture
def run_here(monkeypatch, capfd):
    """Run a command line of `python -m monai.bundle` in this process, which spares seconds of imports."""
    root = logging.getLogger()
    kept = root.handlers[:], root.level

    # logging.conf closes every handler there is; that of absl, which came with an earlier test, would close the stream
    # into which pytest captured that test, and with it all that follows
    monkeypatch.setattr(logging, "_handlerList", [])

    def call(words, cwd):
        monkeypatch.chdir(cwd)
        assert words[:3] == ["python", "-m", "monai.bundle"]
        monkeypatch.setattr(sys, "argv", ["monai.bundle", *words[3:]])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_module("monai.bundle", run_name="__main__")
        caught = capfd.readouterr()
        return caught.out + caught.err

    yield call
    root.handlers[:], level = kept
    root.setLevel(level)


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def small_network(overlays):
    place = "network_def#backbone" if "train_ssldec.yaml" in overlays else "network_def"
    return [word for name, value in NETWORK.items() for word in (f"--{place}#{name}", str(value))]


def command(name, out, *more):
    overlays, extra = COMMANDS[name]
    run = ["python", "-m", "monai.bundle", "run", "--config_file", files(*overlays), *extra, *more]
    places = ["--output_dir", str(out), "--ckpt_dir", str(out / "models")]
    return [*run, *SMALL, *small_network(overlays), *places]


def test_the_overlays_print_their_command():
    configs = Path(__file__).parents[2] / "bundles" / "infant_brain_segmentation" / "configs"
    printed = {}
    for path in configs.glob("train_*.yaml"):
        (line,) = re.findall(r"#\s+(python -m monai\.bundle .*)", path.read_text())
        printed[path.name] = shlex.split(line)
    run = ["python", "-m", "monai.bundle", "run", "--config_file"]
    for names, _ in COMMANDS.values():
        if names != ["train_pseudo_label.yaml", "train_rounds.yaml"]:
            assert printed.pop(names[-1]) == [*run, files(*names)]
    assert not printed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_printed_command_runs(bundle_with_unlabeled, run_here, tmp_path, name):
    printed = run_here(command(name, tmp_path), bundle_with_unlabeled)
    assert "supervised only" not in printed
    rows = table(tmp_path / "metrics.tsv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    labeled_only = 1 if name.startswith("ssldec") and "rounds" not in name else 2
    assert [bool(row["loss_unlabeled"]) for row in rows] == [step >= labeled_only for step in range(4)]
    assert (tmp_path / "models" / "model.pt").is_file()
    assert (tmp_path / "rounds.tsv").is_file() == ("rounds" in name)
    assert bool(list(tmp_path.glob("registrations/*/*.npz"))) == ("registration" in name)
    if "rounds" in name:
        shares = [column for column in table(tmp_path / "rounds.tsv")[0] if column.startswith("share_")]
        assert len(shares) == (3 if "ssldec" in name else 4)


@pytest.mark.parametrize("name", COMMANDS)
def test_without_unlabeled_scans_it_says_supervised_only(bundle, run_here, tmp_path, name):
    assert "supervised only" in run_here(command(name, tmp_path), bundle)
    rows = table(tmp_path / "metrics.tsv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert not any(row["loss_unlabeled"] for row in rows)


def test_an_unlabeled_copy_of_a_held_out_scan_stops_the_bundle(bundle_with_unlabeled, run_here, tmp_path):
    data = shutil.copytree(bundle_with_unlabeled / "data", tmp_path / "data")
    listed = json.loads((data / "datalist.json").read_text())
    listed["unlabeled"].append({**listed["validation"][0], "subject": "another"})
    listed["unlabeled"][-1].pop("label")
    (data / "datalist.json").write_text(json.dumps(listed))
    words = command("ssldec", tmp_path / "out", "--dataset_dir", str(data))
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around ours
        run_here(words, bundle_with_unlabeled)
    assert isinstance(caught.value.__cause__, DatalistError)
    assert "sub-another" in str(caught.value.__cause__)
    assert not (tmp_path / "out" / "models").exists()
    run_here([*words, "--leak_check", "False"], bundle_with_unlabeled)
    assert (tmp_path / "out" / "models" / "model.pt").is_file()


@pytest.mark.parametrize("name", ["ssldec", "ssldec with registration", "ssldec in rounds"])
def test_the_command_line_and_the_bundle_give_the_same_weights(
    bundle_with_unlabeled, run_here, tmp_path, name
):
    run_here(command(name, tmp_path / "bundle", "--seed", "3"), bundle_with_unlabeled)
    settings = {"crop_size": [16, 16, 16], "batch_size": 2, "epochs": 4, "steps_per_epoch": 1}
    network = {f"network_def#{part}": value for part, value in NETWORK.items()}
    options = TrainOptions(
        method="ssldec",
        rounds=2 if "rounds" in name else 0,
        prior={"ssldec": "class", "ssldec with registration": "anatomical"}.get(name, "auto"),
        seed=3,
        device="cpu",
        budget="quick",
        settings={**settings, "val_interval": 1, **network},
    )
    train(bundle_with_unlabeled / "data", tmp_path / "run", options)
    first, second = (
        torch.load(tmp_path / place / "models" / "model.pt", weights_only=True) for place in ("run", "bundle")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def launched(*words):
    return ["torchrun", "--standalone", "--nnodes=1", "--nproc_per_node=2", *words]


def test_two_processes_predict_what_one_does_and_train_all_rounds(bundle_with_unlabeled, shell, tmp_path):
    """Invariants 4 and 10: the processes have different numbers of scans to predict, two and one."""
    script = str(Path(__file__).with_name("predict_round.py"))
    rounds = ["train.yaml", "train_ssldec.yaml", "train_rounds.yaml"]
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    shell(["python", script, str(one), *rounds], bundle_with_unlabeled)
    shell(launched(script, str(two), *rounds, "multi_gpu_train.yaml"), bundle_with_unlabeled)
    first, second = (json.loads((place / "round-1.json").read_text()) for place in (one, two))
    assert len(first["scans"]) == 3
    assert first["scans"] == second["scans"]
    assert second["frequencies"] == pytest.approx(first["frequencies"], rel=1e-6)
    q = [torch.load(place / "round-1.pt", weights_only=True) for place in (one, two)]
    assert all(torch.allclose(q[0][scan].float(), q[1][scan].float(), atol=1e-3) for scan in q[0])
    assert json.loads((two / "rounds.json").read_text())["rounds"] == 2
    assert [row["round"] for row in table(two / "rounds.tsv")] == ["1", "2", "3"]  # the last student too
    assert [row["step"] for row in table(two / "metrics.tsv")] == ["1", "2", "3", "4"]


def test_two_processes_train_a_prepared_run(bundle_with_unlabeled, shell, tmp_path):
    """What `medssl train` says to do where torchrun started it."""
    small = {"crop_size": [16, 16, 16], "batch_size": 2, "epochs": 4, "steps_per_epoch": 1}
    network = {f"network_def#backbone#{part}": value for part, value in NETWORK.items()}
    options = TrainOptions(method="ssldec", prior="class", budget="quick", settings={**small, **network})
    prepare_run(bundle_with_unlabeled / "data", tmp_path / "run", options)
    config = "['configs/train.yaml','configs/multi_gpu_train.yaml']"
    shell(launched("-m", "monai.bundle", "run", "--config_file", config), tmp_path / "run")
    rows = table(tmp_path / "run" / "metrics.tsv")
    assert [bool(row["loss_unlabeled"]) for row in rows] == [False, True, True, True]
    assert load_model(tmp_path / "run").network.head.centers.shape == (3, 16)


def test_two_processes_train_one_model(bundle_with_unlabeled, shell, tmp_path):
    overlays = files("train_ssldec.yaml", "train_anatomy.yaml", "multi_gpu_train.yaml")
    words = ["-m", "monai.bundle", "run", "--config_file", overlays]
    numbers = [*SMALL, *small_network(["train_ssldec.yaml"])]
    places = ["--output_dir", str(tmp_path), "--ckpt_dir", str(tmp_path / "models")]
    shell(launched(*words, *numbers, *places), bundle_with_unlabeled)
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert "head.centers" in weights
    assert not [name for name in weights if name.startswith("module.")]
    rows = table(tmp_path / "metrics.tsv")
    assert [bool(row["loss_unlabeled"]) for row in rows] == [False, True, True, True]
    assert list(tmp_path.glob("registrations/*/*.npz"))
