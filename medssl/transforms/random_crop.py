"""One random crop inside the mask, cut as a view: nothing is copied before it has to change."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform

from medssl.transforms.masking import plain


class RandomCropd(Randomizable, Transform):
    """Cut a crop whose center is a voxel of the mask, each as likely as the others.

    Near the border of the volume the crop is moved inside. A mask without a voxel allows every center.

    Args:
        keys: Entries to cut; those that a sample lacks are left out.
        crop_size: Sides of the crop in voxels.

    Raises:
        ValueError: The volume is smaller than the crop.

    Shapes:
        ``(C, I, J, K)`` of any type to float32 ``(C, *crop_size)``; ``place`` keeps its type. ``mask_fg_indices``:
        numbers of the mask's voxels, as `crop_preparation` stores them.

    Notes:
        Centers are distributed as in MONAI's ``RandCropByPosNegLabeld`` with ``neg=0``.
    """

    def __init__(self, keys: Sequence[str], crop_size: Sequence[int]) -> None:
        self.keys = tuple(keys)
        self.crop_size = tuple(crop_size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with its entries cut, plain tensors without metadata."""
        sample = dict(data)
        shape = sample["image"].shape[1:]
        window = (slice(None), *self._window(shape, sample["mask_fg_indices"]))
        for key in self.keys:
            if key in sample:
                crop = plain(sample[key])[window]
                sample[key] = crop if crop.dtype == torch.int32 else crop.float()
        return sample

    def _window(self, shape: Sequence[int], inside: Any) -> list[slice]:
        """Draw the part of each axis that is cut."""
        if any(side > length for side, length in zip(self.crop_size, shape, strict=True)):
            msg = f"Crops of {self.crop_size} voxels do not fit into a volume of {tuple(shape)}."
            raise ValueError(msg)
        center = (
            int(inside[self.R.randint(len(inside))])
            if len(inside)
            else int(self.R.randint(int(np.prod(shape))))
        )
        starts = [
            min(max(int(at) - side // 2, 0), length - side)
            for at, side, length in zip(
                np.unravel_index(center, tuple(shape)), self.crop_size, shape, strict=True
            )
        ]
        return [slice(start, start + side) for start, side in zip(starts, self.crop_size, strict=True)]
