"""Where the registered labels of some scans expect each class in another scan, outside of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.data import MetaTensor
from torch import Tensor

from medssl.inference.plan import box_of
from medssl.io.cohort import item
from medssl.io.subjects import Subject
from medssl.labels import LabelTable
from medssl.transforms import preprocessing
from medssl.workflows.atlases import AtlasOptions, LabeledScans, Progress, register_atlases
from medssl.workflows.methods import ANATOMY_CONFIG
from medssl.workflows.models import packaged_bundle


@dataclass(frozen=True, eq=False)
class LaidOver:
    """What labeled scans say about one scan.

    Args:
        prior: ``(K, i, j, k)``, in a box of the scan.
        bounds: That box.
        atlases: Names of the labeled scans that had a say, the most similar first; none where the prior is flat.
        registered: How many could be laid over it.
        pairs: Of how many: the labeled scans of other subjects.
        short_of_memory: Names of those that could not for want of memory.
    """

    prior: Tensor
    bounds: tuple[slice, ...]
    atlases: tuple[str, ...]
    registered: int
    pairs: int
    short_of_memory: tuple[str, ...] = ()


class RegisteredPrior:
    """Register labeled scans to a scan and average their labels; registrations are kept.

    Args:
        labeled: Preprocessed labeled scans.
        labels: K, background included.
        folder: ``registrations/`` in it keeps every pair.
        processes: That register at a time; None: as many as there are cores.
    """

    def __init__(
        self, labeled: Sequence[Any], labels: int, folder: Path, processes: int | None = None
    ) -> None:
        self.labeled = LabeledScans.of(labeled)
        self.labels, self.folder = labels, folder
        self.options = AtlasOptions(nearest=int(anatomy_defaults()["atlases"]), processes=processes)

    def laid_over(self, sample: Any, progress: Progress | None = None) -> LaidOver:
        """Return the prior in the box of the scan's mask, and the labeled scans that had a say in it.

        Args:
            sample: Preprocessed scan: ``subject``, ``image`` with its affine, ``mask``.
            progress: Told about each pair.
        """
        bounds = box_of(sample["mask"].as_tensor()[0] > 0.5).slices
        part = {"subject": str(sample["subject"])} | {
            name: _cut(sample[name], bounds) for name in ("image", "mask")
        }
        found = register_atlases(
            self.labeled, [part], self.folder, classes=self.labels, options=self.options, progress=progress
        )
        name = part["subject"]
        prior = torch.as_tensor(found.prior(name))
        flat = bool((prior == prior[:1]).all())
        said = () if flat else tuple(one for one in found.nearest(name) if self._knows_a_label(one))
        registered = len(found.files[name])
        short = tuple(sorted(atlas for _, atlas in found.short_of_memory))
        return LaidOver(prior, bounds, said, registered, registered + len(found.failed), short)

    def _knows_a_label(self, atlas: str) -> bool:
        """Tell whether a labeled scan has a voxel that is not unknown."""
        return any(number < self.labels for number in self.labeled.present[atlas])


@cache
def anatomy_defaults() -> dict[str, Any]:
    """Return the values of the overlay that registers labeled scans: ``anatomy_weight`` (w), ``atlases``, ..."""
    return dict(yaml.safe_load((packaged_bundle() / "configs" / ANATOMY_CONFIG).read_text(encoding="utf-8")))


def prepared_with_labels(
    subjects: Sequence[Subject], table: LabelTable, spacing: Sequence[float], resample: bool
) -> list[Any]:
    """Bring labeled scans to a network's space, their labels with them."""
    prepare = preprocessing(table=table, spacing=spacing)
    return [prepare({**item(one), "resample": resample and len(one.images) > 1}) for one in subjects]


def _cut(volume: Any, bounds: tuple[slice, ...]) -> MetaTensor:
    """Cut a box out; the affine goes along."""
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = torch.tensor([float(bound.start) for bound in bounds], dtype=torch.float64)
    affine = torch.as_tensor(volume.affine, dtype=torch.float64) @ shift
    return MetaTensor(volume.as_tensor()[(slice(None), *bounds)], affine=affine)
