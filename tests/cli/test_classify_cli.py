"""`medssl classify`: every verb answers, lists agree with the package, errors are one message and exit code 1."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pictures import TINY, write_pictures

from medssl.cli import main
from medssl.cli.classify import VERBS
from medssl.cli.classify.common import BACKENDS, FITS, PRESETS
from medssl.cli.classify.distill import distill
from medssl.cli.classify.train import METHODS, SCHEDULES, train
from medssl.cli.common import to_type
from medssl.inference.int8_ladder import Attempt, Outcome, Recipe
from medssl.inference.latency import SpeedGate
from medssl.io.image_cohort import read_image_cohort, write_manifest
from medssl.networks.compact import NETWORKS
from medssl.transforms import classification, image_augmentation, mixture
from medssl.workflows.classification import models
from medssl.workflows.classification.distill_options import RECIPES, RELABEL, TARGETS
from medssl.workflows.classification.export import Exported
from medssl.workflows.classification.methods import ONLINE
from medssl.workflows.classification.pseudo_labels import WEIGHTS
from medssl.workflows.classification.train import CLASS_WEIGHTS


def call(*words):
    return CliRunner().invoke(main, ["classify", *map(str, words)])


def test_commands_to_type_are_quoted_where_they_must_be():
    assert to_type("medssl train", Path("ward 7, M"), "--out", "b") == "medssl train 'ward 7, M' --out b"


def training(*more):
    sizes = ["--network", TINY["network"], "--size", TINY["size"], "--steps", 4, "--preset", "none"]
    return [*sizes, "--device", "cpu", *more]


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("train", ["--method", "mixmatch"]),
        ("train", ["--no-baseline"]),
        ("distill", ["--threshold", "0.99"]),
        ("distill", ["--set", "average=0.9"]),
        ("distill", ["--no-baseline"]),
    ],
)
def test_a_resumed_run_takes_no_other_options(tmp_path, verb, more):
    done = call(verb, tmp_path, "--out", tmp_path / "run", "--resume", *more)
    assert done.exit_code == 2, done.output
    assert f"drop {more[0]}." in done.output


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(verb):
    done = call(verb, "--help")
    assert done.exit_code == 0, done.output
    assert f"medssl classify {verb}" in done.output


def test_help_answers_without_torch():
    lines = "\n".join(f"main(['classify', '{verb}', '--help'], standalone_mode=False)" for verb in VERBS)
    code = f"import sys\nfrom medssl.cli import main\n{lines}\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


def test_lists_of_the_command_line_are_those_of_the_package():
    assert list(ONLINE) == METHODS
    assert set(mixture.SCHEDULES) == set(SCHEDULES)
    assert set(image_augmentation.PRESETS) == set(PRESETS)
    assert list(classification.FITS) == FITS
    assert list(models.BACKENDS) == BACKENDS
    parameters = (*train.params, *distill.params)
    choices = {one.name: one.type.choices for one in parameters if hasattr(one.type, "choices")}
    assert tuple(choices["class_weights"]) == CLASS_WEIGHTS
    assert tuple(choices["targets"]) == TARGETS
    assert tuple(choices["relabel"]) == RELABEL
    assert tuple(choices["weight"]) == WEIGHTS
    assert tuple(choices["recipe"]) == tuple(RECIPES)


def test_from_a_folder_to_predictions(tmp_path):
    images, run = write_pictures(tmp_path / "images"), tmp_path / "run"
    done = call("train", images, "--out", run, "--method", "mean-teacher", *training())
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(run)
    assert "unlabeled images" in done.stderr
    done = call("predict", images / "test", "--out", tmp_path / "p.csv", "--model", run)
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 11
    done = call("evaluate", images, "--out", tmp_path / "report", "--model", run)
    assert done.exit_code == 0, done.output
    assert "macro_f1" in done.stdout
    assert Path(done.stdout.splitlines()[-1]).is_file()
    assert "sensitivity" not in done.stderr


def test_from_a_run_to_files_for_a_finding(tmp_path):
    pytest.importorskip("onnxruntime")
    images, run, files = write_pictures(tmp_path / "images"), tmp_path / "run", tmp_path / "files"
    assert call("train", images, "--out", run, *training()).exit_code == 0
    done = call("export", run, "--out", files, "--sensitivity", 0.9)
    assert (done.exit_code, "belongs to a class" in done.output) == (1, True)
    done = call("export", run, "--out", files, "--finding", "dark")
    assert (done.exit_code, "Give one of them" in done.output) == (1, True)
    done = call("export", run, "--out", files, "--finding", "gray", "--sensitivity", 0.9)
    assert (done.exit_code, "no class 'gray'" in done.output) == (1, True)
    assert not files.exists()
    done = call("export", run, "--out", files, "--finding", "dark", "--sensitivity", 0.9)
    assert done.exit_code == 0, done.output
    assert "model.onnx: dark from a probability of" in done.stderr
    assert {path.name for path in files.iterdir()} == {"model.onnx", "predict.pyz", "export.json"}
    done = call("evaluate", images, "--out", tmp_path / "report", "--model", files / "model.onnx")
    assert "dark, from a probability of" in done.stderr
    cohort = read_image_cohort(images)
    dark = tuple(item for item in cohort.test if item.label == "dark")
    write_manifest(images / "dark.csv", replace(cohort, test=dark))
    words = ["--out", tmp_path / "alone", "--model", files / "model.onnx"]
    done = call("evaluate", images / "dark.csv", *words)
    assert "specificity n/a" in done.stderr
    assert "n/a" in done.stdout
    assert "nan" not in done.output
    done = call("predict", images / "test", "--out", tmp_path / "p.csv", "--model", files / "model.onnx")
    assert (tmp_path / "p.csv").read_text().splitlines()[0].endswith(",found_dark")
    done = call("bench", files, "--data", images)
    assert done.exit_code == 0, done.output
    assert "M parameters" in done.stderr


@pytest.mark.parametrize(("strict", "code"), [(["--strict"], 1), ([], 0)])
def test_an_8_bit_file_that_is_not_good_enough_is_an_error_only_where_asked(
    monkeypatch, tmp_path, strict, code
):
    none = Outcome(0.9, 0.01, (Attempt(Recipe(), 0.5),), None)
    done = Exported(tmp_path, "equal", none)
    monkeypatch.setattr("medssl.workflows.classification.export.export_run", lambda *_, **__: done)
    assert call("export", "run", "--out", "files", "--int8", *strict).exit_code == code


@pytest.mark.parametrize(("int8", "said"), [(2.0, "not recommended here"), (0.5, "2.0 times as fast")])
def test_an_8_bit_file_that_is_slower_here_is_told(monkeypatch, tmp_path, int8, said):
    chosen = Outcome(0.9, 0.01, (Attempt(Recipe(), 0.9),), Attempt(Recipe(), 0.9))
    done = Exported(tmp_path, "equal", chosen, speed=SpeedGate(1.0, int8))
    monkeypatch.setattr("medssl.workflows.classification.export.export_run", lambda *_, **__: done)
    assert said in call("export", "run", "--out", "files", "--int8").stderr


@pytest.mark.parametrize(("words", "most_loss"), [(["--most-loss", 2.5], 0.025), ([], None)])
def test_points_that_8_bits_may_lose_are_hundredths_of_the_score(monkeypatch, tmp_path, words, most_loss):
    given = {}
    done = Exported(tmp_path, "equal", None)
    monkeypatch.setattr(
        "medssl.workflows.classification.export.export_run",
        lambda *_, **options: given.update(options) or done,
    )
    assert call("export", "run", "--out", "files", "--int8", *words).exit_code == 0
    assert given["most_loss"] == most_loss


def test_files_of_other_classes_are_refused_before_anything_is_written(tmp_path):
    pytest.importorskip("onnxruntime")
    images, other = write_pictures(tmp_path / "images"), write_pictures(tmp_path / "other")
    for section in ("train", "val", "test"):
        (other / section / "dark").rename(other / section / "dim")
    for data in (images, other):
        assert call("train", data, "--out", f"{data}-run", *training()).exit_code == 0
        assert call("export", f"{data}-run", "--out", f"{data}-files").exit_code == 0
    words = ["evaluate", images, "--out", tmp_path / "report", "--model", f"{images}-run", "--exported"]
    done = call(*words, f"{other}-files")
    assert done.exit_code == 1
    assert "tells apart dim, light" in done.output
    assert "medssl classify export" in done.output
    assert not (tmp_path / "report").exists()
    done = call(*words, f"{images}-files")
    assert done.exit_code == 0, done.output


def test_check_says_what_must_be_mended(tmp_path):
    images = write_pictures(tmp_path / "images")
    assert call("check", images).exit_code == 0
    (images / "test" / "dark" / "0.png").write_bytes(b"no image")
    done = call("check", images)
    assert done.exit_code == 1
    assert "test/dark/0.png" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "nowhere", "--out", "run"], "nowhere"),
        (["predict", "nowhere", "--out", "p.csv", "--model", "nothing"], "no"),
        (["export", "nothing", "--out", "files"], "No classifier"),
        (["export", "nothing", "--out", "files", "--strict"], "Add --int8"),
        (["bench", "nothing"], "model.onnx"),
        (["evaluate", "nowhere", "--out", "r", "--model", "nothing"], "nothing"),
        (["compare", "nowhere.csv", "--out", "c"], "nowhere.csv"),
    ],
)
def test_errors_are_one_message_and_exit_code_1(words, said, tmp_path, monkeypatch):
    """D8."""
    monkeypatch.chdir(tmp_path)
    done = call(*words)
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    assert said in done.output
    assert not list(tmp_path.iterdir())


def test_rounds_need_the_baseline(tmp_path):
    images = write_pictures(tmp_path / "images")
    done = call(
        "train", images, "--out", tmp_path / "run", "--method", "ssldec", "--rounds", 1, "--no-baseline"
    )
    assert done.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_every_network_of_the_registry_is_listed():
    done = CliRunner().invoke(main, ["classify", "networks"], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    _, *lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(NETWORKS), "whole names, one a line"
    for facts, line in zip(NETWORKS.values(), lines, strict=True):
        assert line.rstrip().endswith(f"{facts.source} {facts.id}".strip())


def test_it_runs_without_a_terminal_or_notebook(tmp_path):
    """D21."""
    words = ["simulate", str(tmp_path / "images"), "--labeled", "1", "--validation", "0", "--test", "0"]
    words += ["--unlabeled", "2", "--size", "16"]
    command = [sys.executable, "-W", "error", "-m", "medssl", "classify", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "images")


def test_a_manifest_beside_the_images_is_used_when_told_to(tmp_path):
    """What `split` writes elsewhere, every other command can read."""
    images = write_pictures(tmp_path / "images", training=10, validation=0, test=0)
    manifest, run = tmp_path / "lists" / "manifest.csv", tmp_path / "run"
    manifest.parent.mkdir()
    assert call("split", images, "--out", manifest).exit_code == 0
    refused = call("check", manifest)
    assert refused.exit_code == 1
    assert "--allow-outside" in refused.output
    for words in (
        ["check", manifest],
        ["train", manifest, "--out", run, *training()],
        ["evaluate", manifest, "--out", tmp_path / "report", "--model", run],
    ):
        done = call(*words, "--allow-outside")
        assert done.exit_code == 0, done.output
    assert "--allow-outside" in json.loads((run / "run.json").read_text())["command"]


def test_a_distillation_by_its_short_name_has_five_rounds_unless_others_are_given(tmp_path):
    images, run = write_pictures(tmp_path / "images"), tmp_path / "run"
    done = call(
        "distill", images, "--out", run, "--kind", "IPD", "--network", TINY["network"], "--budget", "quick"
    )
    assert done.exit_code == 1
    assert "--rounds 5: the steps of --budget quick are enough for 2 rounds" in " ".join(done.stderr.split())
    assert not run.exists()
    done = call(
        "distill",
        images,
        "--out",
        run,
        "--kind",
        "IPD",
        "--rounds",
        2,
        "--no-baseline",
        *training("--recipe", "paper"),
    )
    assert done.exit_code == 0, done.output
    told = json.loads((run / "run.json").read_text())["command"]
    assert "--kind plain" in told
    assert "--rounds 2" in told
    assert "--recipe paper" in told
    assert "--no-baseline" in told
    assert not (run / "candidates" / "supervised").exists()
