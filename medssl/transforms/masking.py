"""What the brain mask bounds: normalization, losses, answers."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from medssl.labels import UNKNOWN


def normalize_in_mask(image: Tensor, mask: Tensor) -> Tensor:
    r"""Give each channel mean 0 and standard deviation 1 inside the mask, and 0 outside.

    .. math:: \hat x_i = (x_i - \mu_M) / \sigma_M \quad (i \in M), \qquad \hat x_i = 0 \quad (i \notin M)

    Args:
        image: Intensities of any unit.
        mask: True where the brain is.

    Returns:
        Normalized image. A channel that is constant inside the mask becomes 0.

    Shapes:
        image: ``(C, I, J, K)``
        mask: ``(1, I, J, K)``
        return: ``(C, I, J, K)``
    """
    inside = mask.expand_as(image[:1])[0] > 0.5
    normalized = torch.zeros_like(image)
    for channel, out in zip(image, normalized, strict=True):
        values = channel[inside]
        if values.numel() > 1:
            out[inside] = (values - values.mean()) / values.std().clamp_min(1e-6)
    return normalized


class NormalizeInMaskd(MapTransform):
    """Apply `normalize_in_mask` to the sample's images."""

    def __init__(self, keys: tuple[str, ...], mask_key: str = "mask") -> None:
        super().__init__(keys)
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with normalized images."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            normalized = normalize_in_mask(sample[key].as_tensor(), plain(sample[self.mask_key]))
            sample[key] = MetaTensor(
                normalized, meta=sample[key].meta, applied_operations=sample[key].applied_operations
            )
        return sample


class BoundByMaskd(MapTransform):
    """Set everything outside the mask: images to 0, labels to unknown, predictions to background.

    Args:
        keys: Entries to bound.
        outside: Value per key outside the mask.
        mask_key: Entry that holds the mask on the grid of the keys.
    """

    def __init__(self, keys: tuple[str, ...], outside: tuple[float, ...], mask_key: str = "mask") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.outside = outside
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample, bounded."""
        sample = dict(data)
        for key, outside in self.key_iterator(sample, self.outside):
            volume = sample[key]
            mask = plain(sample[self.mask_key]).to(volume.device) > 0.5
            value = torch.as_tensor(outside, dtype=volume.dtype, device=volume.device)
            sample[key] = torch.where(mask, volume, value)
        return sample


class BackgroundWhereUnknownd(MapTransform):
    """Make voxels of unknown label background in label and prediction alike, so that metrics skip them.

    Shapes:
        pred: ``(K, I, J, K)`` scores, background first; label: ``(1, I, J, K)`` channel numbers
    """

    def __init__(self, pred_key: str = "pred", label_key: str = "label") -> None:
        super().__init__((pred_key, label_key))
        self.pred_key, self.label_key = pred_key, label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with unknown voxels neutral."""
        sample = dict(data)
        unknown = plain(sample[self.label_key]) == UNKNOWN
        background = torch.zeros_like(plain(sample[self.pred_key]))
        background[0] = 1
        sample[self.pred_key] = torch.where(unknown.to(background.device), background, sample[self.pred_key])
        sample[self.label_key] = torch.where(
            unknown, torch.zeros_like(plain(sample[self.label_key])), sample[self.label_key]
        )
        return sample


def plain(volume: Tensor) -> Tensor:
    """Return a volume without its metadata."""
    return volume.as_tensor() if isinstance(volume, MetaTensor) else volume
