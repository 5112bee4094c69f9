"""Reading a subject's volumes into one sample, and resampling that survives foreign keys."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor, NibabelReader
from monai.transforms import LoadImaged, MapTransform, ResampleToMatch, Spacingd

from medssl.errors import InputError, LabelError
from medssl.labels import ISEG_RAW, NO_MASK, UNKNOWN, LabelTable

logger = logging.getLogger(__name__)


class LoadSubjectd(LoadImaged):
    """Load a subject: contrasts stacked into the channels of ``image``, then ``label`` and ``mask`` where listed.

    A missing mask is made here: the voxels where the first contrast is not zero (skull-stripped data), or
    all voxels where the sample says ``mask: "none"``. Samples that say ``resample: True`` have their other
    contrasts brought to the grid of the first. An ``image`` that has been read already, a `MetaTensor` in the
    file's voxel order, is taken as it is. The mask on the scan's own grid is kept as ``native_mask``, so that
    postprocessing can bound the answer exactly.

    Args:
        keys: Entries to carry.
        resample: Bring other contrasts to the first one's grid by their headers.
        contrasts: BIDS suffixes in channel order. With several, an ``image`` that is one path, as MONAI Label's
            stock app gives it, stands for all of them: ``x_T1w.nii.gz`` for itself and ``x_T2w.nii.gz``.

    Raises:
        InputError: A contrast cannot be found beside that path.

    Shapes:
        image: ``(C, I, J, K)``; label, mask, native_mask: ``(1, I, J, K)``

    Notes:
        ``mask`` is none of ``self.keys``: MONAI Label looks for all of them in what it hands in.
    """

    def __init__(
        self,
        keys: tuple[str, ...] = ("image", "label", "mask"),
        resample: bool = False,
        contrasts: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        kwargs = {"ensure_channel_first": True, "allow_missing_keys": True, "image_only": True} | kwargs
        own = tuple(key for key in keys if key != "mask")
        super().__init__(own, reader=NibabelReader(squeeze_non_spatial_dims=True), **kwargs)
        self.resample, self.contrasts, self.with_mask = resample, tuple(contrasts), "mask" in keys

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """Return the sample with its volumes in place of their paths."""
        sample = dict(data)
        everywhere = isinstance(sample.get("mask"), str) and sample["mask"] == NO_MASK
        if everywhere or sample.get("mask") is None:
            sample.pop("mask", None)
        resampled = sample.pop("resample", self.resample)
        if isinstance(sample.get("image"), str) and len(self.contrasts) > 1:
            sample["image"] = contrast_files(sample["image"], self.contrasts)
        if isinstance(sample.get("image"), MetaTensor):
            image = sample.pop("image")
        else:
            image = self._resampled_images(sample, reader) if resampled else None
        sample = super().__call__(sample, reader)
        image = sample["image"] if image is None else image
        sample["image"] = image
        if "mask" in sample and self.with_mask:
            mask = self._image_at(sample["mask"], reader).as_tensor() > 0
        else:
            first = image[:1].as_tensor()
            mask = torch.ones_like(first, dtype=torch.bool) if everywhere else first != 0
        sample["mask"] = MetaTensor(mask.float(), affine=image.affine)
        sample["native_mask"] = mask
        return sample

    def _resampled_images(self, sample: dict[Hashable, Any], reader: Any) -> MetaTensor:
        """Load the contrasts one by one and bring them to the grid of the first by their headers."""
        paths = sample["image"]
        first, *others = [paths] if isinstance(paths, str) else paths
        sample["image"] = first
        reference = self._image_at(first, reader)
        images = [reference]
        for path in others:
            image = self._image_at(path, reader)
            moved = ResampleToMatch(mode="bilinear", padding_mode="zeros")(image, reference)
            logger.info(
                "%s: %s resampled by its header from shape %s to %s",
                sample.get("subject", ""),
                Path(path).name,
                tuple(image.shape[1:]),
                tuple(moved.shape[1:]),
            )
            images.append(moved)
        return MetaTensor(torch.cat([image.as_tensor() for image in images]), meta=reference.meta)

    def _image_at(self, path: object, reader: Any) -> MetaTensor:
        """Load one file ``(1, I, J, K)``."""
        return super().__call__({"image": path}, reader)["image"]


def contrast_files(path: str, contrasts: Sequence[str]) -> list[str] | str:
    """Return the files of all contrasts of a scan, found by the name of one.

    Args:
        path: ``x_T1w.nii.gz``. A file whose name holds none of the contrasts is taken for one with all of them (4D).
        contrasts: BIDS suffixes in channel order.

    Raises:
        InputError: The file of a contrast is missing.
    """
    folder, name = Path(path).parent, Path(path).name
    found = re.fullmatch(rf"(.*_)(?:{'|'.join(map(re.escape, contrasts))})(\.nii(?:\.gz)?)", name)
    if found is None:
        return path
    files = [folder / f"{found[1]}{contrast}{found[2]}" for contrast in contrasts]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        msg = f"{name}: {', '.join(missing)} is missing beside it; expected {' and '.join(contrasts)}."
        raise InputError(msg, "Put it there, or use a model that needs fewer contrasts.")
    return [str(file) for file in files]


class DecodeLabelsd(MapTransform):
    """Turn stored label values into channel numbers of the table; unknown (255) stays unknown.

    Samples that carry ``encoding: "iseg"`` hold the raw values of the iSeg challenge.

    Raises:
        LabelError: A value is in neither the table nor unknown (raised by the reading checks beforehand).
    """

    def __init__(self, keys: tuple[str, ...], table: LabelTable) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.table = table

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with channel numbers in its label volumes."""
        sample = dict(data)
        channels = _channels_of_values(self.table, sample.get("encoding") == "iseg")
        for key in self.key_iterator(sample):
            label = sample[key]
            decoded = torch.full(label.shape, UNKNOWN, dtype=torch.uint8)
            for value, channel in channels.items():
                decoded[label.as_tensor() == value] = channel
            _require_known(sample, label, decoded, self.table)
            sample[key] = MetaTensor(decoded, affine=label.affine)
        return sample


