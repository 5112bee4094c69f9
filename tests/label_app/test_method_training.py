"""How a training that a viewer asked for begins, ends and is known again."""

import json
import os
import signal
from types import SimpleNamespace

import nibabel as nib
import pytest

pytest.importorskip("monailabel")

from phantoms import ellipsoid_labels, save

from medssl.io.cohort import read_cohort
from medssl.label_app import checks, method_training
from medssl.label_app.progress import FILE, ProgressFile


@pytest.fixture
def task(tmp_path):
    models = SimpleNamespace(folder=tmp_path / "models", device="cpu", names=lambda: ["initial"])
    models.folder.mkdir()
    server = SimpleNamespace(training={}, contrasts=None, mask=None)
    request = checks.TrainRequest(pretrained=False)
    return SimpleNamespace(method="ssldec", models=models, server=server, check=lambda _: request)


@pytest.fixture
def datastore(cohort, tmp_path):
    workspace = SimpleNamespace(training_list=tmp_path / "datalist.json")
    scans = SimpleNamespace(write_lists=lambda: None, workspace=workspace)
    return SimpleNamespace(training_cohort=lambda: read_cohort(cohort), scans=scans)


def test_a_stop_before_the_first_step_ends_as_one_that_was_wanted(task, datastore, monkeypatch):
    """Not at once, by the signal: processes that register scans have to be ended first."""

    def preparing(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on after SIGTERM")

    monkeypatch.setattr(method_training, "train", preparing)
    with pytest.raises(SystemExit) as end:
        method_training.train_method(task, {}, datastore)
    assert end.value.code == 0


def test_a_stopped_run_is_known_again_until_a_label_changes(task, datastore, cohort):
    wanted = task.check({})
    facts = method_training._facts(wanted, datastore.training_cohort())
    run = task.models.folder / "ssldec-001"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"finished": False}))
    ProgressFile(run / FILE, 25, facts).started(3, 100)
    assert method_training._stopped_run(task.models.folder, "ssldec", facts) == run
    label = datastore.training_cohort().training[0].label
    corrected = ellipsoid_labels()
    corrected[16, 16, 16] = 3
    save(label, corrected, nib.load(label).affine)
    changed = method_training._facts(wanted, datastore.training_cohort())
    assert method_training._stopped_run(task.models.folder, "ssldec", changed) is None


def test_the_best_dice_of_a_training_that_goes_on_is_kept(tmp_path):
    ProgressFile(tmp_path / FILE, 3, {}).validated(3, 0.8)
    again = ProgressFile(tmp_path / FILE, 3, {})
    again.validated(6, 0.7)
    assert again.told["best_metric"] == 0.8
