from pathlib import Path

import pytest
from click.testing import CliRunner
from phantoms import TINY, write_subject

from medssl.cli import main
from medssl.io.files import read_tsv
from medssl.workflows.train import TrainOptions, train


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """One labeled phantom and two unlabeled ones, and in "run" a network."""
    root = tmp_path_factory.mktemp("ranked")
    write_subject(root / "scans", "01", 1)
    settings = {**TINY, "epochs": 1}
    train(root / "scans", root / "run", TrainOptions(budget="quick", device="cpu", settings=settings))
    for name in ("02", "03"):
        write_subject(root / "scans", name, int(name) * 10, labeled=False)
    return root


def test_rank_prints_the_order_and_where_the_table_is(scans, tmp_path):
    out = tmp_path / "next.tsv"
    result = call("rank", scans / "scans", "--model", scans / "run", "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-1] == str(out)
    first = read_tsv(out)[0]["subject"]
    assert lines[1].split()[:2] == ["1", first]
    assert "Looking at scans" in result.stderr
    assert out.with_suffix(".png").is_file()


def test_rank_refuses_a_table_that_is_there(scans, tmp_path):
    out = tmp_path / "next.tsv"
    out.write_text("mine")
    result = call("rank", scans / "scans", "--model", scans / "run", "--out", out, "--no-pictures")
    assert result.exit_code == 1
    assert "--overwrite" in result.output
    assert out.read_text() == "mine"


def test_rank_says_what_it_lacks(scans, tmp_path):
    out = tmp_path / "next.tsv"
    result = call("rank", scans / "scans", "--model", scans / "nothing", "--out", out)
    assert result.exit_code == 1
    assert "no such run folder" in result.output
    result = call("rank", scans / "scans", "--out", tmp_path / "next.txt", "--model", scans / "run")
    assert result.exit_code == 1
    assert "ends in .tsv" in result.output
    assert not list(tmp_path.iterdir())


def test_a_scan_that_cannot_be_used_is_named_and_ends_with_one(scans, tmp_path):
    broken = tmp_path / "scans"
    write_subject(broken, "02", 20, labeled=False)
    write_subject(broken, "05", 50, labeled=False)
    (broken / "sub-05" / "anat" / "sub-05_T2w.nii.gz").unlink()
    out = tmp_path / "next.tsv"
    result = call("rank", broken, "--model", scans / "run", "--out", out, "--no-pictures", "--device", "cpu")
    assert result.exit_code == 1
    assert "failed sub-05: " in result.stderr
    assert [row["subject"] for row in read_tsv(out)] == ["sub-02"]
