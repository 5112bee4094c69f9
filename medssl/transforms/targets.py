"""Stored targets: kept small inside the mask, made into a crop's target distribution when it is cut."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform
from torch import Tensor

from medssl.errors import ConfigError
from medssl.functional.clustering import RULES, cluster_mass, log_target_distribution
from medssl.functional.pseudo_label import pseudo_label
from medssl.labels import UNKNOWN
from medssl.transforms.masking import plain

HARD = "hard"
"""Target rule of offline pseudo-labels: one-hot at the arg max, unknown below a threshold."""

SCOPES = ("pool", "subject")
"""The set that frequencies are summed over: all unlabeled scans, or the scan itself."""


class Targets:
    """Teacher predictions of the unlabeled scans, and the rule that makes targets of them.

    A scan takes 2 bytes a class and voxel of the mask: about 5 MB at 1 mm with three classes.

    Args:
        rule: One of `RULES`, or "hard".
        scope: One of `SCOPES`; frequencies of "dec" and "prior".
        threshold: Least probability of a hard label.
        prior: Share of each class among the labeled voxels, for "prior".

    Raises:
        ConfigError: There is no such rule or scope.
    """

    def __init__(
        self, rule: str, scope: str = "pool", threshold: float = 0.0, prior: Tensor | None = None
    ) -> None:
        for what, found, known in (("rule", rule, (*RULES, HARD)), ("scope", scope, SCOPES)):
            if found not in known:
                msg = f"There is no target {what} '{found}'. Choose one of: {', '.join(known)}."
                raise ConfigError(msg)
        self.rule, self.scope, self.threshold, self.prior = rule, scope, threshold, prior
        self.log_q: dict[str, Tensor] = {}
        self.mass: dict[str, Tensor] = {}

    def put(self, subject: str, log_q: Tensor) -> None:
        """Keep a scan's prediction.

        Shapes:
            log_q: ``(K, N)``, the N voxels of the mask in the order of `IndexMaskd`
        """
        self.log_q[subject] = log_q.half()
        valid = torch.ones(1, log_q.shape[1], dtype=torch.bool)
        self.mass[subject] = cluster_mass(log_q.exp()[None], valid)

    def restore(self, subject: str, log_q: Tensor, mass: Tensor) -> None:
        """Keep a prediction that was stored in a file."""
        self.log_q[subject], self.mass[subject] = log_q, mass

    def frequencies(self, subject: str | None = None) -> Tensor:
        """Return f over the scan, or over all scans: summed in the order of their names."""
        if subject is not None and self.scope == "subject":
            return self.mass[subject]
        return torch.stack([self.mass[name] for name in sorted(self.mass)]).sum(0)

    def changed(self, before: Targets) -> float:
        """Return the share of mask voxels whose likeliest class differs from an earlier prediction."""
        moved = sum(
            int((now.float().argmax(0) != before.log_q[name].float().argmax(0)).sum())
            for name, now in self.log_q.items()
        )
        return moved / max(1, sum(now.shape[1] for now in self.log_q.values()))

    def confidence(self) -> float:
        """Return the mean probability of the likeliest class."""
        sums = [(float(q.float().exp().amax(0).sum()), q.shape[1]) for q in self.log_q.values()]
        return sum(total for total, _ in sums) / max(1, sum(count for _, count in sums))

    def look_up(self, subject: str, place: Tensor) -> Tensor:
        """Return the target distribution of some voxels.

        Args:
            subject: Whose voxels.
            place: Their numbers within the mask; -1 is outside.

        Returns:
            p; all zero outside the mask, and where a hard label is unsure.

        Shapes:
            place: ``(*spatial)`` int; return: ``(K, *spatial)`` float32
        """
        inside = place >= 0
        log_q = self.log_q[subject][:, place[inside].long()].float()[None]
        if self.rule == HARD:
            label = pseudo_label(log_q, self.threshold)[0]
            one_hot = torch.nn.functional.one_hot(label.clamp_max(log_q.shape[1]), log_q.shape[1] + 1)
            p = torch.where(label == UNKNOWN, 0, one_hot[:, :-1].T).float()
        else:
            p = log_target_distribution(log_q, self.rule, self.frequencies(subject), self.prior)[0].exp()
        target = torch.zeros(len(p), *place.shape)
        target[:, inside] = p
        return target


class IndexMaskd(Transform):
    """Number the voxels of the mask: ``place`` is -1 outside, 0 to N - 1 inside.

    Shapes:
        mask: ``(1, I, J, K)``; place: ``(1, I, J, K)`` int32
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with ``place``."""
        inside = plain(data["mask"]) > 0.5
        place = torch.full(inside.shape, -1, dtype=torch.int32)
        place[inside] = torch.arange(int(inside.sum()), dtype=torch.int32)
        return {**data, "place": place}


class LookUpTargetd(Transform):
    """Replace ``place`` by the ``target`` of the same voxels.

    Args:
        targets: Filled before the first crop of a round.
    """

    def __init__(self, targets: Targets) -> None:
        self.targets = targets

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with ``target (K, I, J, K)``."""
        sample = dict(data)
        sample["target"] = self.targets.look_up(str(sample["subject"]), plain(sample.pop("place"))[0])
        return sample


class NormalizeTargetd(Transform):
    """Make interpolated targets sum to 1 again; where hardly anything was there, all zero: no target."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with a normalized ``target``."""
        target = plain(data["target"])
        total = target.sum(0, keepdim=True)
        return {**data, "target": torch.where(total > 0.5, target / total.clamp_min(1e-6), 0.0)}
