"""One unlabeled scan as training saw it, kept in the run and shown in its report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from phantoms import TINY, ellipsoid_labels, write_subject

from medssl.functional.anatomy_weight import WEIGHTS
from medssl.geometry import Grid
from medssl.io.cohort import read_cohort
from medssl.io.nifti import Volume
from medssl.workflows.report import write_report
from medssl.workflows.target_example import FILE_NAME, MAPS, on_grid, read_target_example
from medssl.workflows.train import TrainOptions, train


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A cohort whose third scan has a label that training does not see, and a run of a few steps."""
    root = tmp_path_factory.mktemp("example")
    for name in ("01", "02", "03"):
        write_subject(root / "cohort", name, int(name), labeled=name != "03")
    options = TrainOptions(method="ssldec", prior="anatomical", budget="quick", device="cpu", settings=TINY)
    train(root / "cohort", root / "run", options)
    return root


def test_a_run_keeps_teacher_registered_labels_and_target_of_one_scan(root):
    example = read_target_example(root / "run")
    assert example.subject == "sub-03"
    assert tuple(example.maps) == MAPS
    truth = on_grid(
        Volume(ellipsoid_labels(), Grid((32, 32, 32), np.diag([2.0, 2.0, 2.0, 1.0])), Path()), example.grid
    )
    assert truth.any()
    right = {name: np.mean(found[truth > 0] == truth[truth > 0]) for name, found in example.maps.items()}
    assert right["registered labels"] > 0.8
    assert right["teacher"] < right["target"]
    assert all(not found[truth == 0].any() for found in example.maps.values())


@pytest.mark.parametrize(("rule", "weight"), [("sharpen", 0.5), ("sharpen", 0.0), ("hard", 0.5)])
def test_rounds_keep_the_teacher_and_the_targets_of_the_last_one(root, tmp_path, rule, weight):
    settings = TINY | {"anatomy_weight": weight}
    options = TrainOptions(method="ssldec", prior="anatomical", rounds=1, target_rule=rule, budget="quick")
    train(root / "cohort", tmp_path / "run", replace(options, device="cpu", settings=settings))
    maps = read_target_example(tmp_path / "run").maps
    assert np.array_equal(
        maps["registered labels"], read_target_example(root / "run").maps["registered labels"]
    )
    stored = torch.load(tmp_path / "run" / "targets" / "round-01" / "sub-03.pt", weights_only=True)["log_q"]
    brain = maps["registered labels"] > 0
    assert np.array_equal(maps["target"][brain], stored.float().argmax(0).numpy() + 1)
    assert np.array_equal(maps["teacher"], maps["target"]) is (weight == 0)
    assert all(not found[~brain].any() for found in maps.values())


def test_the_report_shows_it_with_the_weights_it_was_chosen_from(root, tmp_path):
    record = json.loads((root / "run" / "run.json").read_text())
    candidates = [{"weight": w, "log_likelihood": -0.25 - w / 8, "dice": 0.75} for w in WEIGHTS]
    weighed = {"weight": 0.0, "sentence": "No likelier.", "held_out": ["sub-02"], "target_rule": "prior"}
    record["anatomy_weight"] = weighed | {"candidates": candidates}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    (tmp_path / "run" / FILE_NAME).write_bytes((root / "run" / FILE_NAME).read_bytes())
    cohort = read_cohort(root / "cohort")
    known = replace(cohort, unlabeled=(replace(cohort.unlabeled[0], label=cohort.training[0].label),))
    for name, scans, maps in (("with", known, [*MAPS, "truth"]), ("without", cohort, list(MAPS))):
        page = write_report(tmp_path / f"{name}.html", cohort=scans, run=tmp_path / "run").read_text()
        assert "What an unlabeled scan was told" in page
        assert f"Three views of sub-03: T1w, {', '.join(maps)}" in page
        assert ("The truth was kept from training." in page) is (name == "with")
        assert all(text in page for text in ("No likelier.", "-0.2500", "-0.3750", "sub-02"))


def test_a_run_without_registration_keeps_none(root, tmp_path):
    assert read_target_example(tmp_path) is None
    page = write_report(tmp_path / "page.html", cohort=root / "cohort").read_text()
    assert "What an unlabeled scan was told" not in page


def test_a_damaged_example_is_left_out(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"half a file")
    assert read_target_example(tmp_path) is None


def test_labels_are_looked_up_at_the_places_of_another_grid():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1, 2, 3] = 7
    volume = Volume(labels, Grid((4, 4, 4), np.diag([2.0, 2.0, 2.0, 1.0])), Path())
    affine = np.eye(4)
    affine[:3, 3] = (1, 3, 5)
    found = on_grid(volume, Grid((3, 3, 3), affine))
    assert found[1, 1, 1] == 7  # 2, 4, 6 mm
    outside = affine.copy()
    outside[:3, 3] = 50
    assert not on_grid(volume, Grid((3, 3, 3), outside)).any()
