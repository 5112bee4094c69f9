"""How far registered labels are to be trusted: the exponent w that makes the truth of other scans likeliest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.functional.anatomy import log_anatomical_factor
from medssl.functional.clustering import cluster_mass, fused_assignment, log_target_distribution

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""What w is chosen from; 0 is no prior."""

LEAST_VOXELS = 1000
"""A class with fewer voxels in the held-out scans gets no w of its own."""

CLEAR_GAIN = 0.01
"""Share of the log likelihood that one w a class has to gain over a single one, on every scan."""

_PASSES = 2

Weight = float | tuple[float, ...]


@dataclass(frozen=True, eq=False)
class HeldOutScan:
    """The voxels of one labeled scan that the network was not trained on.

    Args:
        log_q: Log probabilities of the network.
        a: Prior of the other labeled scans' registered labels.
        label: True class numbers, 0 to K - 1.
        pi: Share of each class in the other labeled scans.

    Shapes:
        log_q, a: ``(K, N)``; label: ``(N,)``; pi: ``(K,)``
    """

    log_q: Tensor
    a: Tensor
    label: Tensor
    pi: Tensor


@dataclass(frozen=True)
class WeightChoice:
    """The w that was chosen, and what it was chosen from.

    Args:
        weight: One number, or one a class.
        likelihood: Candidate -> mean over scans of the mean log likelihood of the truth.
        dice: Candidate -> mean Dice of the likeliest class, over scans and classes.
        each: One w a class that was tried against a single one; None where there was too little to try it on.
    """

    weight: Weight
    likelihood: dict[Weight, float]
    dice: dict[Weight, float]
    each: tuple[float, ...] | None = None


def fused_target(scan: HeldOutScan, weight: Weight, rule: str) -> Tensor:
    r"""Return the log of the target that a scan would get, :math:`T(q \, a^w, f, \pi)`, f being the scan's own.

    Shapes:
        return: ``(K, N)``
    """
    factor = log_anatomical_factor(scan.a[None], torch.as_tensor(weight))
    fused = fused_assignment(scan.log_q[None].float(), factor)
    mass = cluster_mass(fused.exp(), torch.ones(1, fused.shape[2], dtype=torch.bool))
    return log_target_distribution(fused, rule, mass, scan.pi)[0]


def log_likelihood(log_p: Tensor, label: Tensor) -> float:
    r"""Return the mean log probability of the truth, :math:`\frac{1}{N} \sum_i \log p_{i, y_i}`.

    Shapes:
        log_p: ``(K, N)``; label: ``(N,)``
    """
    return float(log_p.double().gather(0, label[None].long()).mean())


def mean_dice(log_p: Tensor, label: Tensor, first: int = 0) -> float:
    """Return the mean Dice of the likeliest class over the classes from ``first`` on; those in neither are left out.

    Shapes:
        log_p: ``(K, N)``; label: ``(N,)``
    """
    found = log_p.argmax(0)
    scores = []
    for number in range(first, len(log_p)):
        sizes = int((found == number).sum() + (label == number).sum())
        if sizes:
            scores.append(2 * int(((found == number) & (label == number)).sum()) / sizes)
    return sum(scores) / max(1, len(scores))


def choose_weight(
    scans: Sequence[HeldOutScan], rule: str, grid: Sequence[float] = WEIGHTS, first: int = 0
) -> WeightChoice:
    """Choose the w under which the truth of held-out scans is likeliest; the smallest of those that tie.

    One w a class is taken in place of a single one if every class has `LEAST_VOXELS`, and if on each of two
    scans or more, both being chosen on the others, it gains `CLEAR_GAIN` of the log likelihood.

    Args:
        scans: Held-out labeled scans.
        rule: Target rule.
        grid: Candidates, rising.
        first: First class that Dice counts.

    Raises:
        ValueError: There is no scan.
    """
    if not scans:
        msg = "Found no held-out scan; expected one at least."
        raise ValueError(msg)
    one = _best_single(scans, rule, grid)
    each = _best_each(scans, rule, grid, one) if _enough_for_each(scans) else None
    wins = each is not None and _wins_elsewhere(scans, rule, grid)
    candidates: list[Weight] = [*grid, *([each] if each is not None else [])]
    targets = {weight: [fused_target(scan, weight, rule) for scan in scans] for weight in candidates}
    return WeightChoice(
        weight=each if each is not None and wins else one,
        likelihood={
            weight: _mean(log_likelihood(p, scan.label) for p, scan in zip(found, scans, strict=True))
            for weight, found in targets.items()
        },
        dice={
            weight: _mean(mean_dice(p, scan.label, first) for p, scan in zip(found, scans, strict=True))
            for weight, found in targets.items()
        },
        each=each,
    )


def _score(scans: Sequence[HeldOutScan], rule: str, weight: Weight) -> float:
    """Return the likelihood that is compared, rounded: what differs by less is a tie, whatever floats say."""
    return round(_mean(log_likelihood(fused_target(scan, weight, rule), scan.label) for scan in scans), 6)


def _best_single(scans: Sequence[HeldOutScan], rule: str, grid: Sequence[float]) -> float:
    return max(grid, key=lambda weight: _score(scans, rule, weight))


def _best_each(
    scans: Sequence[HeldOutScan], rule: str, grid: Sequence[float], start: float
) -> tuple[float, ...]:
    """Change one class's w at a time to the best one, from a single w on."""
    weights = [start] * len(scans[0].pi)
    for number in list(range(len(weights))) * _PASSES:
        tried = {w: (*weights[:number], w, *weights[number + 1 :]) for w in grid}
        weights[number] = max(tried, key=lambda w, tried=tried: _score(scans, rule, tried[w]))
    return tuple(weights)


def _wins_elsewhere(scans: Sequence[HeldOutScan], rule: str, grid: Sequence[float]) -> bool:
    """Tell whether one w a class, chosen on the other scans, is clearly better on each."""
    for number, scan in enumerate(scans):
        others = [*scans[:number], *scans[number + 1 :]]
        one = _best_single(others, rule, grid)
        single = _score([scan], rule, one)
        gain = _score([scan], rule, _best_each(others, rule, grid, one)) - single
        if gain < CLEAR_GAIN * abs(single):
            return False
    return True


def _enough_for_each(scans: Sequence[HeldOutScan]) -> bool:
    counts = sum(scan.label.bincount(minlength=len(scan.pi)) for scan in scans)
    return len(scans) > 1 and len(scans[0].pi) > 1 and int(torch.as_tensor(counts).min()) >= LEAST_VOXELS


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
