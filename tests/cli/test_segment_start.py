"""What `medssl segment` loads before it works: nothing that trains, measures or, without pictures, draws."""

import json
import subprocess
import sys

import pytest
from phantoms import write_subject

HEAVY = ["ignite", "itk", "matplotlib", "pandas", "pydicom", "scipy.signal", "scipy.stats", "SimpleITK", "sklearn",
         "sympy", "tensorboard", "torch.distributed.optim"]  # fmt: skip
FAST = ["--backend", "torch", "--precision", "float32", "--device", "cpu"]


def in_own_process(code, *words):
    """Run a line where the process of `medssl WORDS` would end; return what it prints last."""
    script = f"""
import json, sys
import medssl.cli.segment
from medssl.__main__ import run
def at_the_end():
    {code}
medssl.cli.segment.end_at_once = at_the_end
run()
"""
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def scan(tmp_path):
    write_subject(tmp_path / "scans", "a", 0, labeled=False)
    return tmp_path / "scans"


def test_a_label_map_needs_no_library_that_trains_measures_or_draws(scan, tmp_path):
    loaded = f"print(json.dumps([name for name in {HEAVY!r} if sys.modules.get(name) is not None]))"
    assert in_own_process(loaded, "segment", scan, "--out", tmp_path / "out", "--no-pictures", *FAST) == []
    assert list((tmp_path / "out").rglob("*_dseg.nii.gz"))


def test_libraries_that_monai_was_kept_from_can_still_be_imported(scan, tmp_path):
    later = (
        "import ignite.engine, pandas, sklearn.metrics; print(json.dumps('matplotlib.figure' in sys.modules))"
    )
    assert in_own_process(later, "segment", scan, "--out", tmp_path / "out", *FAST) is True
    assert list((tmp_path / "out").rglob("*_dseg.png"))


def test_the_labels_do_not_depend_on_how_monai_was_imported(scan, tmp_path):
    for name, before in (("lean", ""), ("whole", "import monai")):
        words = ["segment", scan, "--out", tmp_path / name, "--no-pictures", *FAST]
        script = f"{before}\nfrom medssl.__main__ import run\nrun()"
        subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, check=True)
    lean, whole = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.nii.gz")}
        for name in ("lean", "whole")
    )
    assert lean == whole != {}


def test_what_was_imported_is_not_looked_at_again_for_garbage(scan, tmp_path):
    told = "import gc; print(json.dumps([gc.isenabled(), gc.get_freeze_count() > 100_000]))"
    words = ["segment", scan, "--out", tmp_path / "out", "--no-pictures", *FAST]
    assert in_own_process(told, *words) == [True, True]
