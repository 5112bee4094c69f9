"""A tiny student, a tiny teacher, and a batch of both kinds of crops, or of both kinds of whole images."""

from __future__ import annotations

import copy
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


def _classifier(kind: str) -> nn.Module:
    features = 3 if kind == "clustering" else LABELS
    pooled = [nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    backbone = nn.Sequential(nn.Conv2d(2, 5, 3), *pooled, nn.Linear(5, features))
    with torch.no_grad():
        backbone[-1].weight *= 4  # so that some images are surer than others
    return ClusteringNetwork(backbone, 3, LABELS, background=True) if kind == "clustering" else backbone


def _drawn(count: int, generator: torch.Generator) -> Tensor:
    """Draw images that differ in brightness, so that predictions differ."""
    noise = torch.rand(count, 2, 6, 5, generator=generator)
    return noise + torch.randn(count, 2, 1, 1, generator=generator)


class ImageCase:
    """What an objective works on when it classifies whole images: no spatial axes in scores and labels."""

    def __init__(self, kind: str) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.network, self.teacher = _classifier(kind), _classifier(kind).eval()
        generator = torch.Generator().manual_seed(2)
        self.batch: dict[str, Any] = {
            "image": _drawn(5, generator),
            "label": torch.tensor([[2], [0], [UNKNOWN], [3], [1]]),
            "progress": 0.5,
        }
        self.draw(generator)

    def draw(self, generator: torch.Generator, count: int = 6) -> None:
        """Draw other unlabeled images; the third one lies outside of the mask, the first has no target."""
        mask, target = torch.ones(count, 1), torch.rand(count, LABELS, generator=generator) * 4
        target = target.softmax(1)
        mask[2], target[0] = 0, 0
        self.batch["unlabeled"] = {
            "image": _drawn(count, generator),
            "strong": _drawn(count, generator),
            "mask": mask,
            "target": target,
            "index": torch.randperm(8, generator=generator)[:count],
            "views": _drawn(2 * count, generator).unflatten(0, (count, 2)),
        }

    @property
    def unlabeled(self) -> dict[str, Tensor]:
        """The unlabeled images."""
        return self.batch["unlabeled"]

    def only(self, *keys: str) -> dict[str, Any]:
        """Return a part of the batch."""
        return {key: value for key, value in self.batch.items() if key in (*keys, "progress")}

    def joint(self, *views: str) -> list[list[list[float]]]:
        """Return the student's probabilities in float64: of the labeled images, then of each view of the others.

        All of them go through the network together, as batch norm demands.
        """
        images = [self.batch["image"], *[self.unlabeled[view] for view in views]]
        network = copy.deepcopy(self.network).double()
        with torch.no_grad():
            parts = network(torch.cat(images).double()).split([len(some) for some in images])
        return [softmax_rows(part) for part in parts]

    def taught(self, view: str = "image") -> list[list[float]]:
        """Return the teacher's probabilities in float64."""
        with torch.no_grad():
            return softmax_rows(copy.deepcopy(self.teacher).double()(self.unlabeled[view].double()))

    def valid(self) -> list[int]:
        """Return which unlabeled images count."""
        return torch.nonzero(self.unlabeled["mask"][:, 0] > 0.5).flatten().tolist()


def softmax_rows(scores: Tensor) -> list[list[float]]:
    """Return probabilities, image by image."""
    rows = []
    for row in scores.tolist():
        weights = [math.exp(value) for value in row]
        rows.append([weight / sum(weights) for weight in weights])
    return rows


@pytest.fixture(params=["softmax", "clustering"])
def images(request: pytest.FixtureRequest) -> ImageCase:
    """Return whole images with a softmax network, then with a clustering head that has all classes."""
    return ImageCase(request.param)


@pytest.fixture
def some_images() -> ImageCase:
    """Return whole images with the softmax network."""
    return ImageCase("softmax")


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
