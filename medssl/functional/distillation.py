"""Distillation: what several teachers and views agree on, and which of it a student shall learn.

One engine for plain, data, model and data-model distillation: they differ in the passes alone, M = m(t+1) of m
teachers over t changed views and the unchanged one. Neither the order of passes nor that of images counts,
down to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medssl.errors import ConfigError, InputError
from medssl.functional.clustering import at_least_float32
from medssl.functional.divergence import masked_kl

REDUCTIONS = ("mean_prob", "vote")
"""How passes become one label, see `consensus`."""

KEEP_RULES = ("threshold", "per_class_threshold", "top_k_per_class", "percentile")
"""Which labels are kept, see `kept_images`."""


@dataclass(frozen=True)
class Consensus:
    """What the passes say about each image.

    Args:
        label: Class number, int64.
        confidence: Of that class, float64.

    Shapes:
        label, confidence: ``(N,)``
    """

    label: Tensor
    confidence: Tensor


def mean_probabilities(passes: Tensor) -> Tensor:
    r"""Average the probabilities of all passes, :math:`\bar p(x) = \frac{1}{M} \sum_m p_m(x)`, in float64.

    Args:
        passes: Probabilities of each teacher for each view.

    Raises:
        InputError: A pass holds something else than finite numbers.

    Shapes:
        passes: ``(M, N, K)``; return: ``(N, K)``

    Notes:
        Sorted before they are added: the same passes in another order give the same bits.
    """
    broken = torch.nonzero(~passes.isfinite().flatten(1).all(1)).flatten().tolist()
    if broken:
        msg = f"Pass {broken[0] + 1} of {len(passes)} holds probabilities that are no finite numbers."
        raise InputError(msg, "Look at the loss of that teacher's training; leave the teacher out.")
    return _sum_in_any_order(passes) / len(passes)


def consensus(passes: Tensor, reduce: str = "mean_prob") -> Consensus:
    r"""Return the label that all passes together give each image.

    Args:
        passes: Probabilities of each teacher for each view.
        reduce: "mean_prob": the likeliest class of the mean probabilities, which are its confidence. "vote":
            the likeliest class of most passes, ties broken by the mean probability; its confidence is
            the mean confidence of the passes that vote for it.

    Raises:
        ConfigError: The reduction is unknown.
        InputError: A pass holds something else than finite numbers.

    Shapes:
        passes: ``(M, N, K)``
    """
    if reduce not in REDUCTIONS:
        msg = f"There is no reduction '{reduce}'. Choose one of: {', '.join(REDUCTIONS)}."
        raise ConfigError(msg)
    mean = mean_probabilities(passes)
    if reduce == "mean_prob":
        confidence, label = mean.max(1)
        return Consensus(label, confidence)
    best, choice = passes.max(2)
    votes = F.one_hot(choice, passes.shape[2]).sum(0)
    most, _ = votes.max(1, keepdim=True)
    label = torch.where(votes == most, mean, -1.0).argmax(1)
    return Consensus(label, _sum_in_any_order(torch.where(choice == label, best, 0.0)) / most[:, 0])


def teacher_votes(passes: Tensor, label: Tensor, views: int) -> Tensor:
    r"""Count the teachers whose mean over their views is likeliest for a class, :math:`\arg\max_c \bar p_i(c) = y`.

    Args:
        passes: Probabilities of each teacher for each view, the views of the first teacher first.
        label: y, the class of each image.
        views: Of an image that each teacher saw.

    Shapes:
        passes: ``(M, N, K)``, M teachers times views; label, return: ``(N,)``, the latter int64
    """
    teachers = [mean_probabilities(own) for own in passes.split(views)]
    return torch.stack([own.argmax(1) == label for own in teachers]).sum(0)


def kept_images(
    found: Consensus,
    rule: str = "threshold",
    *,
    value: float | Sequence[float] = 0.8,
    balance: float | None = None,
    most: int | None = None,
    order: Tensor | None = None,
    before: Tensor | None = None,
) -> Tensor:
    """Choose the images that a student learns from: by a rule, then balanced, then no more than a number.

    Args:
        found: What the passes say.
        rule: "threshold": confidence above ``value``; "per_class_threshold": above the value of its class;
            "top_k_per_class": the ``value`` surest of each class; "percentile": the surest images, above
            that percentile of the confidences. Thresholds are strict: 1 keeps none, 0 keeps all.
        value: See above; a list over the classes for "per_class_threshold".
        balance: Keep no more than this many times as many of a class as of the scarcest one that is kept.
        most: Keep no more images than that, the surest; balanced ones class by class in turn. Such as the
            number of labeled images times a cap.
        order: Number of each image that decides between equally sure ones, least first, such as the place of
            its name in the sorted names; the place in the list where not given.
        before: Labels of each class that earlier rounds kept; they count for ``balance`` and ``most`` alone.

    Raises:
        ConfigError: The rule is unknown, or a number is out of range.

    Shapes:
        order, return: ``(N,)``, the latter bool; before: ``(K,)``
    """
    require_keep_rule(rule, value, balance, most)
    keep = _kept_by_rule(found, rule, value, order)
    rank = torch.zeros_like(found.label)
    if balance is not None:
        keep = class_balanced(keep, found.label, found.confidence, balance, order, before)
        rank = _rank(found.confidence, order, torch.where(keep, found.label, -1))
    if most is not None:
        most -= 0 if before is None else int(before.sum())
        keep = keep & (_rank(found.confidence, order, (~keep).long(), rank) < most)
    return keep


def require_keep_rule(
    rule: str, value: float | Sequence[float], balance: float | None = None, most: int | None = None
) -> None:
    """Check the arguments of `kept_images`, so that a typing error stops a run before its teachers are trained.

    Raises:
        ConfigError: The rule is unknown, or a number is out of range.
    """
    if rule not in KEEP_RULES:
        msg = f"There is no keep rule '{rule}'. Choose one of: {', '.join(KEEP_RULES)}."
        raise ConfigError(msg)
    expected, lowest, highest = {
        "threshold": ("one threshold from 0 to 1", 0, 1),
        "per_class_threshold": ("a threshold from 0 to 1 for each class", 0, 1),
        "top_k_per_class": ("a whole number of images", 0, math.inf),
        "percentile": ("one percentile from 0 to 100", 0, 100),
    }[rule]
    several = isinstance(value, Sequence)
    values = list(value) if isinstance(value, Sequence) else [value]
    whole = rule != "top_k_per_class" or all(float(number).is_integer() for number in values)
    if (
        several != (rule == "per_class_threshold")
        or not all(lowest <= v <= highest for v in values)
        or not whole
    ):
        msg = f"The keep rule '{rule}' found {value}; expected {expected}."
        raise ConfigError(msg)
    if (balance is not None and not balance >= 1) or (most is not None and not most >= 0):
        msg = (
            f"Found balance={balance} and most={most}; expected a ratio of at least 1 and no negative number."
        )
        raise ConfigError(msg)


def _kept_by_rule(
    found: Consensus, rule: str, value: float | Sequence[float], order: Tensor | None
) -> Tensor:
    if isinstance(value, Sequence):
        return above_class_thresholds(found.label, found.confidence, value)
    if rule == "top_k_per_class":
        return top_k_per_class(found.label, found.confidence, int(value), order)
    if rule == "percentile":
        return above_percentile(found.confidence, value, order)
    return above_threshold(found.confidence, value)


def above_threshold(confidence: Tensor, threshold: float) -> Tensor:
    """Keep what is surer than a threshold, strictly: 1 keeps none, rounding errors above 1 included.

    Shapes:
        confidence, return: ``(N,)``
    """
    return confidence.double().clamp_max(1) > threshold


def above_class_thresholds(label: Tensor, confidence: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Keep what is surer than the threshold of its class, strictly.

    Raises:
        ConfigError: A class has no threshold.

    Shapes:
        label, confidence, return: ``(N,)``; thresholds: ``(K,)``
    """
    if len(label) and int(label.max()) >= len(thresholds):
        msg = f"Found {len(thresholds)} thresholds for class number {int(label.max())}; expected one a class."
        raise ConfigError(msg, "Give as many thresholds as there are classes, in their order.")
    own = torch.tensor(thresholds, dtype=torch.float64, device=label.device)[label]
    return confidence.double().clamp_max(1) > own


