"""D21: a training whose output goes to files, without a terminal."""

import os
import subprocess
import sys

import pytest
from pictures import TINY, write_pictures


@pytest.mark.slow
def test_a_training_needs_no_terminal(tmp_path):
    """As under cron or a scheduler: no input, output to files, TERM not set."""
    write_pictures(tmp_path / "images")
    sizes = [
        "--network",
        TINY["network"],
        "--size",
        "16",
        "--steps",
        "4",
        "--preset",
        "none",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-m", "medssl", "classify", "train", "images", "--out", "run", *sizes]
    bare = {name: value for name, value in os.environ.items() if name not in ("TERM", "COLUMNS", "LINES")}
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        done = subprocess.run(
            [*command, "--method", "mean-teacher"],
            cwd=tmp_path,
            env=bare,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            check=False,
        )
    told = (tmp_path / "err").read_bytes()
    assert done.returncode == 0, told.decode()
    assert (tmp_path / "out").read_text().splitlines()[-1] == "run"
    assert b"unlabeled images" in told
    for control in (b"\x1b", b"\r", b"Traceback"):
        assert control not in told + (tmp_path / "out").read_bytes()
