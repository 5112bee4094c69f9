"""MixMatch: labeled images and guessed ones are mixed with one another, images and labels alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medssl.functional.clustering import cluster_mass
from medssl.functional.mixing import mixup, mixup_shares, sharpen
from medssl.functional.schedules import linear_ramp
from medssl.objectives.semi_supervised import SemiSupervisedObjective, over_processes
from medssl.objectives.supervised import SupervisedLoss


class MixMatch(SemiSupervisedObjective):
    r"""Cross-entropy on mixed labeled images and squared difference on mixed unlabeled ones.

    .. math:: L = -\frac{1}{|L|} \sum_{i \in L} \sum_j p_{ij} \log q_{ij}
              + \lambda \, a(t) \, \frac{1}{K |U|} \sum_{i \in U} \sum_j (q_{ij} - p_{ij})^2

    L are the labeled images and U all weak views of the unlabeled ones, each mixed with a partner drawn from
    the shuffled L and U together; p are the targets mixed alike, before that the labels and, for all views of
    an image, one guess: the mean prediction of its views, sharpened.

    Args:
        teacher: Guesses in the student's place, such as its moving average.
        temperature: Of the sharpening; 1 leaves the guess as it is.
        alpha: Of the Beta distribution of shares, see `functional.mixing.mixup_shares`; 0 mixes nothing.
        weight: :math:`\lambda`.
        start: Share of training at which the ramp a(t) leaves 0.
        end: Share at which it reaches 1.
        labeled_loss: Of batches without unlabeled images, which are not mixed; the cross-entropy where not given.

    Notes:
        A mixed image has the weight of the labeled image of which it holds the larger share.
        For images only, all of whose labels are known; masks are not looked at. The mean runs over samples and
        classes. Guesses carry no gradient and are made without dropout. Batch norm is updated once a step, by the
        pass over the views that guesses: what is predicted later are whole images, not mixed ones, whose statistics
        cost much accuracy (`docs/experiments.md`). Partners and shares are drawn from torch's global CPU
        random numbers, which the resume point holds: a resumed run goes on bit for bit. ``pred`` are the scores
        of the mixed images.

    Source:
        Berthelot et al.: MixMatch, NeurIPS 2019. The ramp over the first 40 % of the steps is USB's.
    """

    views = ("views",)

    def __init__(
        self,
        teacher: Callable[[Tensor], Tensor] | None = None,
        *,
        temperature: float = 0.5,
        alpha: float = 0.75,
        weight: float = 75.0,
        start: float = 0.0,
        end: float = 0.4,
        labeled_loss: Callable[..., Tensor] | None = None,
    ) -> None:
        loss = SupervisedLoss(dice_weight=0.0) if labeled_loss is None else labeled_loss
        super().__init__(loss, weight=weight, start=start, end=end)
        self.teacher = teacher
        self.temperature = temperature
        self.alpha = alpha

    def forward(self, network: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``loss``, ``pred`` and the named parts.

        Args:
            network: Maps images to scores.
            batch: ``image (B, C, H, W)``, ``label (B, 1)``, ``progress``, and ``unlabeled`` with
                ``views (B, V, C, H, W)``, V weak views of each image, one or more.
        """
        if batch.get("unlabeled") is None:
            return super().forward(network, batch)
        views = batch["unlabeled"]["views"]
        guess = self._guess(network, views)
        targets = sharpen(guess, self.temperature)
        images, mixed, labeled = self._mixed(batch, views, targets)
        with nullcontext() if _is_alone(views) else _statistics_kept(network):
            scores = network(images)
        log_q = scores.float().log_softmax(1)
        ramp = linear_ramp(float(batch["progress"]), self.start, self.end)
        term = (log_q[labeled:].exp() - mixed[labeled:]).square().mean()
        output = {"pred": scores, "loss": self.weight * ramp * term}
        if labeled:
            losses = -(mixed[:labeled] * log_q[:labeled]).sum(1)
            weight = batch["weight"][:, 0] if "weight" in batch else torch.ones_like(losses)
            output["loss_labeled"] = (weight * losses).sum() / weight.sum().clamp_min(1e-12)
            output["loss"] = output["loss_labeled"] + output["loss"]
            output["n_labeled"] = _number(mixed[:labeled])
        output |= {
            "loss_unlabeled": term,
            "n_unlabeled": _number(mixed[labeled:]),
            "unlabeled_weight": torch.tensor(self.weight * ramp),
            "confidence": guess.amax(1).mean(),
            "mass": cluster_mass(targets, torch.ones_like(targets[:, 0], dtype=torch.bool)),
        }
        return {name: value if name in ("loss", "pred") else value.detach() for name, value in output.items()}

    @torch.no_grad()
    def _guess(self, network: nn.Module, views: Tensor) -> Tensor:
        """Return the mean prediction of the views of each image."""
        images = views.flatten(0, 1)
        student = getattr(network, "module", network)
        with _evaluating_but_batch_norm(student, alone=_is_alone(views)):
            scores = student(images)
        if self.teacher is not None:
            scores = self.teacher(images)
        return scores.float().softmax(1).unflatten(0, views.shape[:2]).mean(1)

    def _mixed(self, batch: Mapping[str, Any], views: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return mixed images and targets, labeled ones first, and how many of them are labeled."""
        images, labels = [views.flatten(0, 1)], [targets.repeat_interleave(views.shape[1], 0)]
        if "image" in batch:
            images.insert(0, batch["image"])
            labels.insert(0, F.one_hot(batch["label"][:, 0].long(), targets.shape[1]).to(targets))
        together = torch.cat(images)
        partners = torch.randperm(len(together)).to(together.device)
        shares = mixup_shares(len(together), self.alpha).to(together.device)
        mixed, soft = mixup(together, torch.cat(labels), shares, partners)
        return mixed, soft, len(together) - len(images[-1])


def _number(images: Tensor) -> Tensor:
    """Count mixed images, over all processes."""
    return over_processes(images.new_tensor(len(images), dtype=torch.float64))


def _is_alone(views: Tensor) -> bool:
    """Tell whether there is one view of one image, which has no statistics of its own."""
    return views.shape[:2].numel() < 2


@contextmanager
def _evaluating_but_batch_norm(network: nn.Module, alone: bool) -> Iterator[None]:
    """Hold a network in evaluation mode, its batch norms in training unless an image is alone, then undo that."""
    modes = [(module, module.training) for module in network.modules()]
    for module, mode in modes:
        module.training = mode and isinstance(module, _BatchNorm) and not alone
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Let batch norms use the statistics of a batch without remembering them."""
    followed = [one for one in network.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
    for module in followed:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in followed:
            module.track_running_stats = True
