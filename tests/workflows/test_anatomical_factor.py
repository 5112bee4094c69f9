"""`segment --anatomy`: the labeled scans of a run have a say in the labels of others."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from phantoms import TINY, ellipsoid_labels, write_subject

from medssl.errors import InputError, OutputError, RegistrationError
from medssl.workflows import atlases, registered_prior
from medssl.workflows.models import packaged_bundle
from medssl.workflows.segment import Options, segment
from medssl.workflows.train import TrainOptions, train


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a cohort and a run that saw it for a single step, so that the network knows nothing."""
    root = tmp_path_factory.mktemp("anatomy")
    for name in ("01", "02"):
        write_subject(root / "cohort", name, int(name))
    write_subject(root / "scans", "a", 5, labeled=False)
    settings = {**TINY, "epochs": 1, "steps_per_epoch": 1, "learning_rate": 1e-4}
    train(root / "cohort", root / "run", TrainOptions(budget="quick", device="cpu", settings=settings))
    return root


@pytest.fixture
def copied(root, tmp_path):
    """The same, to be spoiled."""
    return shutil.copytree(root, tmp_path / "copy")


def _share_right(out):
    labels = np.asarray(nib.load(next(out.rglob("*_dseg.nii.gz"))).dataobj)
    truth = ellipsoid_labels()
    return float(np.mean(labels[truth > 0] == truth[truth > 0]))


def _told(out):
    return json.loads(next(out.rglob("*_dseg.json")).read_text()).get("Anatomy")


def options(run, **more):
    return Options(pictures=False, device="cpu", anatomy=run, **more)


def test_registered_labels_mend_a_network_that_knows_nothing(root, tmp_path):
    segment(root / "scans", tmp_path / "alone", root / "run", options(None))
    segment(root / "scans", tmp_path / "out", root / "run", options(root / "run"))
    assert _share_right(tmp_path / "alone") < 0.6
    assert _share_right(tmp_path / "out") > 0.7
    assert _told(tmp_path / "alone") is None
    told = _told(tmp_path / "out")
    assert (told["Weight"], sorted(told["LabeledScans"])) == (0.5, ["sub-01", "sub-02"])
    assert told["Registered"] == "2 of 2"
    assert len(told["LabeledScansSHA256"]) == 64
    assert "--anatomy" in json.loads((tmp_path / "out" / "run.json").read_text())["command"]
    made = list((tmp_path / "out" / "registrations" / "sub-a").glob("*.npz"))
    assert {path.stem.rpartition("_")[0] for path in made} == {"sub-01", "sub-02"}


def _refuse(monkeypatch, names, why="They differ."):
    """Let no registration of these labeled scans succeed."""
    register = atlases.register

    def refusing(fixed, moving, settings):
        if moving.subject in names:
            raise RegistrationError(why)
        return register(fixed, moving, settings)

    monkeypatch.setattr(atlases, "register", refusing)


def _told_of(root, out):
    segment(root / "scans", out, root / "run", options(root / "run"))
    found = _told(out)
    return found["Weight"], sorted(found["LabeledScans"]), found["Registered"]


def test_a_labeled_scan_that_could_not_be_laid_over_is_not_named(root, tmp_path, monkeypatch):
    _refuse(monkeypatch, ["sub-01"])
    assert _told_of(root, tmp_path / "out") == (0.5, ["sub-02"], "1 of 2")


