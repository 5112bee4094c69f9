"""The wheel works away from the checkout, with the bundle inside."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from phantoms import write_subject

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
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