def top_k_per_class(label: Tensor, confidence: Tensor, k: int, order: Tensor | None = None) -> Tensor:
    """Keep the k surest images of each class.

    Args:
        label: Class numbers.
        confidence: Of these.
        k: How many; all of a class that has fewer.
        order: See `kept_images`.

    Shapes:
        label, confidence, order, return: ``(N,)``
    """
    return _rank(confidence, order, label) < k


def above_percentile(confidence: Tensor, percentile: float, order: Tensor | None = None) -> Tensor:
    """Keep the surest images: 80 keeps a fifth of them, 0 all, 100 none.

    Args:
        confidence: Of each image.
        percentile: 0 to 100.
        order: See `kept_images`.

    Shapes:
        confidence, order, return: ``(N,)``
    """
    most = math.floor(len(confidence) * (100 - percentile) / 100 + 1e-9)
    return _rank(confidence, order) < most


def class_balanced(
    keep: Tensor,
    label: Tensor,
    confidence: Tensor,
    ratio: float = 1.0,
    order: Tensor | None = None,
    before: Tensor | None = None,
) -> Tensor:
    """Keep no more of a class than ``ratio`` times as many as of the scarcest class of which any are kept.

    Args:
        keep: What is kept so far.
        label: Class numbers.
        confidence: Of these; the surest stay.
        ratio: 1 or more.
        order: See `kept_images`.
        before: Labels of each class that earlier rounds kept, which count too.

    Shapes:
        keep, label, confidence, order, return: ``(N,)``; before: ``(K,)``

    Notes:
        A class of which nothing was kept cannot be balanced and does not count.
    """
    if not keep.any():
        return keep
    classes = int(label.max()) + 1
    before = label.new_zeros(classes) if before is None else before.to(label)
    counts = before + label[keep].bincount(minlength=len(before))
    most = math.floor(ratio * int(counts[counts > 0].min()) + 1e-9)
    return keep & (_rank(confidence, order, torch.where(keep, label, -1)) < (most - before)[label])


