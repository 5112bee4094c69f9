"""Image batches as a pure function of (seed, step): exact to resume, changed as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl.errors import ConfigError
from medssl.transforms.crops import StepSampler
from medssl.transforms.image_augmentation import Augmentation
from medssl.transforms.image_pool import ImagePool
from medssl.transforms.order import shuffled, shuffled_by_class

UNLABELED_SEED = 1_000_000
"""Added to the seed for unlabeled images, so that they are not drawn like the labeled ones."""

_ORDER, _BALANCED = 0, 3
_WEAK, _STRONG, _VIEWS = 4, 5, 6
"""What random numbers are for; 1 and 2 belong to `CropDataset`."""


class ImageLoader:
    """Batches of labeled images, with unlabeled ones beside them from a given step on.

    Args:
        dataset: Labeled images.
        sampler: Numbers both kinds (`StepSampler`, whose mixture says how many are unlabeled).
        batch_size: Images a step, both kinds added up (the sampler's).
        unlabeled: Unlabeled images, or None.
        weak: Changes labeled images and the first view of unlabeled ones; None for no change.
        strong: Changes their second view; without it both views are one.
        views: Weak views of each unlabeled image, ``image`` the first of them; 0 for ``image`` alone.
        seed: Seed of order and changes.
        balanced: Draw every class equally often from the labeled images.
        labeled_strong: Change labeled images strongly too, as a second view ``strong``.
        device: Where images are changed: they are moved there as 8 bits.
        prefetch: Make the next batch in a thread while this one is used: pays where the network runs on a GPU.

    Yields:
        ``image (B, C, H, W)`` in [0, 1], ``label (B, 1)`` int64, ``weight (B, 1)`` where any image has one but 1,
        ``target (B, K)`` where the pool has targets, ``strong`` where asked for.
        ``unlabeled``: ``image`` (weak), ``strong``, ``mask (B, 1)`` of ones, ``index (B,)`` place in the pool,
        ``views (B, V, C, H, W)`` where asked for, ``target (B, K)`` where the pool has targets. A batch without
        labeled images holds ``unlabeled`` only.

    Raises:
        ConfigError: There is nothing to draw from, or the sampler counts otherwise.

    Notes:
        A pool is gone through in passes, each in a new order, without regard to the ends of batches: a batch
        may hold an image twice, each time changed by other random numbers. Targets are looked up when a batch
        is handed out, so that those of a new round count from its first step on.
    """

    def __init__(  # noqa: PLR0913 (a configuration hands its parts in by name)
        self,
        dataset: ImagePool,
        sampler: StepSampler,
        batch_size: int,
        unlabeled: ImagePool | None = None,
        *,
        weak: Augmentation | None = None,
        strong: Augmentation | None = None,
        views: int = 0,
        seed: int = 0,
        balanced: bool = False,
        labeled_strong: bool = False,
        device: str | torch.device = "cpu",
        prefetch: bool = False,
    ) -> None:
        _require_images(dataset, unlabeled, sampler, batch_size)
        self.dataset, self.unlabeled = dataset, unlabeled
        self.sampler = sampler
        self.batch_size = batch_size
        self.weak, self.strong, self.views = weak, strong, views
        self.seed = seed
        self.balanced, self.labeled_strong = balanced, labeled_strong
        self.device = torch.device(device)
        self.prefetch = prefetch
        self._weighted = bool((dataset.weight != 1).any())

    def __len__(self) -> int:
        return self.sampler.steps - self.sampler.start_step

    def __iter__(self) -> Iterator[dict[str, Any]]:
        steps = range(self.sampler.start_step, self.sampler.steps)
        for batch in _one_ahead(self.batch, steps) if self.prefetch else map(self.batch, steps):
            unlabeled = batch.get("unlabeled")
            if unlabeled is not None and self.unlabeled is not None and self.unlabeled.targets is not None:
                unlabeled["target"] = self.unlabeled.targets[unlabeled["index"]]
            yield batch

    def batch(self, step: int) -> dict[str, Any]:
        """Return the batch of a step, whatever came before; stored targets are added when it is handed out."""
        batch: dict[str, Any] = {}
        numbers = self.sampler.numbers(step, self.sampler.labeled(step))
        if numbers:
            batch = self._labeled(numbers)
        numbers = self.sampler.numbers(step, self.sampler.unlabeled(step))
        if numbers and self.unlabeled is not None:
            batch["unlabeled"] = self._unlabeled(self.unlabeled, numbers)
        return batch

    def _labeled(self, numbers: list[int]) -> dict[str, Any]:
        pool = self.dataset
        if self.balanced:
            places = shuffled_by_class(numbers, pool.label.numpy(), self.seed, _BALANCED)
        else:
            places = shuffled(numbers, len(pool), self.seed, _ORDER)
        place = torch.from_numpy(places)
        images = pool.at(place, self.device)
        weak = self._changed(images, self.weak, self.seed, _WEAK, numbers)
        batch = {"image": weak, "label": pool.label[place, None]}
        if self.labeled_strong:
            change = self.strong
            batch["strong"] = (
                weak if change is None else self._changed(images, change, self.seed, _STRONG, numbers)
            )
        if pool.targets is not None:
            batch["target"] = pool.targets[place]
        return batch | ({"weight": pool.weight[place, None]} if self._weighted else {})

    def _unlabeled(self, pool: ImagePool, numbers: list[int]) -> dict[str, Any]:
        seed = self.seed + UNLABELED_SEED
        place = torch.from_numpy(shuffled(numbers, len(pool), seed, _ORDER))
        images = pool.at(place, self.device)
        weak = self._changed(images, self.weak, seed, _WEAK, numbers)
        strong = weak if self.strong is None else self._changed(images, self.strong, seed, _STRONG, numbers)
        batch = {"image": weak, "strong": strong, "mask": torch.ones(len(place), 1), "index": place}
        if self.views:
            others = [
                self._changed(images, self.weak, seed, _VIEWS + view, numbers)
                for view in range(1, self.views)
            ]
            batch["views"] = torch.stack([weak, *others], 1)
        return batch

    def _changed(
        self, images: Tensor, change: Augmentation | None, seed: int, kind: int, numbers: list[int]
    ) -> Tensor:
        """Change images by random numbers that depend on the seed, the kind and the step alone."""
        if change is None:
            return images
        drawn = int(np.random.default_rng((seed, kind, numbers[0])).integers(2**63))
        return change(images, torch.Generator().manual_seed(drawn))


class OrderedLoader:
    """Batches of a pool in its own order, unchanged: to validate and to predict.

    Args:
        pool: Images.
        batch_size: Images a batch; the last one holds the rest.
        device: Where the images go.

    Yields:
        ``image (B, C, H, W)`` in [0, 1], ``label (B, 1)`` int64, ``index (B,)``.
    """

    def __init__(self, pool: ImagePool, batch_size: int, device: str | torch.device = "cpu") -> None:
        self.pool, self.batch_size, self.device = pool, batch_size, torch.device(device)

    def __len__(self) -> int:
        return math.ceil(len(self.pool) / self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for place in torch.arange(len(self.pool)).split(self.batch_size):
            if len(place):
                image = self.pool.at(place, self.device)
                yield {"image": image, "label": self.pool.label[place, None], "index": place}


def _one_ahead(make: Callable[[int], dict[str, Any]], steps: range) -> Iterator[dict[str, Any]]:
    """Make each batch in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        waiting = [thread.submit(make, step) for step in steps[:1]]
        for step in steps:
            batch = waiting.pop().result()
            if step + 1 in steps:
                waiting.append(thread.submit(make, step + 1))
            yield batch


def _require_images(
    dataset: ImagePool, unlabeled: ImagePool | None, sampler: StepSampler, batch_size: int
) -> None:
    if sampler.batch_size != batch_size:
        msg = f"Found batch_size {batch_size}, and a sampler that counts {sampler.batch_size} images a step."
        raise ConfigError(msg, "Give both the same.")
    if not len(dataset):
        msg = "There are no labeled images to train on."
        raise ConfigError(msg, "Give at least one image with its class.")
    if sampler.mixture is not None and not (unlabeled and len(unlabeled)):
        msg = "The sampler mixes unlabeled images in, and there are none."
        raise ConfigError(msg, "Give unlabeled images, or a sampler without a mixture.")