class EncodeLabelsd(MapTransform):
    """Turn channel numbers back into the stored values of the table (the inverse of `DecodeLabelsd`)."""

    def __init__(self, keys: tuple[str, ...], table: LabelTable) -> None:
        super().__init__(keys)
        self.values = torch.tensor(table.values, dtype=torch.uint8)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with stored values, uint8."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            channels = sample[key]
            values = self.values.to(channels.device)[torch.as_tensor(channels).long()]
            sample[key] = (
                MetaTensor(values, meta=channels.meta) if isinstance(channels, MetaTensor) else values
            )
        return sample


class ForeignKeySafeSpacingd(Spacingd):
    """MONAI's ``Spacingd`` for samples that carry keys such as ``image_path``.

    MONAI 1.6.0 and 1.6.1 take every key that starts with ``image_`` or ``label_`` for a metadata mapping
    and fail on a string; such entries are taken out during the call and put back.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Return the sample on the new spacing, foreign keys untouched."""
        prefixes = tuple(f"{key}_" for key in self.keys)
        foreign = {
            key: value
            for key, value in data.items()
            if isinstance(key, str) and key.startswith(prefixes) and not isinstance(value, Mapping)
        }
        sample = super().__call__({key: value for key, value in data.items() if key not in foreign}, lazy)
        return {**sample, **foreign}


def _channels_of_values(table: LabelTable, iseg: bool) -> dict[int, int]:
    if not iseg:
        return {value: table.channel(value) for value in table.values}
    channel_of = {label.abbreviation: channel for channel, label in enumerate(table)}
    return {raw: channel_of[abbreviation] for raw, abbreviation in ISEG_RAW.items()}


def _require_known(
    sample: Mapping[Hashable, Any], label: MetaTensor, decoded: torch.Tensor, table: LabelTable
) -> None:
    strangers = torch.unique(label.as_tensor()[decoded == UNKNOWN])
    strangers = strangers[strangers != UNKNOWN]
    if strangers.numel():
        found = ", ".join(f"{value:g}" for value in strangers[:5].tolist())
        msg = (
            f"{sample.get('subject', 'a subject')}: the label volume holds {found}, which table '{table.name}' "
            f"({table.describe()}) does not have. Correct the labels or give their table."
        )
        raise LabelError(msg)
