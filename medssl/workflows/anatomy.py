"""Labeled scans in the shape of unlabeled ones: more labeled crops, and a prior for the target distribution."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from medssl.engines import is_distributed, torch_rank
from medssl.errors import RegistrationError
from medssl.labels import UNKNOWN
from medssl.registration import Registration
from medssl.transforms import CropDataset
from medssl.workflows.atlases import Atlases, AtlasOptions, Progress, register_atlases

logger = logging.getLogger(__name__)

Item = Mapping[str, Any]
Sample = dict[Any, Any]

MEMORY_LIMIT = 2 * 2**30
"""Bytes that warped scans may take in memory; of more pairs an even choice is warped."""

BYTES_OF_MASK = 6
"""Of a voxel beside its image: label, mask, and number in the mask."""


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
        nearest: So many of the most similar labeled scans are used for each unlabeled one; None: all.
        warp: Whether scans are warped; otherwise there are priors alone.
        memory_limit: Bytes that warped scans may take.
        processes: That register at a time; None: as many as there are cores.
        register: Makes the registrations.

    Raises:
        RegistrationError: Not a single pair could be registered.

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
        nearest: int | None = None,
        warp: bool = True,
        memory_limit: int = MEMORY_LIMIT,
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
        pairs: list[tuple[Item, Item, Path]] = []
        for target in unlabeled.cache:
            name = str(target["subject"])
            target["prior"] = torch.as_tensor(found.prior(name))
            pairs += [(target, atlases[atlas], found.files[name][atlas]) for atlas in found.nearest(name)]
        if not pairs:
            msg = "None of the labeled scans could be registered to any unlabeled scan of another subject."
            raise RegistrationError(msg, "Look at the log, or train with --prior class.")
        if not warp:
            return
        sizes = [_bytes(target) for target, _, _ in pairs]
        count = min(len(pairs), int(memory_limit * len(pairs) / sum(sizes)))
        for number in np.unique(np.linspace(0, len(pairs) - 1, count).astype(int)):
            target, atlas, path = pairs[number]
            self.samples.append(warped_sample(target, atlas, Registration.load(path), labels))
        logger.info("%d labeled scans in the shape of unlabeled ones", len(self.samples))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: Any) -> Any:
        """Return a warped scan, as small as it is kept; its crops become float32."""
        return self.samples[number]


@contextmanager
def _first_process_first() -> Iterator[None]:
    """In distributed training let one process register, for hours if need be; the others find its files."""
    if not is_distributed():
        yield
        return
    patient = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=2))
    if torch_rank() > 0:
        torch.distributed.barrier(patient)
    try:
        yield
    finally:
        if torch_rank() == 0:
            torch.distributed.barrier(patient)


def warped_sample(target: Item, atlas: Item, registration: Registration, labels: int) -> Sample:
    """Warp a prepared labeled scan onto the grid of another one.

    Returns:
        ``image (C, I, J, K)`` float16, ``label (1, I, J, K)`` uint8 (unknown where less than half of a voxel has
        a known label), ``mask (1, I, J, K)`` bool and the numbers of its voxels.
    """
    image = registration.warp_image(np.asarray(atlas["image"]))
    shares = registration.warp_labels(np.asarray(atlas["label"])[0], labels)
    mask = registration.warp_image(np.asarray(atlas["mask"], np.float32)) > 0.5
    label = np.where(shares.sum(0) >= 0.5, shares.argmax(0), UNKNOWN)[None]
    affine = target["image"].affine
    return {
        "subject": f"{atlas['subject']} in the shape of {target['subject']}",
        "image": MetaTensor(torch.as_tensor(image).half(), affine=affine),
        "label": MetaTensor(torch.as_tensor(label).to(torch.uint8), affine=affine),
        "mask": torch.as_tensor(mask)[None],
        "mask_fg_indices": np.flatnonzero(mask).astype(np.int32),
    }


def _bytes(target: Item) -> int:
    """Return what a scan in the shape of a target takes in memory."""
    channels, *shape = target["image"].shape
    return int(np.prod(shape)) * (2 * channels + BYTES_OF_MASK)