def test_a_map_without_labeled_scans_for_which_memory_was_short_is_not_finished(root, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        _refuse(patch, ["sub-01"], "Failed to allocate memory for image.")
        assert _told_of(root, out) == (0.5, ["sub-02"], "1 of 2")
        assert _told(out)["ShortOfMemory"] == ["sub-01"]
    assert _told_of(root, out) == (0.5, ["sub-01", "sub-02"], "2 of 2")
    assert "ShortOfMemory" not in _told(out)
    assert segment(root / "scans", out, root / "run", options(root / "run")).skipped == ["sub-a"]


def test_where_no_labeled_scan_had_a_say_the_weight_is_0(root, tmp_path, monkeypatch, caplog):
    _refuse(monkeypatch, ["sub-01", "sub-02"])
    out = tmp_path / "out"
    assert _told_of(root, out) == (0.0, [], "0 of 2")
    assert "sub-a: no atlas could be registered, its anatomical prior is flat." in caplog.text
    assert segment(root / "scans", out, root / "run", options(root / "run")).skipped == ["sub-a"]


def test_labeled_scans_whose_prior_is_flat_had_no_say(root, tmp_path, monkeypatch):
    monkeypatch.setattr(atlases.Atlases, "prior", lambda *_: np.full((4, 3, 3, 3), 0.25, np.float16))
    monkeypatch.setattr("medssl.workflows.anatomical_factor.AnatomicalFactor.fused", lambda _, q, *__: q)
    assert _told_of(root, tmp_path / "out") == (0.0, [], "2 of 2")


def test_labeled_scans_beyond_the_nearest_are_not_named(root, tmp_path, monkeypatch):
    monkeypatch.setattr(registered_prior, "anatomy_defaults", lambda: {"atlases": 1})
    weight, names, registered = _told_of(root, tmp_path / "out")
    assert (weight, len(names), registered) == (0.5, 1, "2 of 2")


def test_a_labeled_scan_is_not_named_as_its_own_witness(copied, tmp_path):
    shutil.rmtree(copied / "scans")
    write_subject(copied / "scans", "02", 5, labeled=False)
    assert _told_of(copied, tmp_path / "out") == (0.5, ["sub-01"], "1 of 1")


def test_maps_without_it_are_not_taken_for_maps_with_it(root, tmp_path):
    out = tmp_path / "out"
    assert segment(root / "scans", out, root / "run", options(None)).done
    with pytest.raises(OutputError, match="another choice of --anatomy"):
        segment(root / "scans", out, root / "run", options(root / "run"))
    assert segment(root / "scans", out, root / "run", options(root / "run", overwrite=True)).done
    assert segment(root / "scans", out, root / "run", options(root / "run")).skipped


def test_probabilities_still_sum_to_one(root, tmp_path):
    segment(root / "scans", tmp_path / "out", root / "run", options(root / "run", probabilities=True))
    probabilities = nib.load(next((tmp_path / "out").rglob("*_probseg.nii.gz"))).get_fdata()
    assert np.allclose(probabilities.sum(3), 1, atol=1e-4)


def test_a_bundle_has_no_labeled_scans(root, tmp_path):
    with pytest.raises(InputError, match=r"no training run.*medssl train"):
        segment(root / "scans", tmp_path / "out", root / "run", options(packaged_bundle()))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("spoil", "words"), [("remove", "is not there"), ("change", "not the file")])
def test_labeled_scans_that_are_gone_or_changed_are_refused(copied, tmp_path, spoil, words):
    label = next((copied / "cohort").rglob("sub-01*_dseg.nii.gz"))
    if spoil == "remove":
        label.unlink()
    else:
        shutil.copyfile(next((copied / "cohort").rglob("sub-02*_T1w.nii.gz")), label)
    with pytest.raises(InputError, match=f"sub-01.*{words}"):
        segment(copied / "scans", tmp_path / "out", copied / "run", options(copied / "run"))
    assert not (tmp_path / "out").exists()


def test_labeled_scans_without_a_contrast_of_the_model_are_refused(copied, tmp_path):
    record = json.loads((copied / "run" / "run.json").read_text())
    shutil.copytree(copied / "run", copied / "other")
    (copied / "other" / "run.json").write_text(json.dumps(record | {"contrasts": ["T1w"]}))
    with pytest.raises(InputError, match=r"used with T1w; the model looks at T1w, T2w, so T2w cannot"):
        segment(copied / "scans", tmp_path / "out", copied / "run", options(copied / "other"))
    assert not (tmp_path / "out").exists()


def test_every_labeled_scan_that_is_laid_over_is_told_about(root, tmp_path):
    told = []
    segment(
        root / "scans",
        tmp_path / "out",
        root / "run",
        options(root / "run"),
        progress=lambda detail, done, total: told.append(detail),
    )
    assert "sub-a, labeled scan 2 of 2 laid over it" in told


@pytest.mark.parametrize(("difference", "warned"), [(-0.01, True), (0.01, False)])
def test_a_run_that_gained_nothing_by_it_is_told_so(copied, tmp_path, caplog, difference, warned):
    record = json.loads((copied / "run" / "run.json").read_text())
    record["anatomy_at_inference"] = {"difference": difference, "sentence": "Leave it out."}
    (copied / "run" / "run.json").write_text(json.dumps(record))
    segment(copied / "scans", tmp_path / "out", copied / "run", options(copied / "run"))
    assert ("In run: Leave it out." in caplog.text) is warned
