"""Why a scan is worth a label, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from medssl.functional.selection import rank_share, standardized
from medssl.workflows.scan_measures import Measures

HIGH = 0.75
"""Share of the pool below a value from which the value is called high."""

UNLIKE_SD = 1.0
"""How far beyond every labeled scan a feature is, in standard deviations of all scans, to be named."""

TWIN = 0.5
"""A scan whose distance to an earlier one is below this share of the median distance is called like it."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known when words are looked for.

    Args:
        keys: Of all scans, the labeled ones first.
        scans: Their measures.
        distance: Between them, ``(N, N)``.
        labeled: How many are labeled.
        order: The others from the best on.
    """

    keys: Sequence[str]
    scans: Sequence[Measures]
    distance: Tensor
    labeled: int
    order: Sequence[int]

    def nearest_labeled(self, at: int) -> int | None:
        """Return the labeled scan that is most like one, None without labeled scans."""
        return int(self.distance[at, : self.labeled].argmin()) if self.labeled else None

    @cached_property
    def features(self) -> tuple[list[tuple[str, str]], Tensor]:
        """What a high and a low value of each feature is called, and standardized values, ``(N, F)``."""
        first = self.scans[0]
        names = [(f"more {label}", f"less {label}") for label in first.shares]
        names.append(("larger volume", "smaller volume"))
        for contrast, label in (name.rsplit(" ", 1) for name in first.means):
            names.append((f"brighter {label} in {contrast}", f"darker {label} in {contrast}"))
        rows = [[*one.shares.values(), one.volume_ml, *one.means.values()] for one in self.scans]
        return names, standardized(torch.tensor(rows, dtype=torch.float64))

    @cached_property
    def ranks(self) -> dict[str, Tensor]:
        """Share of the pool below each scan of the pool, by measure."""
        pool = self.scans[self.labeled :]
        found = {"entropy": rank_share(torch.tensor([one.entropy for one in pool], dtype=torch.float64))}
        if all(one.disagreement is not None for one in pool):
            found["disagreement"] = rank_share(
                torch.tensor([one.disagreement for one in pool], dtype=torch.float64)
            )
        return found

    @cached_property
    def median(self) -> float:
        """Median distance of two scans."""
        pairs = self.distance[torch.triu(torch.ones_like(self.distance, dtype=torch.bool), diagonal=1)]
        return float(pairs.median()) if pairs.numel() else 0.0


def reason(facts: Facts, place: int) -> str:
    """Say why a scan stands where it does.

    Args:
        facts: All scans.
        place: Of the scan in the order, from 0.
    """
    return "; ".join([*_unsure(facts, facts.order[place]), *_alike(facts, place)])


def _unsure(facts: Facts, at: int) -> Iterator[str]:
    """Say how unsure the network is, where, and between what."""
    one = facts.scans[at]
    entropy = float(facts.ranks["entropy"][at - facts.labeled])
    degree = "very uncertain" if entropy >= HIGH else "fairly sure" if entropy <= 1 - HIGH else "uncertain"
    border = f" at the {'/'.join(one.border)} border" if one.border else ""
    yield f"{degree}{border}, most in the {one.place} (mean entropy {one.entropy:.3f} nats)"
    apart = facts.ranks.get("disagreement")
    if apart is not None and float(apart[at - facts.labeled]) >= HIGH:
        yield "two predictions disagree more than in most scans"


def _alike(facts: Facts, place: int) -> Iterator[str]:
    """Say which scans it is like and unlike."""
    at = facts.order[place]
    earlier = [other for other in facts.order[:place] if facts.distance[at, other] < TWIN * facts.median]
    if earlier:
        nearest = min(earlier, key=lambda other: float(facts.distance[at, other]))
        yield f"much like {facts.keys[nearest]}, which stands above it"
        return
    nearest_labeled = facts.nearest_labeled(at)
    if nearest_labeled is None:
        return
    if facts.distance[at, nearest_labeled] < TWIN * facts.median:
        yield f"much like the labeled {facts.keys[nearest_labeled]}"
    else:
        yield from _unlike_labeled(facts, at)


def _unlike_labeled(facts: Facts, at: int) -> Iterator[str]:
    """Name the feature by which a scan is furthest beyond all labeled ones, if any is."""
    names, values = facts.features
    known = values[: facts.labeled]
    above, below = values[at] - known.amax(0), known.amin(0) - values[at]
    margin = torch.maximum(above, below)
    most = int(margin.argmax())
    if margin[most] >= UNLIKE_SD:
        yield f"{names[most][0 if above[most] > 0 else 1]} than in every labeled scan"
