import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from phantoms import ellipsoid_labels, save, write_subject

from medssl.errors import DatalistError, InputError
from medssl.io.cohort import read_cohort
from medssl.io.files import read_json, write_json
from medssl.io.nifti import read_labels
from medssl.label_app.checks import NotThere, RequestError
from medssl.label_app.scans import Scans
from medssl.labels import BRAIN_TISSUES
from medssl.workflows.labeling.workspace import ServerSettings, lay_out


@pytest.fixture
def scans(cohort):
    return made(cohort)


def made(cohort):
    workspace = lay_out(ServerSettings(cohort, cohort.with_name("cohort-labels")))
    return Scans(cohort, workspace, contrasts=("T1w", "T2w"), table=BRAIN_TISSUES)


def label(path, value=0):
    values = ellipsoid_labels()
    if value:
        values[values > 0] = value
    return save(path, values, np.diag([2.0, 2, 2, 1]))


def test_scans_of_all_sections_but_test_are_shown(cohort, scans):
    assert list(scans.subjects()) == ["sub-01", "sub-02", "sub-03", "sub-04"]
    listed = {
        "training": [entry("01", labeled=True)],
        "test": [entry("02", labeled=True)],
        "unlabeled": [entry("03"), entry("04")],
    }
    write_json(cohort / "datalist.json", listed)
    assert list(scans.subjects()) == ["sub-01", "sub-03", "sub-04"]


def entry(name, labeled=False):
    anat = f"sub-{name}/anat/sub-{name}"
    found = {"subject": name, "image": [f"{anat}_T1w.nii.gz", f"{anat}_T2w.nii.gz"]}
    place = f"derivatives/manual/{anat}_seg-braintissues_dseg.nii.gz"
    return found | ({"label": place} if labeled else {})


def test_a_saved_label_makes_a_scan_labeled_here_and_for_the_command_line(cohort, scans, tmp_path):
    scans.save_label("sub-04", label(tmp_path / "x.nii.gz"), "final", [])
    assert scans.subjects()["sub-04"].label is not None
    assert [one.key for one in read_cohort(cohort).training] == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert [one.key for one in read_cohort(scans.workspace.folder).training][-1] == "sub-04"
    assert made(cohort).subjects()["sub-04"].label is not None


def test_a_draft_makes_none(scans, tmp_path):
    scans.save_label("sub-04", label(tmp_path / "x.nii.gz"), "original", [])
    assert scans.subjects()["sub-04"].label is None
    assert scans.label("sub-04", "original").is_file()


def test_a_corrected_label_replaces_that_of_the_folder_without_touching_it(cohort, scans, tmp_path):
    own = scans.label("sub-01").read_bytes()
    place = scans.label("sub-01")
    scans.save_label("sub-01", label(tmp_path / "x.nii.gz", value=2), "final", [])
    assert place.read_bytes() == own
    stored = read_labels(read_cohort(cohort).training[0].label, "sub-01", BRAIN_TISSUES).data
    assert set(np.unique(stored)) == {0, 2}


def test_a_removed_label_is_kept_and_that_of_the_folder_counts_again(scans, tmp_path):
    place = scans.label("sub-01")
    scans.save_label("sub-01", label(tmp_path / "x.nii.gz", value=2), "final", [])
    scans.remove_label("sub-01", "final")
    assert scans.label("sub-01") == place
    assert len(list((scans.workspace.folder / "removed").glob("*.nii.gz"))) == 1
    with pytest.raises(NotThere):
        scans.remove_label("sub-01", "final")


def test_what_validates_is_chosen_once_and_never_unlabeled(cohort, tmp_path):
    for number in range(5, 13):
        write_subject(cohort, f"{number:02d}", 100 + number, labeled=False)
    scans = made(cohort)
    assert scans.training_cohort().validation == ()
    chosen = []
    for number in range(4, 13):
        scans.save_label(f"sub-{number:02d}", label(tmp_path / f"{number}.nii.gz"), "final", [])
        found = scans.training_cohort()
        names = [one.key for one in found.validation]
        assert chosen == [name for name in chosen if name in names]
        assert not {one.key for one in (*found.training, *found.unlabeled)} & set(names)
        chosen = names
    assert len(chosen) == 2
    assert read_json(scans.workspace.validation) == sorted(name.removeprefix("sub-") for name in chosen)
    saved = next(name for name in chosen if name > "sub-03")
    scans.remove_label(saved, "final")
    found = scans.training_cohort()  # its label is gone; it must not come back as unlabeled
    assert saved not in {one.key for one in (*found.training, *found.unlabeled)}


