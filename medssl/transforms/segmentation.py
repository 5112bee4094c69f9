"""The three pipelines of the segmentation path. Training, inference and MONAI Label share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CropForegroundd,
    DeleteItemsd,
    EnsureTyped,
    FgBgToIndicesd,
    Invertd,
    Orientationd,
    SpatialPadd,
)

from medssl.labels import UNKNOWN, LabelTable
from medssl.transforms.loading import DecodeLabelsd, EncodeLabelsd, ForeignKeySafeSpacingd, LoadSubjectd
from medssl.transforms.masking import BackgroundWhereUnknownd, BoundByMaskd, NormalizeInMaskd
from medssl.transforms.random_crop import RandomCropd
from medssl.transforms.random_intensity import RandomIntensityd
from medssl.transforms.random_pose import RandomPosed
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
            DeleteItemsd(keys="mask_bg_indices"),  # no crop is centered on the background
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
    linear, nearest = _by_interpolation(keys)
    return Compose(
        [
            RandomCropd(keys, crop_size),
            RandomPosed(linear, nearest, strength, flip_probability),
            RandomIntensityd("image", strength),
            BoundByMaskd(keys=("image", "label"), outside=(0.0, UNKNOWN)),
        ]
    )


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
    linear, nearest = _by_interpolation(("image", "mask", *(("target",) if stored else ()), *carried))
    return Compose(
        [
            RandomCropd(("image", "mask", "place", *carried), crop_size),
            *([LookUpTargetd(targets)] if targets is not None else []),
            RandomPosed(linear, nearest, strength, flip_probability),
            *([NormalizeTargetd()] if stored else []),
            _second_view,
            RandomIntensityd("strong", strength),
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


def _by_interpolation(keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the entries that are interpolated linearly, and those that keep their values."""
    linear = [key for key in keys if INTERPOLATION[key] == "bilinear"]
    return linear, [key for key in keys if key not in linear]


def _second_view(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sample with ``strong``, so far the same as ``image``."""
    return {**sample, "strong": sample["image"]}
