"""The whole path on simulated images, small."""

import re

import pytest

from medssl.cli.common import TrainingBar, progress_bar
from medssl.errors import OutputError
from medssl.io.image_cohort import read_image_cohort
from medssl.workflows.classification.demo import ImageDemoPlan, demo
from medssl.workflows.classification.simulate import simulate_folder

pytest.importorskip("onnxruntime")


def test_simulated_folders_are_reproducible(tmp_path):
    for name in "ab":
        simulate_folder(tmp_path / name, labeled=2, validation=1, test=1, unlabeled=5, size=16)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.png"))
    assert len(files) == 4 * 4 + 5
    assert all((tmp_path / "a" / one).read_bytes() == (tmp_path / "b" / one).read_bytes() for one in files)
    assert len(read_image_cohort(tmp_path / "a").classes) == 4
    with pytest.raises(OutputError, match="not empty"):
        simulate_folder(tmp_path / "a")


def test_the_demo_ends_with_a_report(tmp_path):
    said = []
    plan = ImageDemoPlan(labeled=3, validation=6, test=3, unlabeled=12, size=16, steps=4)
    page = demo(tmp_path / "demo", plan, say=said.append, bar=progress_bar, training_bar=TrainingBar)
    text = page.read_text()
    assert str(tmp_path) not in text
    assert not re.search(r"(src|href)=[\"']http", text)
    for heading in (
        "Did the unlabeled images help?",
        "Pseudo-labels",
        "Which network?",
        "Least certain images",
    ):
        assert heading in text
    assert sum(one.startswith("medssl classify") for one in said) == 7
    with pytest.raises(OutputError, match="--overwrite"):
        demo(tmp_path / "demo", plan, say=said.append, bar=progress_bar, training_bar=TrainingBar)
