"""What all objectives share: one forward pass over both kinds of crops, two loss terms, a ramp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.functional.clustering import at_least_float32, cluster_mass
from medssl.functional.schedules import linear_ramp
from medssl.labels import UNKNOWN
from medssl.objectives.supervised import SupervisedLoss


class SemiSupervisedObjective(nn.Module):
    r"""Weigh the loss on labeled crops and a method's own term on unlabeled ones.

    .. math:: L = L_\mathrm{labeled} + \lambda \, a(t) \, L_\mathrm{unlabeled}

    Subclasses give `unlabeled_term`. Objectives hold no parameters of their own.

    Args:
        labeled_loss: Of scores and labels, and of the samples' weights where they have some; `SupervisedLoss`
            where not given.
        weight: :math:`\lambda`.
        start: Share of training at which the ramp a(t) leaves 0.
        end: Share at which it reaches 1.

    Raises:
        ConfigError: One of the three is no number (YAML reads "1,0" as a text).

    Attributes:
        views: Entries of the unlabeled batch that go through the network, one after the other.

    Notes:
        The four silent choices. Means run over the valid voxels of the batch, of all processes, each kind apart (the
        Dice term looks at the crops of one process together). The gradient
        stops at the targets. Both kinds go through the network in one forward pass, so that batch norm sees
        them together and a distributed step has one backward pass. Frequencies: see the subclasses.
    """

    views: tuple[str, ...] = ("strong",)

    def __init__(
        self,
        labeled_loss: Callable[..., Tensor] | None = None,
        *,
        weight: float = 1.0,
        start: float = 0.0,
        end: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in (("weight", weight), ("start", start), ("end", end)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                msg = f"The {name} of the unlabeled term is {value!r}; expected a number."
                raise ConfigError(msg, "Write it with a point, such as 0.5.")
        self.labeled_loss = SupervisedLoss() if labeled_loss is None else labeled_loss
        self.weight, self.start, self.end = weight, start, end

    def forward(self, network: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``loss``, ``pred`` and the named parts.

        Among these are ``n_labeled`` and ``n_unlabeled``: the voxels or images of all processes that each term's mean
        runs over.

        Args:
            network: Maps images to scores, background first.
            batch: ``image (B, C, I, J, K)``, ``label (B, 1, I, J, K)`` (255 unknown), perhaps ``weight (B, 1)``, and
                ``progress``; beside or instead of the first two ``unlabeled``: ``image``, ``strong (B, C, I, J, K)``,
                ``mask (B, 1, I, J, K)``, perhaps ``target (B, K, I, J, K)``. Whole images have labels and masks
                ``(B, 1)`` and targets ``(B, K)``.
        """
        unlabeled = batch.get("unlabeled")
        images = [batch["image"]] if "image" in batch else []
        if unlabeled is not None:
            images += [unlabeled[view] for view in self.views]
        scores = network(torch.cat(images))
        labeled = len(images[0]) if "image" in batch else 0
        first = int(getattr(getattr(network, "module", network), "first", 0))
        output = {"pred": scores, "loss": at_least_float32(scores.new_zeros(()))}
        if labeled:
            label = batch["label"]
            clustered = torch.where(label < first, UNKNOWN, label)
            output["loss_labeled"] = self.labeled_term(scores[:labeled], clustered, batch, first)
            share, output["n_labeled"] = share_and_count(clustered != UNKNOWN)
            output["loss"] = output["loss"] + share * output["loss_labeled"]
        if unlabeled is not None:
            valid = unlabeled["mask"][:, 0] > 0.5
            log_q = at_least_float32(scores[labeled:, first:]).log_softmax(1)
            term, parts = self.unlabeled_term(log_q, valid, unlabeled, first)
            ramp = linear_ramp(float(batch["progress"]), self.start, self.end)
            share, count = share_and_count(parts.pop("counted", valid))
            output["loss"] = output["loss"] + self.weight * ramp * share * term
            output |= {
                "loss_unlabeled": term,
                "n_unlabeled": count,
                "unlabeled_weight": torch.tensor(self.weight * ramp),
                "predicted_mass": over_processes(cluster_mass(log_q.exp(), _of_views(valid, log_q))),
                **parts,
            }
        return {name: value if name in ("loss", "pred") else value.detach() for name, value in output.items()}

    def labeled_term(self, scores: Tensor, label: Tensor, batch: Mapping[str, Any], first: int) -> Tensor:
        """Return the loss term of labeled crops: ``labeled_loss``, unless a subclass knows more.

        Args:
            scores: Of the labeled crops, all labels.
            label: Channel numbers; 255 unknown or without a cluster.
            batch: The whole batch.
            first: Number of the first label that has a cluster.

        Shapes:
            scores: ``(B, K, *spatial)``; label: ``(B, 1, *spatial)``
        """
        weight = batch.get("weight")
        return (
            self.labeled_loss(scores, label) if weight is None else self.labeled_loss(scores, label, weight)
        )

    def unlabeled_term(
        self, log_q: Tensor, valid: Tensor, unlabeled: Mapping[str, Tensor], first: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss term of unlabeled crops, and parts to log.

        Among the parts may be ``counted``: what the term's mean runs over, where that is less than ``valid``.

        Args:
            log_q: The student's log probabilities of its ``views``, one view after the other.
            valid: In the mask, which all views share.
            unlabeled: The batch of unlabeled crops.
            first: Number of the label that channel 0 of ``log_q`` stands for.

        Shapes:
            log_q: ``(len(views) * B, K, *spatial)``; valid: ``(B, *spatial)``
        """
        raise NotImplementedError


def _of_views(valid: Tensor, log_q: Tensor) -> Tensor:
    """Repeat a mask for the views of its images."""
    return valid.repeat(len(log_q) // max(1, len(valid)), *[1] * (valid.ndim - 1))


def _several_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def over_processes(mass: Tensor) -> Tensor:
    """Add up a mass over all processes of distributed training."""
    if _several_processes():
        torch.distributed.all_reduce(mass)
    return mass


def share_and_count(valid: Tensor) -> tuple[float, Tensor]:
    r"""Return what makes the average of the processes' means the mean over the valid elements of all, and their number.

    .. math:: \frac{W |V_r|}{\sum_s |V_s|}, \quad \sum_s |V_s|

    for process r of W, whose gradients distributed training averages; 1 and :math:`|V|` in a single process.
    """
    count = valid.sum().double()
    if not _several_processes():
        return 1.0, count
    total = over_processes(count.clone())
    return float(torch.distributed.get_world_size() * count / total.clamp_min(1)), total


def teacher_log_q(teacher: Callable[[Tensor], Tensor], image: Tensor, first: int) -> Tensor:
    """Return a teacher's log probabilities of the labels from ``first`` on, without a gradient."""
    with torch.no_grad():
        return at_least_float32(teacher(image)[:, first:]).log_softmax(1)


def mean_confidence(log_q: Tensor, valid: Tensor) -> Tensor:
    """Return the mean probability of the likeliest class over the valid voxels."""
    return (log_q.detach().amax(1).exp() * valid).sum() / valid.sum().clamp_min(1)