def softened_divergence(target: Tensor, log_q: Tensor, valid: Tensor, temperature: float = 4.0) -> Tensor:
    r"""Return Hinton's distillation term, the divergence of two softened distributions.

    .. math:: T^2 \, \mathrm{KL}\left(\mathrm{softmax}(\log p / T) \,\|\, \mathrm{softmax}(\log q / T)\right)

    Args:
        target: p, the teacher's probabilities as they are, constants; :math:`\log p` takes the place of its
            scores, from which it differs by a number that the softmax does not see.
        log_q: The student's log probabilities.
        valid: Which elements count.
        temperature: T; T squared makes up for gradients that shrink with 1/T squared.

    Returns:
        Mean over the valid elements; exactly 0, with a graph, if there is none.

    Shapes:
        target, log_q: ``(B, K, *spatial)``; valid: ``(B, *spatial)`` bool

    Source:
        Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015, section 2.
    """
    log_p = (at_least_float32(target.detach()).log() / temperature).log_softmax(1)
    return temperature**2 * masked_kl(log_p, (log_q / temperature).log_softmax(1), valid)


def _sum_in_any_order(passes: Tensor) -> Tensor:
    """Add along the first axis, each element by itself and from the least on, in float64."""
    total = torch.zeros(passes.shape[1:], dtype=torch.float64, device=passes.device)
    for values in passes.double().sort(0).values:
        total = total + values
    return total


def _rank(
    confidence: Tensor, order: Tensor | None, group: Tensor | None = None, first: Tensor | None = None
) -> Tensor:
    """Return the place of each image within its group: by ``first``, then from the surest on, then by order."""
    N = len(confidence)
    group = torch.zeros(N, dtype=torch.int64, device=confidence.device) if group is None else group
    place = torch.arange(N, device=confidence.device)
    for key in (order, -confidence.double(), first, group):  # the last sorting counts most
        if key is not None:
            place = place[key.to(place.device)[place].argsort(stable=True)]
    _, sizes = torch.unique_consecutive(group[place], return_counts=True)
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    rank = torch.empty_like(place)
    rank[place] = torch.arange(N, device=place.device) - starts
    return rank
