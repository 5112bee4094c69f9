"""Mirrored, turned, scaled and sheared crops: one matrix, one interpolation, nothing where nothing is drawn."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from monai.transforms.utils import create_rotate, create_scale, create_shear
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

ROTATION = 0.2
"""Largest angle about each axis in radians, at full strength."""

SCALE = 0.12
"""Largest change of each side, as a share of it."""

SHEAR = 0.05
"""Largest shear of one axis along another."""


class RandomPosed(Randomizable, Transform):
    """Mirror left and right, and move the head as heads differ and move; the same for all entries of a sample.

    Args:
        linear: Entries that are interpolated linearly.
        nearest: Entries that keep their values.
        strength: 1 for the full range of rotation, scale and shear, 0 for none of them.
        flip_probability: Of a left-right flip.
        affine_probability: Of a rotation, scaling and shear.

    Shapes:
        ``(C, I, J, K)`` float32, all of the same sides

    Notes:
        Outside the crop there are zeros. Distributed as MONAI's ``RandFlipd`` followed by ``RandAffined``, which
        interpolate every entry on its own.
    """

    def __init__(
        self,
        linear: Sequence[str],
        nearest: Sequence[str],
        strength: float = 1.0,
        flip_probability: float = 0.5,
        affine_probability: float = 0.5,
    ) -> None:
        self.linear, self.nearest = tuple(linear), tuple(nearest)
        self.strength = strength
        self.flip_probability = flip_probability
        self.affine_probability = affine_probability if strength > 0 else 0.0

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with all entries moved alike."""
        sample = dict(data)
        flipped = self.R.rand() < self.flip_probability
        grid = None
        if self.R.rand() < self.affine_probability:
            grid = sampling_grid(sample[self.linear[0]].shape[1:], self._matrix())
        for keys, mode in ((self.linear, "bilinear"), (self.nearest, "nearest")):
            present = [key for key in keys if key in sample]
            if present:
                volume = torch.cat([sample[key] for key in present])
                volume = volume.flip(1) if flipped else volume
                volume = volume if grid is None else resampled(volume, grid, mode)
                parts = volume.split([len(sample[key]) for key in present])
                sample |= dict(zip(present, parts, strict=True))
        return sample

    def _matrix(self) -> NDArray[np.float64]:
        """Draw a change of pose: ``(3, 3)``, voxels about the middle."""
        angles = self.R.uniform(-ROTATION, ROTATION, 3) * self.strength
        shears = self.R.uniform(-SHEAR, SHEAR, 6) * self.strength
        scales = 1 + self.R.uniform(-SCALE, SCALE, 3) * self.strength
        product = create_rotate(3, angles) @ create_shear(3, shears) @ create_scale(3, scales)
        return np.asarray(product)[:3, :3]


def sampling_grid(sides: Sequence[int], matrix: NDArray[np.float64]) -> Tensor:
    """Return where a matrix sends the voxels of a volume, as `torch.nn.functional.grid_sample` counts.

    Args:
        sides: I, J, K.
        matrix: From the place in the result to that in the volume, in voxels about the middle.

    Shapes:
        matrix: ``(3, 3)``; return: ``(1, I, J, K, 3)``
    """
    lengths = np.array(sides[::-1], float)  # a grid names the last axis first
    theta = np.zeros((1, 3, 4))
    theta[0, :, :3] = matrix[::-1, ::-1] * lengths / lengths[:, None]
    return F.affine_grid(torch.from_numpy(theta).float(), [1, 1, *sides], align_corners=False)


def resampled(volume: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Resample a volume at the places of a grid; zeros come from outside.

    Args:
        volume: Any number of channels.
        grid: From `sampling_grid`.
        mode: "bilinear" or "nearest".

    Shapes:
        volume: ``(C, I, J, K)``; grid: ``(1, I, J, K, 3)``; return: ``(C, I, J, K)``
    """
    return F.grid_sample(volume[None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0]
