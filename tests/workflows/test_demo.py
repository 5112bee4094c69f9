"""The whole path on a simulated cohort, small."""

import re

import pytest

from medssl.cli.common import TrainingBar, progress_bar
from medssl.errors import OutputError
from medssl.io.cohort import read_cohort
from medssl.io.files import read_json
from medssl.workflows.demo import MARKER, DemoPlan, demo, make_room


def test_the_demo_trains_both_ways_and_ends_with_a_report(tmp_path):
    said = []
    plan = DemoPlan(
        labeled=1, validation=1, unlabeled=1, test=1, spacing=6, epochs=1, network="dense-fcn-small"
    )
    page = demo(tmp_path / "demo", plan, say=said.append, bar=progress_bar, training_bar=TrainingBar)
    text = page.read_text()
    assert str(tmp_path) not in text
    assert not re.search(r"(src|href)=[\"']http", text)
    verdict = read_json(tmp_path / "demo" / "run" / "run.json")["verdict"]["sentence"]
    assert verdict in said
    assert verdict in text
    assert sum(one.startswith("medssl ") for one in said) == 5
    assert all(
        (tmp_path / "demo" / "run" / "candidates" / one).is_dir() for one in ("labeled-only", "ssldec")
    )
    assert len(list((tmp_path / "demo" / "maps").rglob("*_dseg.nii.gz"))) == 4
    assert len(read_cohort(tmp_path / "demo" / "cohort").test) == 1
    with pytest.raises(OutputError, match="--overwrite"):
        demo(tmp_path / "demo", plan, say=said.append, bar=progress_bar, training_bar=TrainingBar)


def test_only_a_demo_is_replaced(tmp_path):
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(OutputError, match="not made by the demo"):
        make_room(tmp_path, overwrite=True)
    assert (tmp_path / "scan.nii.gz").exists()
    (tmp_path / MARKER).touch()
    make_room(tmp_path, overwrite=True)
    assert [one.name for one in tmp_path.iterdir()] == [MARKER]
