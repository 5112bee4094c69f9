"""A tiny student, a tiny teacher, and a batch of both kinds of crops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medssl.labels import UNKNOWN
from medssl.networks import ClusteringNetwork

LABELS = 4


def _network(kind: str) -> nn.Module:
    if kind == "clustering":
        return ClusteringNetwork(nn.Conv3d(2, 3, 1), 3, LABELS)
    return nn.Conv3d(2, LABELS, 1)


class Case:
    """What an objective works on, and how to walk through it voxel by voxel."""

    def __init__(self, kind: str) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.network, self.teacher = _network(kind), _network(kind)
        self.first = int(getattr(self.network, "first", 0))
        generator = torch.Generator().manual_seed(1)
        label = torch.randint(0, LABELS, (2, 1, 3, 2, 2), generator=generator)
        label[0, 0, 0] = UNKNOWN
        target = torch.rand(3, LABELS - self.first, 3, 2, 2, generator=generator).softmax(1)
        target[0, :, 1] = 0
        mask = (torch.rand(3, 1, 3, 2, 2, generator=generator) < 0.7).float()
        mask[0, 0, 1] = 1
        mask[0, 0, 2] = 0
        self.batch: dict[str, Any] = {
            "image": torch.randn(2, 2, 3, 2, 2, generator=generator),
            "label": label,
            "progress": 0.5,
            "unlabeled": {
                "image": torch.randn(3, 2, 3, 2, 2, generator=generator),
                "strong": torch.randn(3, 2, 3, 2, 2, generator=generator),
                "mask": mask,
                "target": target,
            },
        }

    @property
    def unlabeled(self) -> dict[str, Tensor]:
        """The unlabeled crops."""
        return self.batch["unlabeled"]

    def only(self, *keys: str) -> dict[str, Any]:
        """Return a part of the batch."""
        return {key: value for key, value in self.batch.items() if key in (*keys, "progress")}

    def assignments(self, network: nn.Module, view: str) -> list[list[float]]:
        """Return the probabilities of each in-mask voxel of the unlabeled crops."""
        with torch.no_grad():
            scores = network(self.unlabeled[view])[:, self.first :]
        found = []
        for b, i, j, k in self.voxels():
            weights = [math.exp(value) for value in scores[b, :, i, j, k].tolist()]
            found.append([weight / sum(weights) for weight in weights])
        return found

    def voxels(self) -> list[list[int]]:
        """Return the in-mask voxels of the unlabeled crops."""
        return torch.nonzero(self.unlabeled["mask"][:, 0] > 0.5).tolist()


@pytest.fixture(params=["softmax", "clustering"])
def case(request: pytest.FixtureRequest) -> Case:
    """Return a case with a softmax network, then one with a clustering head that excludes background."""
    return Case(request.param)


@pytest.fixture
def softmax() -> Case:
    """Return the case with the softmax network."""
    return Case("softmax")


@pytest.fixture
def clustered() -> Case:
    """Return the case with the clustering head."""
    return Case("clustering")
