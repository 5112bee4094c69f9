"""Registrations on disk: reused, redone where the input changed, kept at Ctrl-C; the priors they make."""

import logging
import os
import re

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from registered import QUICK, anatomy, dice, intensities

from medssl.errors import RegistrationError
from medssl.io.files import read_tsv
from medssl.registration import Registration, register
from medssl.workflows import atlases as workflow
from medssl.workflows.atlases import AtlasOptions, LabeledScans, register_atlases

HERE = AtlasOptions(QUICK, processes=1)


def priors(atlases, targets, folder, *, classes, options=HERE, progress=None):
    """Return the prior of every target."""
    found = register_atlases(atlases, targets, folder, classes=classes, options=options, progress=progress)
    return {target: found.prior(target) for target in found.files}


def _sample(subject, labels, seed=0):
    volumes = {"image": intensities(labels, seed=seed), "label": labels, "mask": np.ones_like(labels)}
    tensors = {
        key: MetaTensor(torch.as_tensor(volume[None]), affine=np.eye(4)) for key, volume in volumes.items()
    }
    return {"subject": subject, **tensors}


@pytest.fixture(scope="module")
def scans():
    """Two atlases and two targets."""
    shapes = [{}, {"center": (10.0, 12.0, 11.0)}, {"bend": 1.5}, {"radii": (6.0, 7.0, 7.0)}]
    names = ("sub-01", "sub-02", "sub-11", "sub-12")
    found = [
        _sample(name, anatomy(**shape), seed)
        for seed, (name, shape) in enumerate(zip(names, shapes, strict=True))
    ]
    return found[:2], found[2:]


class Calls:
    """Stand in for `register`, count, and do what is asked for at one call."""

    def __init__(self, at=None, error=None):
        self.count, self.at, self.error = 0, at, error

    def __call__(self, fixed, moving, settings):
        self.count += 1
        if self.at in (0, self.count):
            raise self.error
        return register(fixed, moving, settings)


@pytest.fixture
def calls(monkeypatch):
    """Count the registrations that are made."""
    counter = Calls()
    monkeypatch.setattr(workflow, "register", counter)
    return counter


def test_every_target_gets_a_prior_near_its_truth(scans, tmp_path):
    atlases, targets = scans
    told = []
    found = priors(atlases, targets, tmp_path, classes=3, progress=lambda *pair: told.append(pair))
    assert list(found) == ["sub-11", "sub-12"]
    for target in targets:
        prior = found[target["subject"]]
        assert prior.dtype == np.float16
        assert prior.min() > 0
        np.testing.assert_allclose(prior.astype(np.float32).sum(0), 1, atol=2e-3)
        assert dice(prior.argmax(0), target["label"].numpy()[0]) > 0.85
    assert told == [(number, 4) for number in range(5)]
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.npz"))
    assert [re.sub("_[0-9a-f]{12}.npz$", "", name) for name in files] == [
        f"registrations/sub-{t}/sub-{a}" for t in (11, 12) for a in ("01", "02")
    ]


def test_second_call_registers_nothing_and_gives_the_same(scans, tmp_path, calls):
    first = priors(*scans, tmp_path, classes=3, options=HERE)
    assert calls.count == 4
    told = []
    second = priors(*scans, tmp_path, classes=3, options=HERE, progress=lambda *pair: told.append(pair))
    assert calls.count == 4
    assert told == [(4, 4)]
    for name, prior in first.items():
        np.testing.assert_array_equal(prior, second[name])


@pytest.mark.parametrize("key", ["image", "mask", "affine"])
def test_changed_scan_is_registered_again(scans, tmp_path, calls, key):
    atlases, targets = scans
    register_atlases(atlases, targets, tmp_path, classes=3, options=HERE)
    changed = {name: value.clone() if name != "subject" else value for name, value in atlases[0].items()}
    if key == "affine":
        changed["image"].affine = np.diag([1.0, 1.0, 1.1, 1.0])
    else:
        changed[key][0, :2] = 0
    register_atlases([changed, atlases[1]], targets, tmp_path, classes=3, options=HERE)
    assert calls.count == 4 + 2


