"""Labeled scans in the shape of unlabeled ones: more labeled crops, and a prior for the target distribution."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import FgBgToIndicesd

from medssl.engines import torch_rank
from medssl.labels import UNKNOWN
from medssl.registration import Registration
from medssl.transforms import CropDataset
from medssl.workflows.atlases import Atlases, AtlasOptions, Progress, register_atlases

logger = logging.getLogger(__name__)

Item = Mapping[str, Any]
Sample = dict[Any, Any]

LIMIT = 200
"""At most so many warped scans are kept in memory; of more pairs an even choice."""


PROGRESS: ContextVar[Progress | None] = ContextVar("progress", default=None)
"""Told about each pair; a configuration cannot hand it in."""


class RegisteredScans(Sequence[Sample]):
    """Register the labeled scans to the unlabeled ones, warp them, and give each unlabeled scan its prior.

    A warped scan keeps its own intensities and its own labels, in the shape of another subject: its labels
    are right wherever the image is, even where the registration is not. It is what unlabeled scans teach
    about how subjects differ. The prior says where the classes are to be expected in the scan itself.

    Args:
        data: Labeled scans as items (`medssl.io.cohort.entries`).
        preprocessing: That of the labeled scans.
        unlabeled: Prepared unlabeled scans; each gets a ``prior (K, I, J, K)`` (float16).
        labels: K, background included.
        folder: ``registrations/`` in it keeps every pair, for a resumed run.
        nearest: So many of the most similar labeled scans are used for each unlabeled one.
        limit: Warped scans to keep in memory.
        processes: That register at a time; None: as many as there are cores.
        register: Makes the registrations.

    Notes:
        The sequence holds prepared samples like those of `CropDataset.cache`: ``image``, ``label``, ``mask``,
        indices of the mask. Zhao et al., Data augmentation using learned transformations for one-shot medical
        image segmentation, CVPR 2019, is the idea; the transformations are classical ones here.
    """

    def __init__(  # noqa: PLR0913 (a configuration hands its parts in by name)
        self,
        data: Sequence[Item],
        preprocessing: Callable[[Any], Any],
        unlabeled: CropDataset,
        *,
        labels: int,
        folder: str,
        nearest: int = 8,
        limit: int = LIMIT,
        processes: int | None = None,
        register: Callable[..., Atlases] = register_atlases,
    ) -> None:
        self.samples: list[Sample] = []
        if not unlabeled.cache or not data:
            return
        atlases = {str(sample["subject"]): sample for sample in (preprocessing(dict(item)) for item in data)}
        chosen = AtlasOptions(nearest=nearest, processes=processes)
        with _first_process_first():
            found = register(
                list(atlases.values()),
                unlabeled.cache,
                Path(folder),
                classes=labels,
                options=chosen,
                progress=PROGRESS.get(),
            )
        pairs: list[tuple[Item, Item, Registration]] = []
        for target in unlabeled.cache:
            name = str(target["subject"])
            target["prior"] = torch.as_tensor(found.prior(name))
            pairs += [(target, atlases[atlas], one) for atlas, one in found.nearest(name).items()]
        for number in np.unique(np.linspace(0, len(pairs) - 1, min(limit, len(pairs))).astype(int)):
            self.samples.append(warped_sample(*pairs[number], labels))
        logger.info("%d labeled scans in the shape of unlabeled ones", len(self.samples))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: Any) -> Any:
        """Return a warped scan with its image in float32."""
        sample = self.samples[number]
        return {**sample, "image": sample["image"].float()}


@contextmanager
def _first_process_first() -> Iterator[None]:
    """In distributed training let one process register; the others find its files."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if distributed and torch_rank() > 0:
        torch.distributed.barrier()
    yield
    if distributed and torch_rank() == 0:
        torch.distributed.barrier()


def warped_sample(target: Item, atlas: Item, registration: Registration, labels: int) -> Sample:
    """Warp a prepared labeled scan onto the grid of another one.

    Returns:
        ``image (C, I, J, K)`` float16, ``label (1, I, J, K)`` uint8 (unknown where less than half of a voxel has
        a known label), ``mask (1, I, J, K)`` uint8, and indices of the mask's voxels.
    """
    image = registration.warp_image(np.asarray(atlas["image"]))
    shares = registration.warp_labels(np.asarray(atlas["label"])[0], labels)
    mask = registration.warp_image(np.asarray(atlas["mask"], np.float32)) > 0.5
    label = np.where(shares.sum(0) >= 0.5, shares.argmax(0), UNKNOWN)[None]
    affine = target["image"].affine if isinstance(target["image"], MetaTensor) else None
    sample = {
        "subject": f"{atlas['subject']} in the shape of {target['subject']}",
        "image": MetaTensor(torch.as_tensor(image).half(), affine=affine),
        "label": MetaTensor(torch.as_tensor(label).to(torch.uint8), affine=affine),
        "mask": MetaTensor(torch.as_tensor(mask).to(torch.uint8), affine=affine),
    }
    return dict(FgBgToIndicesd(keys="mask")(sample))
