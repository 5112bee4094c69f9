import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from phantoms import ellipsoid_labels, phantom_image, save

from medssl.labels import BRAIN_TISSUES, UNKNOWN
from medssl.transforms import (
    CropDataset,
    Targets,
    augmentation,
    crop_preparation,
    postprocessing,
    preprocessing,
    unlabeled_augmentation,
    unlabeled_preparation,
    validation_postprocessing,
)


@pytest.fixture
def item(tmp_path, affine_oblique):
    labels = ellipsoid_labels((30, 26, 22))
    return {
        "subject": "sub-01",
        "image": [
            str(
                save(
                    tmp_path / "sub-01_T1w.nii.gz",
                    phantom_image(labels, (0, 400, 600, 150), 1),
                    affine_oblique,
                )
            ),
            str(
                save(
                    tmp_path / "sub-01_T2w.nii.gz",
                    phantom_image(labels, (0, 500, 400, 900), 2),
                    affine_oblique,
                )
            ),
        ],
        "label": str(save(tmp_path / "sub-01_dseg.nii.gz", labels, affine_oblique)),
    }


def test_preprocessing_gives_ras_at_the_spacing_normalized(item):
    sample = preprocessing(table=BRAIN_TISSUES, spacing=(1.5, 1.5, 1.5))(item)
    image = sample["image"]
    assert nib.aff2axcodes(image.affine.numpy()) == ("R", "A", "S")
    assert image.pixdim.tolist() == pytest.approx([1.5, 1.5, 1.5])
    assert sample["label"].shape[1:] == image.shape[1:] == sample["mask"].shape[1:]
    assert image[0][sample["mask"][0] > 0.5].mean().item() == pytest.approx(0, abs=1e-4)


def test_training_and_inference_prepare_images_alike(item):
    build = {"table": BRAIN_TISSUES, "spacing": (1.5, 1.5, 1.5)}
    train = preprocessing(**build)(dict(item))["image"]
    infer = preprocessing(**build, keys=("image", "mask"))({k: v for k, v in item.items() if k != "label"})[
        "image"
    ]
    assert torch.equal(train.as_tensor(), infer.as_tensor())


def test_crops_lie_in_the_mask_and_unknown_outside(item):
    prepare, cut = (
        preprocessing(table=BRAIN_TISSUES, spacing=(2, 2, 2)),
        crop_preparation(crop_size=(16, 16, 16)),
    )
    change = augmentation(crop_size=(16, 16, 16))
    change.set_random_state(seed=1)
    ready = cut(prepare(item))
    for _ in range(5):
        crop = change(ready)
        mask, label = crop["mask"][0] > 0.5, crop["label"][0]
        assert crop["image"].shape == (2, 16, 16, 16)
        assert mask.any()
        assert torch.all(label[~mask] == UNKNOWN)
        assert torch.all(crop["image"][:, ~mask] == 0)
        assert set(label[mask].unique().tolist()) <= {0, 1, 2, 3}


def test_a_volume_smaller_than_the_crop_is_padded(item):
    ready = crop_preparation(crop_size=(48, 48, 48))(
        preprocessing(table=BRAIN_TISSUES, spacing=(2, 2, 2))(item)
    )
    assert augmentation(crop_size=(48, 48, 48), strength=0)(ready)["image"].shape == (2, 48, 48, 48)


def test_truth_goes_there_and_back_onto_the_native_grid(item):
    prepare = preprocessing(table=BRAIN_TISSUES, spacing=(1.5, 1.5, 1.5))
    sample = prepare(dict(item))
    scores = torch.nn.functional.one_hot(sample["label"][0].long(), 4).movedim(-1, 0) * 20.0
    sample["pred"] = MetaTensor(scores, meta=sample["image"].meta)
    result = postprocessing(preprocessing=prepare, table=BRAIN_TISSUES)(sample)["pred"]
    truth = np.asarray(nib.load(item["label"]).dataobj)
    assert result.shape == (1, 30, 26, 22)
    assert np.allclose(result.affine, nib.load(item["label"]).affine, atol=1e-4)
    assert np.all(result[0].numpy()[truth == 0] == 0)
    assert np.mean(result[0].numpy()[truth > 0] == truth[truth > 0]) > 0.85


