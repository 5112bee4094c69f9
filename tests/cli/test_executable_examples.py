"""D22: the examples of the pages are run one after the other as they are printed, only smaller.

What is replaced are steps, sizes and networks (options after those that are printed); the data are tiny.
"""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from pages import ROOT, printed
from phantoms import TINY
from pictures import TINY as SMALL
from pictures import write_pictures

from medssl.cli import main

SMALLER = {
    "simulate": ["--subjects", 3, "--labeled", 1, "--spacing", 4, "--processes", 1],
    "train": [
        "--device",
        "cpu",
        *(word for name, value in TINY.items() for word in ("--set", f"{name}={json.dumps(value)}")),
    ],
    "segment": ["--device", "cpu", "--no-pictures"],
    "classify train": [
        "--steps",
        4,
        "--network",
        SMALL["network"],
        "--size",
        SMALL["size"],
        "--preset",
        "none",
    ],
}
"""What a command gets besides."""


def run(page, *verbs):
    """Run what a page prints first, in the current folder; the verbs are those that are expected there."""
    for line, expected in zip(printed(page), verbs, strict=False):
        words = shlex.split(line, comments=True)[1:]
        verb = " ".join(words[: 2 if words[0] == "classify" else 1])
        assert verb == expected, line
        done = CliRunner().invoke(main, [*words, *map(str, SMALLER.get(verb, []))])
        assert done.exit_code == 0, f"{line}\n{done.output}"


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDSSL_CACHE", str(tmp_path / "cache"))


def test_the_readme(cohort):
    Path("SCANS").symlink_to(cohort.name)
    run(ROOT / "README.md", "check", "train", "segment", "report")
    assert len(list(Path("MAPS").rglob("*_dseg.nii.gz"))) == 4
    assert list(Path("MAPS").glob("*.html")) + list(Path().glob("*.html"))


def test_the_first_steps():
    run(ROOT / "docs" / "tutorial.md", "simulate", "check", "train", "segment", "evaluate", "report")
    assert Path("report.html").is_file()
    assert Path("scores.tsv").is_file()


def test_classification():
    pytest.importorskip("onnxruntime")
    write_pictures(Path("IMAGES"))
    Path("NEW").symlink_to("IMAGES/test")
    verbs = ("check", "train", "evaluate", "predict", "export", "bench")
    run(ROOT / "docs" / "classification.md", *(f"classify {verb}" for verb in verbs))
    assert Path("REPORT/report.html").is_file()
    assert len(Path("TABLE.csv").read_text().splitlines()) == 11
    assert {path.suffix for path in Path("FILES").iterdir()} == {".onnx", ".pyz", ".json"}
