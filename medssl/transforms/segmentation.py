"""The three pipelines of the segmentation path. Training, inference and MONAI Label share them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CopyItemsd,
    CropForegroundd,
    EnsureTyped,
    FgBgToIndicesd,
    Invertd,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    SpatialPadd,
)

from medssl.labels import UNKNOWN, LabelTable
from medssl.transforms.loading import DecodeLabelsd, EncodeLabelsd, ForeignKeySafeSpacingd, LoadSubjectd
from medssl.transforms.masking import BackgroundWhereUnknownd, BoundByMaskd, NormalizeInMaskd
from medssl.transforms.targets import IndexMaskd, LookUpTargetd, NormalizeTargetd, Targets

INTERPOLATION = {
    "image": "bilinear",
    "label": "nearest",
    "mask": "nearest",
    "target": "bilinear",
    "prior": "bilinear",
}


def preprocessing(
    *,
    table: LabelTable,
    spacing: Sequence[float],
    keys: Sequence[str] = ("image", "label", "mask"),
    resample: bool = False,
    contrasts: Sequence[str] = (),
) -> Compose:
    """Read a subject and bring it to the network's space: RAS, the given spacing, normalized in the mask.

    Args:
        table: Labels; their values become channel numbers.
        spacing: Voxel size in mm of the network's space, along R, A, S.
        keys: Entries to carry; leave out ``label`` at inference.
        resample: Bring other contrasts to the first one's grid by their headers.
        contrasts: Lets a single path stand for all contrasts of a scan (see `LoadSubjectd`).

    Shapes:
        image: ``(C, I, J, K)``; label, mask: ``(1, I, J, K)``
    """
    keys = tuple(keys)
    return Compose(
        [
            LoadSubjectd(keys=keys, resample=resample, contrasts=contrasts),
            *([DecodeLabelsd(keys=("label",), table=table)] if "label" in keys else []),
            Orientationd(keys=keys, axcodes="RAS", labels=None, allow_missing_keys=True),
            ForeignKeySafeSpacingd(
                keys=keys,
                pixdim=tuple(spacing),
                mode=[INTERPOLATION[key] for key in keys],
                padding_mode="zeros",
                allow_missing_keys=True,
            ),
            NormalizeInMaskd(keys=("image",)),
            EnsureTyped(keys=("image",), dtype=torch.float32, track_meta=True),
        ]
    )


def crop_preparation(
    *, crop_size: Sequence[int], keys: Sequence[str] = ("image", "label", "mask")
) -> Compose:
    """Cut a preprocessed subject to its mask and index the voxels that crops may be centered on.

    Args:
        crop_size: Sides of the crops in voxels; a smaller volume is padded to them.
        keys: Entries to carry.
    """
    keys = tuple(keys)
    margin = [side // 2 for side in crop_size]
    return Compose(
        [
            CropForegroundd(keys=keys, source_key="mask", margin=margin, allow_smaller=True),
            SpatialPadd(keys=keys, spatial_size=tuple(crop_size)),
            FgBgToIndicesd(keys="mask"),
        ]
    )


def augmentation(
    *,
    crop_size: Sequence[int],
    keys: Sequence[str] = ("image", "label", "mask"),
    strength: float = 1.0,
    flip_probability: float = 0.5,
) -> Compose:
    """Draw a random crop inside the mask and vary its pose and intensities as scanners and heads do.

    Args:
        crop_size: Sides of the crop in voxels.
        keys: Entries to carry.
        strength: 1 for the full range of every change, 0 for crops and left-right flips only.
        flip_probability: Of a left-right flip; 0 where labels name a side.

    Notes:
        Outside the mask the image is 0 and the label unknown, as at inference and in every loss.
    """
    keys = tuple(keys)
    crop = _random_crop(keys, crop_size)
    pose = _pose_changes(keys, strength, flip_probability)
    bounds = BoundByMaskd(keys=("image", "label"), outside=(0.0, UNKNOWN))
    return Compose([crop, *pose, *_intensity_changes("image", strength), bounds])


def unlabeled_preparation(*, crop_size: Sequence[int]) -> Compose:
    """Like `crop_preparation`, for scans without a label; the voxels of the mask are numbered for targets.

    Args:
        crop_size: Sides of the crops in voxels.
    """
    steps = crop_preparation(crop_size=crop_size, keys=("image", "mask")).transforms
    return Compose([*steps, IndexMaskd()])


def unlabeled_augmentation(
    *,
    crop_size: Sequence[int],
    strength: float = 1.0,
    flip_probability: float = 0.5,
    targets: Targets | None = None,
    prior: bool = False,
) -> Compose:
    """Draw a random crop and make two views of it: ``image``, and ``strong`` with other intensities.

    Both views share one pose, the one of `augmentation`, so that a prediction of the first is a target for
    the second. Stored targets move along (linear interpolation, then normalized).

    Args:
        crop_size: Sides of the crop in voxels.
        strength: As in `augmentation`; with 0 both views are equal.
        flip_probability: Of a left-right flip; 0 where labels name a side.
        targets: Makes ``target``; without it there is none.
        prior: Carry the anatomical ``prior`` of the scan; 0 in all classes where nothing is known.
    """
    stored = targets is not None
    carried = ("prior",) if prior else ()
    crop = _random_crop(("image", "mask", "place", *carried), crop_size)
    keys = ("image", "mask", *(("target",) if stored else ()), *carried)
    return Compose(
        [
            crop,
            *([LookUpTargetd(targets)] if targets is not None else []),
            *([EnsureTyped(keys="prior", dtype=torch.float32)] if prior else []),
            *_pose_changes(keys, strength, flip_probability),
            *([NormalizeTargetd()] if stored else []),
            CopyItemsd(keys="image", names="strong"),
            *_intensity_changes("strong", strength),
            BoundByMaskd(keys=("image", "strong", "target"), outside=(0.0, 0.0, 0.0)),
        ]
    )


def to_native_grid(*, preprocessing: Compose) -> Compose:
    """Bring probabilities back to the scan's own grid (linear interpolation).

    Args:
        preprocessing: The very object that prepared the image: its steps are inverted.
    """
    invert = Invertd(
        keys="pred", orig_keys="image", transform=preprocessing, nearest_interp=False, to_tensor=True
    )
    return Compose([invert])


def labels_from_probabilities(*, table: LabelTable) -> Compose:
    """Choose the likeliest label of each voxel; outside the scan's own mask the answer is background.

    Args:
        table: Channel numbers become its stored values.
    """
    return Compose(
        [
            AsDiscreted(keys="pred", argmax=True),
            BoundByMaskd(keys=("pred",), outside=(0.0,), mask_key="native_mask"),
            EncodeLabelsd(keys=("pred",), table=table),
        ]
    )


def postprocessing(*, preprocessing: Compose, table: LabelTable) -> Compose:
    """Turn network scores into a label map on the scan's own grid.

    Args:
        preprocessing: The very object that prepared the image: its steps are inverted.
        table: Channel numbers become its stored values.
    """
    back = to_native_grid(preprocessing=preprocessing).transforms
    return Compose(
        [Activationsd(keys="pred", softmax=True), *back, *labels_from_probabilities(table=table).transforms]
    )


def validation_postprocessing(*, table: LabelTable) -> Compose:
    """Make prediction and label one-hot for MONAI's metrics; unknown voxels count as background in both.

    So do those outside the mask, where the network was never taught an answer.
    """
    return Compose(
        [
            BoundByMaskd(keys=("label",), outside=(UNKNOWN,)),
            BackgroundWhereUnknownd(),
            AsDiscreted(keys=("pred", "label"), argmax=(True, False), to_onehot=(len(table), len(table))),
        ]
    )


def _random_crop(keys: Sequence[str], crop_size: Sequence[int]) -> RandCropByPosNegLabeld:
    return RandCropByPosNegLabeld(
        keys=tuple(keys),
        label_key="mask",
        spatial_size=tuple(crop_size),
        pos=1,
        neg=0,
        num_samples=1,
        fg_indices_key="mask_fg_indices",
        bg_indices_key="mask_bg_indices",
    )


def _pose_changes(keys: Sequence[str], strength: float, flip_probability: float) -> list[object]:
    flip = RandFlipd(keys=keys, prob=flip_probability, spatial_axis=0)
    if strength <= 0:
        return [flip]
    affine = RandAffined(
        keys=keys,
        prob=0.5,
        rotate_range=(0.2 * strength,) * 3,
        scale_range=(0.12 * strength,) * 3,
        shear_range=(0.05 * strength,) * 6,
        mode=[INTERPOLATION[key] for key in keys],
        padding_mode="zeros",
    )
    return [flip, affine]


def _intensity_changes(image: str, strength: float) -> list[object]:
    if strength <= 0:
        return []
    return [
        RandBiasFieldd(keys=image, prob=0.3, degree=2, coeff_range=(0.0, 0.15 * strength)),
        RandScaleIntensityd(keys=image, prob=0.5, factors=0.2 * strength, channel_wise=True),
        RandShiftIntensityd(keys=image, prob=0.5, offsets=0.2 * strength, channel_wise=True),
        RandAdjustContrastd(keys=image, prob=0.3, gamma=(1 - 0.25 * strength, 1 + 0.35 * strength)),
        RandGaussianNoised(keys=image, prob=0.3, std=0.15 * strength),
        RandGaussianSmoothd(
            keys=image, prob=0.15, sigma_x=(0.3, 0.8), sigma_y=(0.3, 0.8), sigma_z=(0.3, 0.8)
        ),
    ]
