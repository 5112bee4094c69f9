"""Labeled scans in the shape of unlabeled ones: more labeled crops, and a prior for the target distribution."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from medssl.engines import is_distributed, torch_rank
from medssl.transforms import CropDataset
from medssl.workflows.atlases import Atlases, AtlasOptions, Progress, register_atlases
from medssl.workflows.warping import WarpedAtlas

logger = logging.getLogger(__name__)

Item = Mapping[str, Any]
Sample = dict[Any, Any]

MEMORY_LIMIT = 2 * 2**30
"""Bytes that warped scans may take in memory; of more pairs an even choice is warped."""

BYTES_OF_MASK = 6
"""Of a voxel beside its image: label, mask, and number in the mask."""


@dataclass(frozen=True)
class Surroundings:
    """What a configuration cannot hand in: it depends on who runs it, and changes nothing in the result.

    Args:
        registered: Told about each pair.
        warped: Told about each scan that atlases are warped onto.
        folder: Keeps the registrations in place of the run's own, where several runs share them.
    """

    registered: Progress | None = None
    warped: Progress | None = None
    folder: Path | None = None


SURROUNDINGS: ContextVar[Surroundings | None] = ContextVar("surroundings", default=None)


class RegisteredScans(Sequence[Sample]):
    """Register the labeled scans to the unlabeled ones, warp them, and give each unlabeled scan its prior.

    A warped scan keeps its own intensities and its own labels, in the shape of another subject: its labels
    are right wherever the image is, even where the registration is not. It is what unlabeled scans teach
    about how subjects differ. The prior says where the classes are to be expected in the scan itself.

    Args:
        data: Labeled scans as items (`medssl.io.cohort.entries`).
        preprocessing: That of the labeled scans.
        unlabeled: Prepared unlabeled scans; each gets a ``prior (K, I, J, K)`` (float16), kept in their store.
        labels: K, background included.
        folder: ``registrations/`` in it keeps every pair, for a resumed run; see also `Surroundings`.
        nearest: So many of the most similar labeled scans are used for each unlabeled one; None: all.
        warp: Whether scans are warped; otherwise there are priors alone.
        memory_limit: Bytes that warped scans may take.
        processes: That register and warp at a time; None: as many as there are cores.
        register: Makes the registrations.

    Attributes:
        pairs: How many pairs of a labeled and an unlabeled scan could be registered.
        reached: Over how many of the unlabeled scans a labeled one could be laid, and how many there are.

    Notes:
        Where not a single pair can be registered, that is said, the priors are flat and no scan is warped.
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
        self.pairs = 0
        self.reached = (0, len(unlabeled.cache))
        if not unlabeled.cache or not data:
            return
        atlases = {str(sample["subject"]): sample for sample in (preprocessing(dict(item)) for item in data)}
        around = SURROUNDINGS.get() or Surroundings()
        with _first_process_first():
            found = register(
                list(atlases.values()),
                unlabeled.cache,
                around.folder or Path(folder),
                classes=labels,
                options=AtlasOptions(nearest=nearest, processes=processes),
                progress=around.registered,
            )
        targets = {str(target["subject"]): target for target in unlabeled.cache}
        pairs = [(name, atlas) for name in targets for atlas in found.nearest(name)]
        self.pairs = len(pairs)
        self.reached = (len({name for name, _ in pairs}), len(targets))
        if not pairs:
            logger.warning(
                "None of the labeled scans could be registered to any unlabeled scan of another subject: training goes "
                "on as with --prior class. Do they show the same part of the body?"
            )
        chosen = _that_fit(pairs, targets, memory_limit) if warp and pairs else []
        kept = {name: [atlas for target, atlas in chosen if target == name] for name in targets}
        samples: dict[tuple[str, str], Sample] = {}
        sharing = torch.distributed.get_world_size() if is_distributed() else 1
        for name, one in found.warped(kept, atlases, sharing=sharing, progress=around.warped):
            targets[name] |= unlabeled.store.keep({"prior": torch.as_tensor(one.prior)})
            for atlas, warped in one.atlases.items():
                samples[name, atlas] = _sample(targets[name], atlas, warped)
        self.samples = [samples[pair] for pair in chosen]
        logger.info(
            "%d of %d labeled scans in the shape of unlabeled ones; as many as fit into %.1f GiB",
            len(self.samples),
            len(pairs),
            memory_limit / 2**30,
        )

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


def _that_fit(
    pairs: Sequence[tuple[str, str]], targets: Mapping[str, Item], memory_limit: int
) -> list[tuple[str, str]]:
    """Choose pairs evenly, as many as memory may hold once they are warped."""
    sizes = [_bytes(targets[name]) for name, _ in pairs]
    count = min(len(pairs), int(memory_limit * len(pairs) / sum(sizes)))
    return [pairs[number] for number in np.unique(np.linspace(0, len(pairs) - 1, count).astype(int))]


def _sample(target: Item, atlas: str, warped: WarpedAtlas) -> Sample:
    """Make a prepared sample of a labeled scan on the grid of another one."""
    affine = target["image"].affine
    return {
        "subject": f"{atlas} in the shape of {target['subject']}",
        "image": MetaTensor(torch.as_tensor(warped.image), affine=affine),
        "label": MetaTensor(torch.as_tensor(warped.label)[None], affine=affine),
        "mask": torch.as_tensor(warped.mask)[None],
        "mask_fg_indices": np.flatnonzero(warped.mask).astype(np.int32),
    }


def _bytes(target: Item) -> int:
    """Return what a scan in the shape of a target takes in memory."""
    channels, *shape = target["image"].shape
    return int(np.prod(shape)) * (2 * channels + BYTES_OF_MASK)
