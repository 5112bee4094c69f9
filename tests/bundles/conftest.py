"""A copy of the bundle whose numbers are small, so that its commands run as they are printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from phantoms import write_subject

BUNDLE = Path(__file__).parents[2] / "bundles" / "infant_brain_segmentation"
SMALL = {
    "crop_size": "[32, 32, 32]",
    "spacing": "[2.0, 2.0, 2.0]",
    "batch_size": "2",
    "epochs": "2",
    "steps_per_epoch": "2",
    "val_interval": "1",
}


def set_value(config: Path, name: str, value: str) -> None:
    """Change a top-level value in a YAML file, its comment untouched."""
    text, count = re.subn(rf"(?m)^{name}: \S.*?(?=\s{{2,}}#|$)", f"{name}: {value}", config.read_text())
    assert count == 1, name
    config.write_text(text)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with a small cohort in its data folder, three labeled scans, one of them held out."""
    from dataclasses import replace

    from medssl.io.cohort import read_cohort
    from medssl.io.datalist import write_datalist

    root = tmp_path_factory.mktemp("bundles") / "infant_brain_segmentation"
    shutil.copytree(BUNDLE, root, ignore=shutil.ignore_patterns("model.pt"))
    for name, value in SMALL.items():
        set_value(root / "configs" / "train.yaml", name, value)
    set_value(root / "configs" / "inference.yaml", "spacing", SMALL["spacing"])
    for seed, name in enumerate(("01", "02", "03")):
        write_subject(root / "data", name, seed)
    cohort = read_cohort(root / "data")
    write_datalist(
        root / "data" / "datalist.json",
        replace(cohort, training=cohort.training[:2], validation=cohort.training[2:]),
    )
    return root


@pytest.fixture(scope="session")
def bundle_with_unlabeled(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle whose cohort has three unlabeled scans too."""
    from dataclasses import replace

    from medssl.io.cohort import read_cohort
    from medssl.io.datalist import write_datalist

    root = tmp_path_factory.mktemp("semi") / bundle.name
    shutil.copytree(bundle, root, ignore=shutil.ignore_patterns("models", "eval"))
    (root / "data" / "datalist.json").unlink()
    for seed, name in enumerate(("04", "05", "06"), start=20):
        write_subject(root / "data", name, seed, labeled=False)
    cohort = read_cohort(root / "data")
    write_datalist(
        root / "data" / "datalist.json",
        replace(cohort, training=cohort.training[:2], validation=cohort.training[2:]),
    )
    return root


Shell = Callable[..., str]


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Run a command line as a user would and return what it printed."""
    scratch = tmp_path_factory.mktemp("scratch")

    def call(command: list[str], cwd: Path) -> str:
        environment = {
            **os.environ,
            "TMPDIR": str(scratch),
            "OMP_NUM_THREADS": "1",
            "ORT_DISABLE_TELEMETRY": "1",
        }
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
        return done.stdout + done.stderr

    return call


@pytest.fixture(scope="session")
def trained(bundle: Path, shell: Shell) -> Path:
    """The same bundle after its first command."""
    shell(["python", "-m", "monai.bundle", "run", "--config_file", "configs/train.yaml"], bundle)
    return bundle
