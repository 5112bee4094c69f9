"""Where the cluster centers start from, after a short warm-up on labeled crops or images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from medssl.engines.checkpoints import share_buffers


class CenterStart:
    """Move the centers of a clustering head after some steps from new weights; other networks are left alone.

    Args:
        network: Perhaps a `medssl.networks.ClusteringNetwork`.
        labeled: Labeled crops, or whole images with a label ``(1,)``.
        unlabeled: Unlabeled ones with a mask, may be empty (their ``cache`` is); "kmeans" uses them.
        step: Steps of warm-up before.
        start: "random" (trained from the first step on, as published), "class_means" or "kmeans", see
            `medssl.networks.ClusteringNetwork.start_centers`.
        restarts: Steps after which training begins from new weights again, beside its beginning.
        samples: Crops or images of either kind that the starts are made from, the first ones of each; all where there
            are fewer.
    """

    def __init__(
        self,
        network: nn.Module,
        labeled: Any,
        unlabeled: Any,
        step: int,
        start: str = "random",
        restarts: Sequence[int] = (),
        samples: int = 16,
    ) -> None:
        self.network = getattr(network, "module", network)
        self.labeled, self.unlabeled = labeled, unlabeled
        self.steps = {begin + step for begin in (0, *restarts)}
        self.start, self.samples = start, samples

    def attach(self, engine: Engine) -> None:
        """Register the start of a step."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Move the centers where this is the step."""
        if self.start == "random" or engine.state.iteration - 1 not in self.steps:
            return
        move = getattr(self.network, "start_centers", None)
        if move is not None:
            share_buffers(self.network)  # the same centers in every process
            device = next(self.network.parameters()).device
            unlabeled = self._some(self.unlabeled, "mask", device) if self.unlabeled.cache else ()
            move(self.start, self._some(self.labeled, "label", device), unlabeled)

    def _some(
        self, dataset: Iterable[Any], what: str, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images with their labels, or with their masks as booleans, one crop a batch."""
        for sample in islice(dataset, self.samples):
            beside = sample[what] > 0.5 if what == "mask" else sample[what].long()
            yield sample["image"][None].to(device), beside.to(device)