def test_changed_label_needs_no_new_registration(scans, tmp_path, calls):
    atlases, targets = scans
    first = priors(atlases[:1], targets[:1], tmp_path, classes=3, options=HERE)
    changed = {**atlases[0], "label": torch.zeros_like(atlases[0]["label"])}
    second = priors([changed], targets[:1], tmp_path, classes=3, options=HERE)
    assert calls.count == 1
    assert not np.array_equal(first["sub-11"], second["sub-11"])


def test_changed_settings_are_registered_again(scans, tmp_path, calls):
    atlases, targets = scans
    register_atlases(atlases[:1], targets[:1], tmp_path, classes=3, options=HERE)
    other = AtlasOptions(type(QUICK)(deformation="none"), processes=1)
    found = register_atlases(atlases[:1], targets[:1], tmp_path, classes=3, options=other)
    assert calls.count == 2
    assert not Registration.load(found.files["sub-11"]["sub-01"]).displacement.any()


def test_damaged_file_is_made_again(scans, tmp_path, calls):
    atlases, targets = scans
    found = register_atlases(atlases[:1], targets[:1], tmp_path, classes=3, options=HERE)
    found.files["sub-11"]["sub-01"].write_bytes(b"half a file")
    register_atlases(atlases[:1], targets[:1], tmp_path, classes=3, options=HERE)
    assert calls.count == 2


def test_failed_pair_has_no_weight_and_is_logged(scans, tmp_path, monkeypatch, caplog):
    atlases, targets = scans
    monkeypatch.setattr(workflow, "register", Calls(1, RegistrationError("The scans do not overlap.")))
    found = register_atlases(atlases, targets[:1], tmp_path, classes=3, options=HERE)
    assert found.failed == {("sub-11", "sub-01"): "The scans do not overlap."}
    assert not found.short_of_memory
    assert "sub-11: the atlas sub-01 gets weight 0. The scans do not overlap." in caplog.text
    alone = priors(atlases[1:], targets[:1], tmp_path, classes=3, options=HERE)
    np.testing.assert_array_equal(found.prior("sub-11"), alone["sub-11"])