def test_without_resampling_every_voxel_comes_back(item):
    prepare = preprocessing(table=BRAIN_TISSUES, spacing=(2.0, 1.8, 2.2))
    sample = prepare(dict(item))
    scores = torch.nn.functional.one_hot(sample["label"][0].long(), 4).movedim(-1, 0) * 20.0
    sample["pred"] = MetaTensor(scores, meta=sample["image"].meta)
    result = postprocessing(preprocessing=prepare, table=BRAIN_TISSUES)(sample)["pred"]
    truth = np.asarray(nib.load(item["label"]).dataobj)
    assert np.mean(result[0].numpy() == truth) > 0.97


def test_validation_scores_only_known_voxels_inside_the_mask():
    label = torch.tensor([1, 2, UNKNOWN, 3]).reshape(1, 4, 1, 1)
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 4, 1, 1)
    pred = torch.eye(4)[[1, 3, 2, 2]].T.reshape(4, 4, 1, 1) * 9
    result = validation_postprocessing(table=BRAIN_TISSUES)({"pred": pred, "label": label, "mask": mask})
    assert result["pred"].argmax(0).flatten().tolist() == [1, 3, 0, 0]
    assert result["label"].argmax(0).flatten().tolist() == [1, 2, 0, 0]


@pytest.fixture
def ready():
    """Return an unlabeled scan of two contrasts, prepared for crops of 12 voxels."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in (22, 20, 18)], indexing="ij")
    mask = (sum(axis**2 for axis in axes) < 0.8).float()[None]
    mask[:, 5:9, 4:9, 7:10] = 0
    image = torch.stack([3 + axes[0] + axes[1] ** 2, 3 - axes[0] + axes[2]]) * mask
    image, mask = (torch.nn.functional.pad(volume, [9] * 6) for volume in (image, mask))  # cut off again
    sample = {"subject": "u", "image": MetaTensor(image), "mask": MetaTensor(mask)}
    return unlabeled_preparation(crop_size=(12, 12, 12))(sample)


@pytest.fixture
def targets(ready):
    made = Targets("soft")
    inside = int((ready["mask"] > 0.5).sum())
    made.put("u", (3 * torch.randn(3, inside, generator=torch.Generator().manual_seed(0))).log_softmax(0))
    return made


def _crops(ready, keys=("image", "strong", "mask"), seed=4, **options):
    change = unlabeled_augmentation(crop_size=(12, 12, 12), **options)
    return CropDataset([{}], lambda item: ready, change, length=40, seed=seed, keys=keys)


def test_unlabeled_preparation_numbers_the_mask(ready):
    place, mask = ready["place"], ready["mask"].as_tensor()
    assert place.shape == mask.shape == (1, 30, 28, 28)
    assert torch.equal(place >= 0, mask > 0.5)
    assert place.max().item() == int(mask.sum()) - 1


def test_without_changes_both_views_are_the_same(ready):
    crops = _crops(ready, strength=0)
    for number in range(8):
        crop = crops[number]
        assert crop["image"].shape == (2, 12, 12, 12)
        assert torch.equal(crop["image"], crop["strong"])


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_both_views_share_pose_and_mask(ready, strength, monkeypatch):
    """With the intensity changes taken away, what is left of the strong view is the other one."""
    loud = _crops(ready, strength=strength)
    monkeypatch.setattr("medssl.transforms.random_intensity.CHANGES", ())
    quiet = _crops(ready, strength=strength)
    poses = set()
    for number in range(12):
        before, after = quiet[number], loud[number]
        assert torch.equal(before["strong"], before["image"])
        assert torch.equal(before["mask"], after["mask"])
        assert torch.equal(before["image"], after["image"])
        outside = after["mask"][0] < 0.5
        assert torch.all(after["strong"][:, outside] == 0)
        assert torch.all(after["image"][:, outside] == 0)
        poses.add(float(after["image"].sum()))
    assert len(poses) == 12


def test_strong_changes_change_intensities_only_of_the_strong_view(ready):
    crops = _crops(ready, strength=1.0)
    changed = [not torch.allclose(crops[n]["image"], crops[n]["strong"]) for n in range(12)]
    assert sum(changed) > 8


def test_a_crop_of_both_views_depends_on_seed_and_number_alone(ready, targets):
    keys = ("image", "strong", "mask", "target")
    crops = _crops(ready, keys, strength=1.0, targets=targets)
    first = {key: value.clone() for key, value in crops[7].items()}
    _ = [crops[n] for n in (3, 30, 8)]
    again = _crops(ready, keys, strength=1.0, targets=targets)
    assert all(torch.equal(crops[7][key], first[key]) for key in keys)
    assert all(torch.equal(again[7][key], first[key]) for key in keys)
    other = _crops(ready, keys, seed=5, strength=1.0, targets=targets)
    assert any(not torch.equal(other[n]["image"], crops[n]["image"]) for n in range(4))


def test_stored_targets_do_not_change_the_crops(ready, targets):
    plain, with_target = _crops(ready), _crops(ready, targets=targets)
    for number in range(6):
        assert all(torch.equal(plain[number][key], with_target[number][key]) for key in plain[number])


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_targets_follow_a_flip_exactly(ready, targets, flip):
    """The whole target volume, cut and mirrored like an image, is the target of the crop."""
    whole = targets.look_up("u", ready["place"][0])
    sample = {**ready, "image": MetaTensor(torch.cat([ready["image"], whole]))}
    keys = ("image", "mask", "target")
    crops = _crops(sample, keys, strength=0, flip_probability=flip, targets=targets)
    for number in range(6):
        crop = crops[number]
        assert torch.allclose(crop["target"], crop["image"][2:], atol=1e-6)
        assert torch.equal(crop["target"].sum(0) > 0.5, crop["mask"][0] > 0.5)
    mirrored = _crops(sample, keys, strength=0, flip_probability=1 - flip, targets=targets)[0]
    assert torch.equal(mirrored["target"], crops[0]["target"].flip(1))


@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_targets_sum_to_one_or_zero_after_a_change_of_pose(ready, targets, rule):
    moved = Targets(rule, threshold=0.8)
    moved.put("u", targets.log_q["u"].float())
    crops = _crops(ready, ("image", "mask", "target"), strength=1.0, targets=moved)
    fractions = 0
    for number in range(12):
        crop = crops[number]
        total, inside = crop["target"].sum(0), crop["mask"][0] > 0.5
        assert torch.all((total < 1e-6) | ((total - 1).abs() < 1e-5))
        assert torch.all(total[~inside] == 0)
        assert torch.all(crop["target"] >= 0)
        fractions += int(((crop["target"] > 0.01) & (crop["target"] < 0.99)).sum())
        assert rule == "hard" or (total[inside] > 0.5).float().mean() > 0.8
    assert fractions > 0


@pytest.mark.parametrize(("strength", "flip"), [(0.0, 1.0), (1.0, 0.5)])
def test_the_anatomical_prior_moves_along_with_the_crop(ready, strength, flip):
    """It is cut, mirrored and interpolated like an image."""
    prior = torch.rand(4, *ready["mask"].shape[1:], generator=torch.Generator().manual_seed(2)).softmax(0)
    sample = {**ready, "image": MetaTensor(torch.cat([ready["image"], prior])), "prior": prior}
    keys = ("image", "mask", "prior")
    crops = _crops(sample, keys, strength=strength, flip_probability=flip, prior=True)
    for number in range(8):
        crop = crops[number]
        inside = crop["mask"][0] > 0.5
        assert inside.any()
        assert torch.allclose(crop["prior"][:, inside], crop["image"][2:, inside], atol=1e-5)
