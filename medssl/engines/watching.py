"""What a semi-supervised run tells while it goes: its loss terms apart, and whether a class is vanishing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardHandler
from torch import Tensor

from medssl.engines.checkpoints import torch_rank
from medssl.functional.clustering import dead_clusters
from medssl.labels import BACKGROUND_IN_MASK

logger = logging.getLogger(__name__)

PARTS = ("loss_labeled", "loss_unlabeled", "unlabeled_weight", "confidence", "kept")
"""Scalars of an objective's output that are recorded."""

COUNTS = ("n_labeled", "n_unlabeled")
"""Voxels or images that the labeled and the unlabeled loss term of a step run over, recorded beside the `PARTS`."""


def scalars(output: Any) -> dict[str, float]:
    """Return those of the `PARTS` and `COUNTS` that an engine's output holds."""
    entries = output[0] if isinstance(output, list) else output
    return {name: float(entries[name]) for name in (*PARTS, *COUNTS) if name in entries}


class PartsToTensorBoard(TensorBoardHandler):
    """Write the loss terms of labeled and unlabeled crops and their voxels, weight, confidence, class shares as curves.

    Args:
        log_dir: Folder of the events.
        names: Of the classes, background included, for the shares that the network gives to each; none: no shares.
    """

    def __init__(self, log_dir: str, names: Sequence[str] = ()) -> None:
        super().__init__(log_dir=log_dir)
        self.names = list(names)

    def attach(self, engine: Engine) -> None:
        """Register the end of a step."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write one point a curve."""
        for name, value in scalars(engine.state.output).items():
            self._writer.add_scalar(f"train_{name}", value, engine.state.iteration)
        output = engine.state.output
        mass = (output[0] if isinstance(output, list) else output).get("predicted_mass")
        if mass is not None and self.names and float(mass.sum()) > 0:
            for name, share in zip(self.names[-len(mass) :], mass / mass.sum(), strict=True):
                self._writer.add_scalar(f"train_share_{name}", float(share), engine.state.iteration)


class VanishingClasses:
    """Warn when the predictions on unlabeled crops lose a class that the labeled scans have, each time that they do.

    Watches ``predicted_mass`` of the output: the voxels or images that the network that is trained gives to each class,
    averaged over epochs. (``mass``, what their targets give to it, where an objective has no other: targets that
    registered labels or an earlier round hold up would hide that the network loses a class.)

    Args:
        shares: Labeled voxels or images of each class, background included.
        names: Names of the classes, in the same order.
        least: Warn below this part of the labeled share.
        background: Whether the first class is background, which needs no labeled examples.
        first: Number of the first class that has a cluster; voxels of those before it are unknown to training.
    """

    def __init__(
        self,
        shares: Tensor,
        names: Sequence[str],
        least: float = 0.1,
        *,
        background: bool = True,
        first: int = 0,
    ) -> None:
        self.expected = shares.double() / shares.double().sum().clamp_min(1)
        self.names = list(names)
        self.least = least
        self.vanished: list[str] = []
        self._mass = torch.zeros(0)
        counted = list(zip(self.names, self.expected, strict=True))[int(background) :]
        absent = [name for name, share in counted if not float(share)]
        if absent and torch_rank() == 0:
            logger.warning(
                "No labeled example of %s for training: it cannot be learned. Label one, or leave the class out.",
                ", ".join(absent),
            )
        lost = float(self.expected[:first].sum())
        if lost > BACKGROUND_IN_MASK and torch_rank() == 0:
            logger.warning(
                "%.1f %% of the labeled voxels inside the mask are %s, which has no cluster here: they are taken as "
                "unknown. Give it one: --background_cluster true (medssl train: --set background_cluster=true).",
                100 * lost,
                ", ".join(self.names[:first]),
            )

    def attach(self, engine: Engine) -> None:
        """Register the events of the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._compare)

    def _reset(self, engine: Engine) -> None:
        self._mass = torch.zeros(0)

    def _collect(self, engine: Engine) -> None:
        output = engine.state.output
        output = output[0] if isinstance(output, list) else output
        mass = output.get("predicted_mass", output.get("mass"))
        if mass is not None and torch.isfinite(mass).all():  # otherwise the step was skipped
            self._mass = mass.cpu() if not len(self._mass) else self._mass + mass.cpu()

    def _compare(self, engine: Engine) -> None:
        if not len(self._mass) or not float(self._mass.sum()):
            return
        first = len(self.names) - len(self._mass)
        found = self._mass / self._mass.sum()
        expected = self.expected[first:] / self.expected[first:].sum().clamp_min(1e-12)
        for name, share, wanted in zip(self.names[first:], found, expected, strict=True):
            gone = float(wanted) > 0 and float(share) < self.least * float(wanted)
            if gone and name not in self.vanished:
                self.vanished.append(name)
                _warn_of_vanishing(name, float(share), float(wanted), engine.state.iteration)
            elif not gone and name in self.vanished:  # it is back: should it go again, that is told again
                self.vanished.remove(name)


def _warn_of_vanishing(name: str, share: float, wanted: float, step: int) -> None:
    if torch_rank() == 0:
        logger.warning(
            "%s is vanishing from the predictions on unlabeled data: %.2f %% of them at step %d against "
            "%.2f %% of the labeled ones. If the held-out score falls too, use target_rule 'soft' or "
            "'prior', a smaller unlabeled_weight, or more labels.",
            name,
            100 * share,
            step,
            100 * wanted,
        )


def warn_of_dead_clusters(number: int, mass: Tensor, names: Sequence[str], element: str) -> None:
    """Say which classes the targets of a round have lost: the frequency of their cluster is at its floor.

    Args:
        number: Of the round.
        mass: f, the mass of each cluster over the pool.
        names: Of the clusters.
        element: What is counted, such as "voxel of the unlabeled scans".

    Shapes:
        mass: ``(K,)``
    """
    dead = [names[cluster] for cluster in dead_clusters(mass)]
    if dead:
        logger.warning(
            "Round %d: no %s goes to %s; its targets stay finite, but the class is lost. Use the target rule 'soft' or "
            "'prior', or go back to the labeled-only network.",
            number,
            element,
            ", ".join(dead),
        )
