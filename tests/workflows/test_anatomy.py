"""Labeled scans in the shape of unlabeled ones."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from phantoms import TINY, write_subject
from runs import same, weights

from medssl.io.files import read_json
from medssl.labels import UNKNOWN
from medssl.transforms import CropDataset, VolumeStore
from medssl.workflows.anatomy import RegisteredScans
from medssl.workflows.train import TrainOptions, train

SHAPE = (24, 20, 22)


def _scan(name, shift, label=True):
    """A bright ball with a dark core, in a mask, moved along the first axis."""
    i, j, k = np.indices(SHAPE)
    distance = np.sqrt((i - 12 - shift) ** 2 + (j - 10) ** 2 + (k - 11) ** 2)
    labels = np.where(distance < 4, 2, np.where(distance < 7, 1, 0))
    image = np.where(distance < 4, -1.0, np.where(distance < 7, 1.5, 0.1)).astype(np.float32)
    affine = torch.eye(4, dtype=torch.float64)
    sample = {
        "subject": name,
        "image": MetaTensor(torch.as_tensor(image)[None], affine=affine),
        "mask": MetaTensor(torch.ones(1, *SHAPE), affine=affine),
    }
    return sample | ({"label": MetaTensor(torch.as_tensor(labels)[None], affine=affine)} if label else {})


def _unlabeled(*samples, limit=None):
    return CropDataset(samples, dict, Compose([]), length=1, seed=0, store=VolumeStore(limit))


def _registered(unlabeled, folder, **more):
    labeled = [{"subject": "sub-01", "shift": 0}, {"subject": "sub-02", "shift": 1}]
    return RegisteredScans(
        labeled,
        lambda item: _scan(item["subject"], item["shift"]),
        unlabeled,
        labels=3,
        folder=str(folder),
        processes=1,
        **more,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    unlabeled = _unlabeled(_scan("sub-08", 3, label=False), _scan("sub-09", -2, label=False))
    folder = tmp_path_factory.mktemp("run")
    scans = _registered(unlabeled, folder)
    return scans, unlabeled, folder


def test_every_labeled_scan_takes_the_shape_of_every_unlabeled_one(made):
    scans, _, folder = made
    assert len(scans) == 4
    assert {scan["subject"].split()[-1] for scan in scans} == {"sub-08", "sub-09"}
    assert len(list(folder.glob("registrations/*/*.npz"))) == 4


def test_labels_are_right_where_the_image_is(made):
    for scan in made[0]:
        image, label = np.asarray(scan["image"])[0], np.asarray(scan["label"])[0]
        assert scan["image"].dtype == torch.float16
        core, shell = label == 2, label == 1
        assert image[core].mean() < -0.6
        assert image[shell].mean() > 1.1
        assert set(np.unique(label)) <= {0, 1, 2, UNKNOWN}
        inside = np.asarray(scan["mask"])[0] > 0
        assert inside.mean() > 0.7
        assert np.array_equal(np.flatnonzero(inside), scan["mask_fg_indices"])
        assert (scan["label"].dtype, scan["mask"].dtype) == (torch.uint8, torch.bool)


def test_warped_labels_lie_where_the_unlabeled_scan_has_them(made):
    scans, _, _ = made
    for scan in scans:
        shift = {"sub-08": 3, "sub-09": -2}[scan["subject"].split()[-1]]
        truth = np.asarray(_scan("", shift)["label"])[0] == 2
        found = np.asarray(scan["label"])[0] == 2
        assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.8


def test_unlabeled_scans_get_a_prior_that_fits_them(made):
    for sample, shift in zip(made[1].cache, (3, -2), strict=True):
        prior = sample["prior"]
        assert prior.dtype == torch.float16
        assert prior.shape == (3, *SHAPE)
        assert float(prior.min()) > 0
        torch.testing.assert_close(prior.float().sum(0), torch.ones(SHAPE), atol=5e-3, rtol=0)
        truth = np.asarray(_scan("", shift)["label"])[0]
        assert (prior.float().argmax(0).numpy() == truth).mean() > 0.95


def test_priors_count_toward_the_limit_of_the_scans_and_are_the_same_in_files(made, monkeypatch):
    monkeypatch.setattr("medssl.transforms.volume_store.SMALL", 1)
    _, known, folder = made
    samples = [{name: one[name] for name in ("subject", "image", "mask")} for one in known.cache]
    scans = sum(sample[name].nbytes for sample in samples for name in ("image", "mask"))
    unlabeled = _unlabeled(*samples, limit=scans + known.cache[0]["prior"].nbytes)
    _registered(unlabeled, folder, warp=False)
    assert (unlabeled.store.held, unlabeled.store.mapped) == (unlabeled.store.limit, 1)
    for one, other in zip(unlabeled.cache, known.cache, strict=True):
        assert torch.equal(one["prior"], other["prior"])


def test_more_pairs_than_the_limit_are_chosen_evenly(made):
    _, unlabeled, folder = made
    few = _registered(unlabeled, folder, memory_limit=2 * 8 * 24 * 20 * 22)
    assert [scan["subject"].split()[-1] for scan in few] == ["sub-08", "sub-09"]


def test_without_unlabeled_scans_there_is_nothing_to_register(tmp_path):
    scans = RegisteredScans([{}], lambda item: item, _unlabeled(), labels=3, folder=str(tmp_path))
    assert not len(scans)
    assert not list(tmp_path.iterdir())


def test_without_warping_there_are_priors_alone(made):
    _, unlabeled, folder = made
    assert not len(_registered(unlabeled, folder, warp=False))
    assert all("prior" in sample for sample in unlabeled.cache)


def test_where_nothing_can_be_registered_training_goes_on_without(tmp_path, caplog):
    """One subject with several sessions: a scan is never an atlas for another session of its subject."""
    unlabeled = _unlabeled(_scan("sub-01_ses-b", 3, label=False))
    labeled = [{"subject": "sub-01_ses-a", "shift": 0}]
    prepare = lambda item: _scan(item["subject"], item["shift"])  # noqa: E731
    scans = RegisteredScans(labeled, prepare, unlabeled, labels=3, folder=str(tmp_path), processes=1)
    assert not len(scans)
    assert "as with --prior class" in caplog.text
    prior = unlabeled.cache[0]["prior"].float()
    torch.testing.assert_close(prior, torch.full_like(prior, 1 / 3), atol=1e-3, rtol=0)


def test_the_prior_of_a_registered_scan_reaches_the_loss(tmp_path):
    """With weight 0 and 1 the networks differ; nothing else does."""
    for seed, name in enumerate(("01", "02", "04")):
        write_subject(tmp_path / "cohort", name, 10 * seed, labeled=name != "04")
    runs = []
    for weight in (0.0, 1.0, 0.0):
        settings = {**TINY, "steps_per_epoch": 2, "unlabeled_start": 0.0, "anatomy_weight": weight}
        options = TrainOptions(
            method="ssldec", budget="quick", device="cpu", prior="anatomical", settings=settings
        )
        run = train(tmp_path / "cohort", tmp_path / str(len(runs)), options, registrations=tmp_path).run
        assert read_json(run / "run.json")["registered_pairs"] == 2
        runs.append(weights(run))
    assert same(runs[0], runs[2])
    assert not same(runs[0], runs[1])
