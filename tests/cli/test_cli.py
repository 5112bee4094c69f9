import json
import logging
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from phantoms import TINY, write_subject

from medssl.cli import COMMANDS, Verbs, main
from medssl.cli.segment import cache_folder


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    """Keep what is remembered of backends out of the home folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MEDSSL_CACHE", str(folder))
    return folder


SETTINGS = [word for name, value in TINY.items() for word in ("--set", f"{name}={json.dumps(value)}")]


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_command_has_help_with_an_example(verb):
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert f"medssl {verb}" in result.output.split("Example:")[1]


@pytest.mark.parametrize(("group", "shown"), [("", 4), ("classify", 4), ("label", 2)])
def test_the_first_screen_shows_how_to_start_line_by_line(group, shown):
    lines = call(*group.split(), "--help").output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  Start here"))
    assert lines[start].endswith(":")
    assert all(line.startswith("    medssl ") for line in lines[start + 1 : start + 1 + shown])
    assert lines[start + 1 + shown] == ""
    assert max(map(len, lines)) <= 80


def test_what_the_package_logs_for_people_is_shown_on_standard_error(monkeypatch):
    @click.command()
    def tell():
        logging.getLogger("medssl.somewhere").info("resampled from (4, 4) to (5, 5)")
        logging.getLogger("medssl.somewhere").debug("a detail")
        logging.getLogger("monai").info("of no interest")

    before = logging.getLogger("medssl").handlers[:], logging.getLogger("medssl").level
    monkeypatch.setattr(Verbs, "get_command", lambda *_: tell)
    result = call("check")
    assert (result.stderr, result.stdout) == ("resampled from (4, 4) to (5, 5)\n", "")
    assert (logging.getLogger("medssl").handlers, logging.getLogger("medssl").level) == before


def test_a_remark_has_no_traceback_unless_asked_and_never_ends_a_command(monkeypatch):
    @click.command()
    def tell():
        logging.getLogger("medssl.somewhere").warning("simplified", exc_info=ValueError("inner"))
        monkeypatch.setattr(click, "echo", lambda *_, **__: 1 / 0)
        logging.getLogger("medssl.somewhere").warning("to nobody")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(Verbs, "get_command", lambda *_: tell)
    assert call("check").stderr == "simplified\n"
    monkeypatch.undo()
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(Verbs, "get_command", lambda *_: tell)
    result = call("--debug", "check")
    assert (result.exit_code, "inner" in result.stderr) == (0, True)


def test_the_group_lists_every_command():
    output = call("--help").output
    assert all(verb in output for verb in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment"],
        ["train", "x"],
        ["nothing"],
        ["simulate", "x", "--site", "C"],
        ["segment", "x", "--out", "y", "--backend", "tpu"],
        ["segment", "x", "--out", "y", "--precision", "fp8"],
    ],
)
def test_wrong_usage_ends_with_two(arguments):
    assert call(*arguments).exit_code == 2


def test_check_prints_a_table_and_ends_with_zero(cohort):
    result = call("check", cohort)
    assert result.exit_code == 0, result.output
    assert "sub-01" in result.output
    assert "4 subjects, no problem." in result.output


def test_check_names_a_fatal_problem_with_its_cure_and_ends_with_one(cohort):
    (cohort / "sub-02" / "anat" / "sub-02_T2w.nii.gz").unlink()
    result = call("check", cohort)
    assert result.exit_code == 1
    assert "sub-02" in result.output
    assert "missing" in result.output


def test_check_prints_json(cohort):
    facts = json.loads(call("check", cohort, "--json").stdout)
    assert facts["ok"]
    assert [subject["subject"] for subject in facts["subjects"]] == ["sub-01", "sub-02", "sub-03", "sub-04"]


def test_simulate_train_segment_evaluate_in_a_row(tmp_path, cache):
    cohort, run, maps, scores = (tmp_path / name for name in ("cohort", "run", "maps", "scores.tsv"))
    made = call(
        "simulate",
        cohort,
        "--subjects",
        3,
        "--labeled",
        1,
        "--unlabeled",
        1,
        "--spacing",
        4,
        "--processes",
        1,
    )
    assert made.exit_code == 0, made.output
    trained = call("train", cohort, "--out", run, "--budget", "quick", "--device", "cpu", *SETTINGS)
    assert trained.exit_code == 0, trained.output
    assert "medssl segment" in trained.output
    segmented = call("segment", cohort, "--out", maps, "--model", run, "--device", "cpu")
    assert segmented.exit_code == 0, segmented.output
    assert "3 segmented" in segmented.output
    assert "Network run by " in segmented.output
    assert len(list((cache / "backends").glob("*.json"))) <= 1
    again = call("segment", cohort, "--out", maps, "--model", run, "--device", "cpu")
    assert "3 finished before" in again.output
    scored = call("evaluate", maps, cohort, "--out", scores)
    assert scored.exit_code == 0, scored.output
    header = "subject\tlabel\tdice\thd95_mm\thd_mm\tassd_mm\tvolume_pred_ml\tvolume_ref_ml"
    assert scores.read_text().splitlines()[0] == header
    assert "GM" in scored.output
    page = tmp_path / "report.html"
    written = call("report", cohort, "--run", run, "--maps", maps, "--scores", scores, "--out", page)
    assert written.exit_code == 0, written.output
    text = re.sub(r"<[^>]+>", "", page.read_text())
    for words in ("Learning curve", "Dice", "medssl train cohort", "medssl segment cohort"):
        assert words in text, words
    refused = call("report", cohort, "--out", page)
    assert refused.exit_code == 1
    assert "exists already" in refused.output


def test_a_failed_subject_ends_segment_with_one(cohort, tmp_path):
    run = tmp_path / "run"
    call("train", cohort, "--out", run, "--budget", "quick", "--device", "cpu", *SETTINGS)
    (cohort / "sub-03" / "anat" / "sub-03_T1w.nii.gz").write_bytes(b"no image")
    options = ["--backend", "torch", "--precision", "float32", "--no-pictures"]
    result = call("segment", cohort, "--out", tmp_path / "maps", "--model", run, *options)
    assert result.exit_code == 1
    assert "Network run by torch, float32." in result.output
    assert "3 segmented, 0 finished before, 1 failed" in result.output
    assert "sub-03" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "nowhere"],
        ["train", "nowhere", "--out", "run"],
        ["segment", "nowhere", "--out", "maps"],
        ["evaluate", "nowhere", "nowhere", "--out", "x.tsv"],
        ["report", "nowhere"],
        ["info", "nowhere"],
        ["simulate", "cohort", "--subjects", "2", "--labeled", "3"],
    ],
)
def test_bad_input_ends_with_one_and_one_message(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_train_without_a_label_is_refused(tmp_path):
    write_subject(tmp_path / "cohort", "01", 1, labeled=False)
    result = call("train", tmp_path / "cohort", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "No labeled scan" in result.output
    assert not (tmp_path / "run").exists()


def test_train_with_a_method_says_whether_it_helped(cohort, tmp_path):
    run = tmp_path / "run"
    options = ["--method", "ssldec", "--hold-out", 1, "--budget", "quick", "--device", "cpu"]
    result = call("train", cohort, "--out", run, *options, *SETTINGS)
    assert result.exit_code == 0, result.output
    verdict = json.loads((run / "verdict.json").read_text())
    assert verdict["sentence"] in " ".join(result.output.split())
    assert "medssl segment" in result.output
    assert "(--init packaged)" in result.stderr
    again = call("train", cohort, "--out", run, "--resume")
    assert again.exit_code == 1
    assert "finished" in again.output


def test_train_without_the_check_trains_the_method_alone(cohort, tmp_path):
    run = tmp_path / "run"
    options = ["--method", "pseudo-label", "--no-check", "--budget", "quick", "--device", "cpu"]
    result = call("train", cohort, "--out", run, *options, *SETTINGS)
    assert result.exit_code == 0, result.output
    assert not (run / "verdict.json").exists()
    assert json.loads((run / "run.json").read_text())["method"] == "pseudo-label"


def test_help_of_train_has_an_example_with_a_method():
    assert "--method ssldec" in call("train", "--help").output.split("Example")[1]


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "nothing"],
        ["--method", "ssldec", "--target-rule", "harder"],
        ["--method", "ssldec", "--schedule", "never"],
        ["--resume", "--method", "ssldec"],
        ["--resume", "--no-check"],
        ["--resume", "--rounds", "2"],
        ["--resume", "--set", "learning_rate=1"],
    ],
)
def test_wrong_options_of_train_end_with_two(cohort, tmp_path, options):
    result = call("train", cohort, "--out", tmp_path / "run", *options)
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--rounds", 2],
        ["--method", "ssldec", "--target-rule", "hard"],
        ["--method", "ssldec", "--schedule", "alternate"],
        ["--method", "mean-teacher", "--target-rule", "soft"],
    ],
)
def test_options_of_train_that_do_not_go_together_end_with_one_message(cohort, tmp_path, options):
    result = call("train", cohort, "--out", tmp_path / "run", "--budget", "quick", *options)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert "--" in result.output.split("Error")[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "compared"),
    [
        ([], False),
        (["--method", "ssldec"], True),
        (["--method", "ssldec", "--no-check"], False),
        (["--resume"], True),
    ],
)
def test_train_in_several_processes_is_refused_with_the_command_that_works(
    cohort, tmp_path, monkeypatch, options, compared
):
    if "--resume" in options:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "plan.json").write_text("{}")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = call("train", cohort, "--out", tmp_path / "run", *options)
    assert done.exit_code == 1
    assert (
        "only one process compares with labeled-only training" in " ".join(done.output.split())
    ) is compared
    assert "torchrun --standalone --nproc_per_node=2 -m monai.bundle run" in " ".join(done.output.split())
    assert not list((tmp_path / "run").glob("[!p]*"))


@pytest.mark.parametrize("patience", [1, 5])
def test_rounds_with_patience_are_refused(cohort, tmp_path, patience):
    done = call(
        "train", cohort, "--out", tmp_path / "run", "--method", "ssldec", "--rounds", 1, "--no-check",
        "--set", f"patience={patience}",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "Leave patience out" in done.output
    assert not (tmp_path / "run").exists()


def test_info_shows_versions_and_budgets_and_the_card():
    result = call("info")
    assert result.exit_code == 0, result.output
    assert all(word in result.output for word in ("torch", "quick", "simulated"))
    assert json.loads(call("info", "--json").stdout)["model"]["labels"] == "0 BG, 1 GM, 2 WM, 3 CSF"


def test_info_lists_the_backends_with_their_versions(monkeypatch):
    versions = {"torch": "9.1", "openvino": None, "onnxruntime": "9.2"}
    monkeypatch.setattr("medssl.workflows.info.library_versions", lambda: versions)
    assert "torch 9.1, openvino (not installed), onnxruntime 9.2" in " ".join(call("info").output.split())
    assert json.loads(call("info", "--json").stdout)["backends"] == versions


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"MEDSSL_CACHE": "a", "XDG_CACHE_HOME": "b"}, "a"),
        ({"XDG_CACHE_HOME": "b"}, "b/medssl"),
        ({}, "home/.cache/medssl"),
    ],
)
def test_cache_follows_the_environment(monkeypatch, environment, folder):
    for name in ("MEDSSL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "home")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_debug_shows_the_traceback(tmp_path):
    result = call("--debug", "segment", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert isinstance(result.exception, Exception)
    assert result.exit_code == 1


def test_info_prints_the_budgets_of_images_too():
    shown = call("info").output
    assert "Budgets of medssl classify" in shown
    assert "2000 steps x 64 images, about 3 minutes on two CPU cores" in shown
