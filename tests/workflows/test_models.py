"""Which scans a run has learned from: by their voxels, and by their files in records that know no voxels."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from phantoms import TINY, save, write_subject

from medssl.io.subjects import Subject
from medssl.workflows.models import INIT_SCANS, known_scans
from medssl.workflows.train import TrainOptions, prepare_run

OPTIONS = TrainOptions(budget="quick", device="cpu", settings=TINY)


@pytest.fixture
def run(cohort, tmp_path):
    """A run folder that stands for a training on the labeled scans; its weights are an empty file."""
    prepare_run(cohort, tmp_path / "run", OPTIONS)
    (tmp_path / "run" / "models").mkdir()
    (tmp_path / "run" / "models" / "model.pt").touch()
    return tmp_path / "run"


def image(cohort, name):
    return cohort / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz"


def packed_otherwise(path, copy, pad=2):
    """Write the same voxels without compression, padded."""
    scan = nib.load(path)
    return save(copy, np.pad(np.asarray(scan.dataobj), pad), scan.affine)


def forget_voxels(run):
    """Leave the record as earlier versions wrote it."""
    record = json.loads((run / "run.json").read_text())
    del record["voxel_sha256"]
    (run / "run.json").write_text(json.dumps(record))


def test_a_scan_is_known_by_its_voxels_whatever_its_name_and_file(run, cohort, tmp_path):
    copy = packed_otherwise(image(cohort, "02"), tmp_path / "sub-x_T1w.nii")
    known = known_scans(run)
    assert known.holds(Subject("x", (copy,)))
    assert known.holds(Subject("02", (image(cohort, "02"),)))
    assert not known.holds(Subject("04", (image(cohort, "04"),))), "it has no label"


def test_records_without_voxels_know_scans_by_their_files(run, cohort, tmp_path):
    copy = packed_otherwise(image(cohort, "02"), tmp_path / "sub-02_T1w.nii")
    forget_voxels(run)
    known = known_scans(run)
    assert not known.holds(Subject("02", (copy,)))
    assert known.holds(Subject("02", (image(cohort, "02"),)))


def test_held_out_scans_that_the_first_weights_know_in_other_files_are_named(run, cohort, tmp_path, caplog):
    other = tmp_path / "other"
    for seed, name in ((70, "a"), (90, "b")):
        write_subject(other, name, seed)
    image(other, "b").unlink()
    packed_otherwise(image(cohort, "02"), image(other, "b").with_suffix(""), pad=0)
    prepare_run(other, tmp_path / "second", replace(OPTIONS, init=str(run), hold_out=1, seed=1))
    assert "The weights of --init have learned from sub-b" in caplog.text


def test_what_the_first_weights_know_is_known_through_all_runs_between(run, cohort, tmp_path):
    write_subject(tmp_path / "other", "new", 70)
    prepare_run(tmp_path / "other", tmp_path / "second", replace(OPTIONS, init=str(run)))
    assert len(json.loads((tmp_path / "second" / "run.json").read_text())[INIT_SCANS]["voxel_sha256"]) == 3
    copy = packed_otherwise(image(cohort, "02"), tmp_path / "sub-x_T1w.nii")
    assert known_scans(tmp_path / "second").holds(Subject("x", (copy,)))
