"""The wheel works away from the checkout, with the bundle inside."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from phantoms import write_subject
from pictures import write_pictures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling")  # it builds without the network
    root = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(root)]
    subprocess.run(build, cwd=Path(__file__).parents[1], check=True, capture_output=True)
    with zipfile.ZipFile(next(root.glob("*.whl"))) as wheel:
        wheel.extractall(root / "site")
    return root / "site"


def test_the_wheel_carries_the_bundle_and_no_tests(installed):
    assert (installed / "medssl" / "_bundles" / "infant_brain_segmentation" / "models" / "model.pt").is_file()
    assert (installed / "medssl" / "py.typed").is_file()
    assert not (installed / "tests").exists()


def test_every_file_of_the_package_and_the_bundles_is_in_the_wheel(installed):
    """Configurations, overlays, templates, weights, licenses: whatever is no leftover of Python."""
    root = Path(__file__).parents[1]
    for source, place in (("medssl", "medssl"), ("bundles", "medssl/_bundles")):
        there = {
            path.relative_to(root / source).as_posix()
            for path in (root / source).rglob("*")
            if path.is_file()
        }
        expected = {name for name in there if "__pycache__" not in name and not name.endswith(".pyc")}
        found = {path.relative_to(installed / place).as_posix() for path in (installed / place).rglob("*")}
        assert len(expected) > 20
        assert not expected - found


def test_the_installed_package_trains_a_classifier_without_a_terminal(installed, tmp_path):
    """Away from the checkout, as under a scheduler: no input, output to files, TERM not set (D21)."""
    write_pictures(tmp_path / "images")
    sizes = [
        "--network",
        "vgg-small-28",
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
            [*command, "--method", "ssldec"],
            cwd=tmp_path,
            env={**bare, "PYTHONPATH": str(installed)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            check=False,
        )
    said, told = ((tmp_path / name).read_bytes() for name in ("out", "err"))
    assert done.returncode == 0, told.decode()
    assert said.decode().splitlines()[-1] == "run"
    assert b"unlabeled images" in told
    assert not [control for control in (b"\x1b", b"\r", b"Traceback") if control in said + told]


def test_the_installed_package_segments_a_pair(installed, tmp_path):
    write_subject(tmp_path / "scans", "01", 1, labeled=False)
    anat = tmp_path / "scans" / "sub-01" / "anat"
    pair = [str(anat / f"sub-01_{name}.nii.gz") for name in ("T1w", "T2w")]
    command = [sys.executable, "-m", "medssl", "segment", *pair, "--out", "maps", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "simulated" in done.stderr
    assert list((tmp_path / "maps").rglob("*_dseg.nii.gz"))
    where = [sys.executable, "-c", "import medssl; print(medssl.__file__)"]
    place = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert str(installed) in place.stdout