def test_unknown_scans_are_not_there(scans, tmp_path):
    with pytest.raises(NotThere):
        scans.image("sub-99")
    with pytest.raises(NotThere):
        scans.save_label("sub-99", label(tmp_path / "x.nii.gz"), "final", [])


def test_analyze_scans_are_shown_as_nifti(tmp_path):
    import nibabel as nib

    root = tmp_path / "iseg"
    root.mkdir()
    for name, data in (
        ("T1", 500 * ellipsoid_labels().astype(np.int16)),
        ("T2", 300 * ellipsoid_labels().astype(np.int16)),
    ):
        nib.save(nib.AnalyzeImage(data, np.diag([-1.0, 1, 1, 1])), root / f"subject-1-{name}.hdr")
    raw = np.array([0, 150, 250, 10], np.uint8)[ellipsoid_labels()]
    nib.save(nib.AnalyzeImage(raw, np.diag([-1.0, 1, 1, 1])), root / "subject-1-label.hdr")
    scans = made(root)
    assert scans.image("sub-1").name == "subject-1-T1.nii.gz"
    assert set(np.unique(read_labels(scans.label("sub-1"), "sub-1", BRAIN_TISSUES).data)) == {0, 1, 2, 3}
    assert not list(root.glob("*.nii.gz"))


def test_an_uploaded_scan_needs_all_its_contrasts(cohort, scans):
    source = cohort / "sub-01" / "anat"
    with pytest.raises(RequestError, match="sub-09_T1w and sub-09_T2w"):
        scans.add_image("sub-09", source / "sub-01_T1w.nii.gz")
    assert scans.add_image("new.9_T1w", source / "sub-01_T1w.nii.gz") == "sub-new9"
    assert "sub-new9" not in scans.subjects()
    scans.add_image("new.9_T2w", source / "sub-01_T2w.nii.gz")
    assert "sub-new9" in scans.subjects()
    assert "sub-new9" in {one.key for one in read_cohort(cohort).unlabeled}
    with pytest.raises(RequestError, match="already"):
        scans.add_image("new.9_T2w", source / "sub-01_T2w.nii.gz")
    with pytest.raises(RequestError, match="already"):
        scans.add_image("sub-01_T1w", source / "sub-01_T1w.nii.gz")


def test_a_pair_that_was_sent_is_one_scan_and_half_a_pair_is_none(cohort, scans, tmp_path):
    sent = tmp_path / "sent"
    sent.mkdir()
    for contrast in ("T1w", "T2w"):
        (sent / f"x_{contrast}.nii.gz").write_bytes(
            (cohort / "sub-01" / "anat" / f"sub-01_{contrast}.nii.gz").read_bytes()
        )
    assert [path.name for path in scans.scan_at(sent).images] == ["x_T1w.nii.gz", "x_T2w.nii.gz"]
    with pytest.raises(RequestError, match="needs 2"):
        scans.scan_at(sent / "x_T1w.nii.gz")
    four = save(tmp_path / "four.nii.gz", np.ones((4, 4, 4, 2), np.int16), np.eye(4))
    with pytest.raises(InputError, match="4D"):
        scans.scan_at(four)


def test_two_scans_of_one_name_are_refused(cohort):
    write_json(cohort / "datalist.json", {"unlabeled": [entry("01"), entry("01")]})
    with pytest.raises(DatalistError, match="occurs 2 times"):
        made(cohort)


def _save_for_ever(scans, drawn, confirmed):
    while True:
        for key in ("sub-03", "sub-04"):
            scans.save_label(key, drawn, "final", [])
            with Path(confirmed).open("a") as stream:
                stream.write(key + "\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_nothing_is_lost_when_killed_at_ten_random_moments(cohort, scans, tmp_path):
    rng = random.Random(0)
    drawn, confirmed = label(tmp_path / "x.nii.gz"), tmp_path / "confirmed"
    confirmed.touch()
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        before = confirmed.read_text().count("\n")
        process = context.Process(target=_save_for_ever, args=(scans, drawn, str(confirmed)))
        process.start()
        while confirmed.read_text().count("\n") == before:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        again = made(cohort)
        for key in set(confirmed.read_text().split()):
            stored = read_labels(again.label(key), key, BRAIN_TISSUES)
            assert np.array_equal(stored.data, ellipsoid_labels())
            assert key in {one.key for one in read_cohort(cohort).training}
        again.write_lists()
