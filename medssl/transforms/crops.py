"""Training crops as a pure function of (seed, number): exact to resume, whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from medssl.errors import ConfigError
from medssl.transforms.masking import plain
from medssl.transforms.mixture import Mixture
from medssl.transforms.order import shuffled
from medssl.transforms.volume_store import VolumeStore


class CropDataset(Dataset):
    """Preprocess every subject once, then hand out random crops.

    Crop ``n`` comes from subject ``permutation[n % len(data)]``, where the permutation is drawn anew
    for each pass, and from random numbers seeded by (seed, n) alone.

    Args:
        data: One mapping per labeled subject: ``subject``, ``image`` paths, ``label`` path, ``mask``?.
        preprocessing: Deterministic steps, applied once and cached.
        augmentation: Random steps, applied to each crop; may return a list of one sample.
        length: Number of crops of the whole training.
        seed: Seed of subjects, positions and changes.
        keys: Entries of a crop.
        prepared: Called with (done, all) after each subject, for progress.
        registered: Further prepared subjects: labeled scans that were warped into the shape of others.
        registered_share: Share of the crops that come from them, where there are any.
        store: Where prepared subjects are kept; None keeps all in memory.

    Notes:
        The cache holds the volumes cut to the brain: about 15 MB a subject at 1 mm with two contrasts.
    """

    def __init__(  # noqa: PLR0913 (a configuration hands its parts in by name)
        self,
        data: Sequence[Mapping[str, Any]],
        preprocessing: Callable[[Any], Any],
        augmentation: Compose,
        *,
        length: int,
        seed: int,
        keys: Sequence[str] = ("image", "label", "mask"),
        prepared: Callable[[int, int], None] | None = None,
        registered: Sequence[Any] = (),
        registered_share: float = 0.5,
        store: VolumeStore | None = None,
    ) -> None:
        self.data = list(data)
        self.augmentation = augmentation
        self.length = length
        self.seed = seed
        self.keys = tuple(keys)
        self.registered, self.registered_share = registered, registered_share
        self.store = store or VolumeStore()
        self.cache: list[Any] = []
        for done, item in enumerate(self.data, start=1):
            self.cache.append(self.store.keep(preprocessing(dict(item))))
            if prepared is not None:
                prepared(done, len(self.data))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        """Return crop ``number``: for each of the keys a tensor ``(channels, I, J, K)``."""
        crop_seed = int(np.random.default_rng((self.seed, 1, number)).integers(2**31))
        self.augmentation.set_random_state(seed=crop_seed)
        crop = self.augmentation(self._subject(number))
        crop = crop[0] if isinstance(crop, list) else crop  # some of MONAI's crops come in lists
        return {key: plain(crop[key]) for key in self.keys}

    def _subject(self, number: int) -> Any:
        """Return the prepared subject that crop ``number`` comes from."""
        if len(self.registered):
            chance = np.random.default_rng((self.seed, 2, number))
            if chance.random() < self.registered_share:
                return self.registered[int(chance.integers(len(self.registered)))]
        return self.cache[shuffled([number], len(self.cache), self.seed, 0)[0]]


class StepSampler(Sampler[int]):
    """Number the crops of a training run step by step, starting where a resumed run left off.

    In distributed training each process takes every ``world_size``-th crop of a step. Iterated, it gives the
    numbers of the labeled crops.

    Args:
        steps: Optimizer steps of the whole training.
        batch_size: Crops a step and process.
        mixture: How many of them are unlabeled; None for none.

    Raises:
        ConfigError: A step holds one crop, which leaves no room for both kinds.

    Attributes:
        start_step: Steps already done; set before the loader is iterated (`engines.ResumePoint`).
    """

    def __init__(self, steps: int, batch_size: int, mixture: Mixture | None = None) -> None:
        if mixture is not None and batch_size < 2 and not mixture.alternate:
            msg = f"A step of {batch_size} has no room for both labeled and unlabeled ones: none would be unlabeled."
            raise ConfigError(msg, "Set batch_size to 2 or more (of each process), or train supervised.")
        self.steps = steps
        self.batch_size = batch_size
        self.mixture = mixture
        self.start_step = 0

    def __len__(self) -> int:
        return sum(self.labeled(step) for step in range(self.start_step, self.steps))

    def __iter__(self) -> Iterator[int]:
        for step in range(self.start_step, self.steps):
            yield from self.numbers(step, self.labeled(step))

    def labeled(self, step: int) -> int:
        """Return how many labeled crops a step takes in each process."""
        return self.batch_size - self.unlabeled(step)

    def unlabeled(self, step: int) -> int:
        """Return how many unlabeled crops a step takes in each process."""
        return 0 if self.mixture is None else self.mixture.unlabeled(step, self.batch_size)

    def numbers(self, step: int, count: int) -> list[int]:
        """Return the numbers of the first ``count`` crops of a step that this process takes."""
        rank, world_size = _rank_and_world_size()
        first = step * self.batch_size * world_size
        return list(range(first + rank, first + count * world_size, world_size))


class PairedLoader:
    """Batches of labeled crops, with unlabeled ones beside them from a given step on.

    Args:
        dataset: Labeled crops.
        sampler: Numbers both kinds.
        batch_size: Crops a step, both kinds added up (the sampler's; named here for MONAI Label).
        unlabeled: Unlabeled crops, or None.
        num_workers: Processes that cut crops, for each kind.

    Yields:
        ``image (B, C, I, J, K)``, ``label``, ``mask (B, 1, I, J, K)``, and ``unlabeled``: the same of the
        unlabeled crops by their keys. A batch without labeled crops holds ``unlabeled`` only.
    """

    def __init__(
        self,
        dataset: CropDataset,
        sampler: StepSampler,
        batch_size: int,
        unlabeled: CropDataset | None = None,
        num_workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.batch_size = batch_size
        self.unlabeled = unlabeled
        self.num_workers = num_workers

    def __len__(self) -> int:
        return self.sampler.steps - self.sampler.start_step

    def __iter__(self) -> Iterator[dict[str, Any]]:
        steps = range(self.sampler.start_step, self.sampler.steps)
        labeled = self._batches(self.dataset, [self.sampler.labeled(step) for step in steps], steps)
        unlabeled = self._batches(self.unlabeled, [self.sampler.unlabeled(step) for step in steps], steps)
        for step in steps:
            batch: dict[str, Any] = dict(next(labeled)) if self.sampler.labeled(step) else {}
            if self.sampler.unlabeled(step):
                batch["unlabeled"] = next(unlabeled)
            yield batch

    def _batches(self, dataset: CropDataset | None, counts: list[int], steps: range) -> Iterator[Any]:
        if dataset is None or not any(counts):
            return
        numbers = [
            self.sampler.numbers(step, count) for step, count in zip(steps, counts, strict=True) if count
        ]
        generator = torch.Generator().manual_seed(dataset.seed)
        yield from DataLoader(
            dataset, batch_sampler=numbers, num_workers=self.num_workers, generator=generator
        )


def label_counts(dataset: CropDataset, labels: int) -> Tensor:
    """Count the voxels of each label in the labeled scans of a dataset of crops; see `counted_labels`."""
    return counted_labels(dataset.cache, labels)


def counted_labels(samples: Iterable[Mapping[Any, Any]], labels: int) -> Tensor:
    """Count the voxels of each label in prepared scans, in the mask.

    Args:
        samples: With ``label`` and ``mask``.
        labels: Number of labels, background included.

    Shapes:
        return: ``(labels,)`` float64
    """
    counts = torch.zeros(labels, dtype=torch.float64)
    for sample in samples:
        inside = plain(sample["label"])[plain(sample["mask"]) > 0.5].long()
        counts += torch.bincount(inside[inside < labels], minlength=labels)
    return counts


def _rank_and_world_size() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
