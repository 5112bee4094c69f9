"""Where the cluster centers start from, after a short warm-up on labeled crops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from medssl.engines.checkpoints import share_buffers

CROPS = 16
"""Crops of either kind that the starts are made from."""


class CenterStart:
    """Move the centers of a clustering head after some steps from new weights; other networks are left alone.

    Args:
        network: Perhaps a `medssl.networks.ClusteringNetwork`.
        labeled: Labeled crops.
        unlabeled: Unlabeled crops, may be empty; "kmeans" uses them.
        step: Steps of warm-up before.
        start: "random" (trained from the first step on, as published), "class_means" or "kmeans", see
            `medssl.networks.ClusteringNetwork.start_centers`.
        restarts: Steps after which training begins from new weights again, beside its beginning.
    """

    def __init__(
        self,
        network: nn.Module,
        labeled: Any,
        unlabeled: Any,
        step: int,
        start: str = "random",
        restarts: Sequence[int] = (),
    ) -> None:
        self.network = getattr(network, "module", network)
        self.labeled, self.unlabeled = labeled, unlabeled
        self.steps = {begin + step for begin in (0, *restarts)}
        self.start = start

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
            unlabeled = _crops(self.unlabeled, "mask", device) if self.unlabeled.cache else ()
            move(self.start, _crops(self.labeled, "label", device), unlabeled)


def _crops(dataset: Sequence[Any], what: str, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images with their labels, or with their masks as booleans, one crop a batch."""
    for number in range(CROPS):
        crop = dataset[number]
        beside = crop[what] > 0.5 if what == "mask" else crop[what].long()
        yield crop["image"][None].to(device), beside.to(device)