def test_prior_is_flat_where_every_atlas_failed(scans, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(workflow, "register", Calls(0, RegistrationError("No.")))
    found = priors(*scans, tmp_path, classes=3)
    assert all((prior == np.float16(1 / 3)).all() for prior in found.values())
    assert "sub-12: no atlas could be registered" in caplog.text


def _fails(monkeypatch, text="No."):
    """Let every registration fail, and return what counts them."""
    counter = Calls(0, RegistrationError(text))
    monkeypatch.setattr(workflow, "register", counter)
    return counter


def test_a_failed_pair_is_not_tried_again(scans, tmp_path, monkeypatch, caplog):
    atlases, targets = scans
    first = _fails(monkeypatch)
    before = register_atlases(atlases, targets, tmp_path, classes=3, options=HERE)
    assert first.count == 4
    caplog.clear()
    second, told = Calls(), []
    monkeypatch.setattr(workflow, "register", second)
    after = register_atlases(
        atlases, targets, tmp_path, classes=3, options=HERE, progress=lambda *pair: told.append(pair)
    )
    assert (second.count, told) == (0, [(4, 4)])
    assert after.failed == before.failed
    assert after.files == {"sub-11": {}, "sub-12": {}}
    assert "sub-12: the atlas sub-02 gets weight 0. No." in caplog.text
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


@pytest.mark.parametrize("change", ["image", "settings", "library", "damage", "nothing"])
def test_a_failed_pair_is_tried_again_where_anything_changed(scans, tmp_path, monkeypatch, change):
    (atlas, _), (target, _) = scans
    _fails(monkeypatch)
    register_atlases([atlas], [target], tmp_path, classes=3, options=HERE)
    options = HERE
    if change == "image":
        target = {**target, "image": target["image"] * 2}
    elif change == "settings":
        options = AtlasOptions(type(QUICK)(deformation="none"), processes=1)
    elif change == "library":
        monkeypatch.setattr(workflow, "LIBRARY", "SimpleITK 99")
    elif change == "damage":
        next(tmp_path.rglob("*.json")).write_text("[1")
    again = Calls()
    monkeypatch.setattr(workflow, "register", again)
    found = register_atlases([atlas], [target], tmp_path, classes=3, options=options)
    assert again.count == (change != "nothing")
    assert bool(found.failed) is (change == "nothing")
    if change == "damage":
        assert not list(tmp_path.rglob("*.json"))


def test_a_pair_for_which_memory_was_short_is_tried_again(scans, tmp_path, monkeypatch):
    (atlas, _), (target, _) = scans
    short = "The scans could not be registered: Failed to allocate memory for image."
    _fails(monkeypatch, short)
    for _ in range(2):
        found = register_atlases([atlas], [target], tmp_path, classes=3, options=HERE)
        assert found.failed == {("sub-11", "sub-01"): short}
        assert found.short_of_memory == {("sub-11", "sub-01")}
    again = Calls()
    monkeypatch.setattr(workflow, "register", again)
    assert not register_atlases([atlas], [target], tmp_path, classes=3, options=HERE).failed
    assert again.count == 1


def test_interruption_keeps_what_is_done(scans, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "register", Calls(3, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        register_atlases(*scans, tmp_path, classes=3, options=HERE)
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    rest = Calls()
    monkeypatch.setattr(workflow, "register", rest)
    register_atlases(*scans, tmp_path, classes=3, options=HERE)
    assert rest.count == 2


def test_sessions_of_one_subject_are_no_atlases_for_each_other(scans, tmp_path):
    (one, two), _ = scans
    sessions = [
        {**one, "subject": "sub-01_ses-a"},
        {**two, "subject": "sub-01_ses-b"},
        {**two, "subject": "sub-02"},
    ]
    found = register_atlases(sessions, sessions, tmp_path, classes=3, options=HERE)
    pairs = {target: sorted(files) for target, files in found.files.items()}
    assert pairs == {
        "sub-01_ses-a": ["sub-02"],
        "sub-01_ses-b": ["sub-02"],
        "sub-02": ["sub-01_ses-a", "sub-01_ses-b"],
    }


def test_a_labeled_scan_is_no_atlas_for_itself(scans, tmp_path):
    atlases, _ = scans
    found = priors(atlases, atlases, tmp_path, classes=3)
    other = priors(atlases[1:], atlases[:1], tmp_path, classes=3)
    assert list(found) == ["sub-01", "sub-02"]
    np.testing.assert_array_equal(found["sub-01"], other["sub-01"])


def test_one_labeled_scan_alone_has_a_flat_prior(scans, tmp_path):
    assert (priors(scans[0][:1], scans[0][:1], tmp_path, classes=3)["sub-01"] == np.float16(1 / 3)).all()


def test_scans_of_other_spacing_under_one_name_are_kept_beside_each_other(scans, tmp_path, calls):
    """As for the candidates of a checked run, whose networks may work at other spacings."""
    atlases, targets = scans
    other = {**targets[0], "image": targets[0]["image"] * 2}
    for target in (targets[0], other, targets[0], other):
        register_atlases(atlases[:1], [target], tmp_path, classes=3, options=HERE)
    assert calls.count == 2


def test_another_version_of_the_library_registers_again(scans, tmp_path, calls, monkeypatch):
    register_atlases(scans[0][:1], scans[1][:1], tmp_path, classes=3, options=HERE)
    monkeypatch.setattr(workflow, "LIBRARY", "SimpleITK 99")
    register_atlases(scans[0][:1], scans[1][:1], tmp_path, classes=3, options=HERE)
    assert calls.count == 2


def test_atlases_are_hashed_once_for_many_scans(scans, tmp_path, monkeypatch):
    hashed = []
    digest = workflow._digest
    monkeypatch.setattr(workflow, "_digest", lambda scan: hashed.append(scan.subject) or digest(scan))
    labeled = LabeledScans.of(scans[0])
    for target in scans[1]:
        register_atlases(labeled, [target], tmp_path, classes=3, options=HERE)
    assert sorted(hashed) == ["sub-01", "sub-02", "sub-11", "sub-12"]


def test_a_scan_that_cannot_be_registered_is_named(scans, tmp_path):
    bad = {**scans[1][0], "image": scans[1][0]["image"].clone()}
    bad["image"][0, 3, 3, 3] = torch.nan
    with pytest.raises(RegistrationError, match="sub-11 holds NaN"):
        register_atlases(scans[0], [bad], tmp_path, classes=3, options=HERE)


def test_warped_scans_are_told_about_and_come_with_the_prior(scans, tmp_path):
    atlases, targets = scans
    found = register_atlases(atlases, targets, tmp_path, classes=3, options=HERE)
    samples = {sample["subject"]: sample for sample in atlases}
    told = []
    warped = dict(found.warped({"sub-11": ["sub-02"]}, samples, progress=lambda *seen: told.append(seen)))
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert {name: list(one.atlases) for name, one in warped.items()} == {"sub-11": ["sub-02"], "sub-12": []}
    for name, one in warped.items():
        np.testing.assert_array_equal(one.prior, found.prior(name))
    registration = Registration.load(found.files["sub-11"]["sub-02"])
    one = warped["sub-11"].atlases["sub-02"]
    image = registration.warp_image(samples["sub-02"]["image"].numpy())
    np.testing.assert_array_equal(one.image, image.astype(np.float16))
    shares = registration.warp_labels(samples["sub-02"]["label"].numpy()[0], 3)
    np.testing.assert_array_equal(one.label == 2, (shares.argmax(0) == 2) & (shares.sum(0) >= 0.5))


def test_the_most_similar_atlases_are_chosen(scans, tmp_path):
    atlases, targets = scans
    all_of_them = register_atlases(atlases, targets, tmp_path, classes=3, options=HERE)
    nearest = AtlasOptions(QUICK, nearest=1, processes=1)
    one = register_atlases(atlases, targets, tmp_path, classes=3, options=nearest)
    for target in all_of_them.files:
        scores = {
            name: Registration.load(all_of_them.files[target][name]).similarity
            for name in all_of_them.nearest(target)
        }
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        assert list(one.nearest(target)) == [max(scores, key=scores.__getitem__)]


def test_class_that_no_atlas_has_is_expected_everywhere_alike(scans, tmp_path, caplog):
    atlases, targets = scans
    prior = priors(atlases, targets[:1], tmp_path, classes=4, options=HERE)["sub-11"]
    assert (prior[3] == 0.25).all()
    np.testing.assert_allclose(prior.astype(np.float32).sum(0), 1, atol=2e-3)
    assert dice(prior[:3].argmax(0), targets[0]["label"].numpy()[0]) > 0.85
    assert "none of the atlases used has the classes [3]" in caplog.text


def test_processes_give_what_one_gives(scans, tmp_path):
    atlases, targets = scans
    alone = register_atlases(atlases, targets[:1], tmp_path / "alone", classes=3, options=HERE)
    both = AtlasOptions(QUICK, processes=2)
    together = register_atlases(atlases, targets[:1], tmp_path / "together", classes=3, options=both)
    for name, path in alone.files["sub-11"].items():
        one, two = Registration.load(path), Registration.load(together.files["sub-11"][name])
        np.testing.assert_array_equal(one.displacement, two.displacement)
        np.testing.assert_array_equal(one.matrix, two.matrix)


def test_two_scans_of_one_name_are_refused(scans, tmp_path):
    atlases, targets = scans
    with pytest.raises(RegistrationError, match="Two of the atlases have the name sub-01"):
        register_atlases([atlases[0], atlases[0]], targets, tmp_path, classes=3, options=HERE)


def test_files_hold_no_path_of_this_machine(scans, tmp_path):
    atlases, targets = scans
    found = register_atlases(atlases[:1], targets[:1], tmp_path, classes=3, options=HERE)
    with np.load(found.files["sub-11"]["sub-01"], allow_pickle=False) as stored:
        assert not [
            name for name in stored.files if stored[name].dtype.kind == "U" and os.sep in str(stored[name])
        ]


@pytest.fixture(autouse=True)
def _hear_warnings(caplog):
    caplog.set_level(logging.WARNING)


def test_a_table_tells_how_registrations_turned_out(scans, tmp_path, monkeypatch, calls):
    atlases, targets = scans
    found = register_atlases(atlases, targets[:1], tmp_path, classes=3, options=HERE)
    path = tmp_path / "registrations" / "sub-11" / workflow.TABLE
    rows = {row["atlas"]: row for row in read_tsv(path)}
    for atlas, file in found.files["sub-11"].items():
        registration = Registration.load(file)
        assert (rows[atlas]["weight"], rows[atlas]["file"]) == ("1", file.name)
        for name in ("overlap", "similarity", "folding"):
            assert float(rows[atlas][name]) == pytest.approx(getattr(registration, name), abs=1e-4)
    path.write_text("half a\ttable\n1")
    register_atlases(atlases, targets[:1], tmp_path, classes=3, options=HERE)
    assert {row["atlas"]: row for row in read_tsv(path)} == rows
    assert calls.count == 2


def test_much_folding_is_said_and_a_failure_stands_in_the_table(scans, tmp_path, monkeypatch, caplog):
    atlases, targets = scans
    monkeypatch.setattr(workflow, "register", Calls(1, RegistrationError("No.")))
    monkeypatch.setattr(workflow, "MUCH_FOLDING", -1.0)
    register_atlases(atlases, targets[:1], tmp_path, classes=3, options=HERE)
    rows = read_tsv(tmp_path / "registrations" / "sub-11" / workflow.TABLE)
    assert [(row["atlas"], row["weight"]) for row in rows] == [("sub-02", "1"), ("sub-01", "0")]
    assert [row["reason"] for row in rows] == ["n/a", "No."]
    assert "sub-11: sub-02 laid over it folds in" in caplog.text


def test_the_table_is_there_where_every_pair_failed(scans, tmp_path, monkeypatch):
    _fails(monkeypatch)
    for _ in range(2):
        register_atlases(*scans, tmp_path, classes=3, options=HERE)
        for target in ("sub-11", "sub-12"):
            folder = tmp_path / "registrations" / target
            rows = read_tsv(folder / workflow.TABLE)
            told = [(row["atlas"], row["weight"], row["similarity"], row["reason"]) for row in rows]
            assert told == [("sub-01", "0", "n/a", "No."), ("sub-02", "0", "n/a", "No.")]
            assert all((folder / row["file"]).is_file() for row in rows)


def test_a_failure_stays_in_the_table_beside_the_same_scan_at_another_spacing(scans, tmp_path, monkeypatch):
    (atlas, _), (target, _) = scans
    _fails(monkeypatch)
    register_atlases([atlas], [target], tmp_path, classes=3, options=HERE)
    monkeypatch.setattr(workflow, "register", Calls())
    register_atlases([atlas], [{**target, "image": target["image"] * 2}], tmp_path, classes=3, options=HERE)
    rows = read_tsv(tmp_path / "registrations" / "sub-11" / workflow.TABLE)
    assert [(row["atlas"], row["weight"]) for row in rows] == [("sub-01", "1"), ("sub-01", "0")]
