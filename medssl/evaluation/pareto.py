"""Which networks are worth choosing from: none other is better, faster and smaller at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite


@dataclass(frozen=True)
class Candidate:
    """A network as it would be installed.

    Args:
        name: Of the network and its precision, such as "mixnet_s, int8".
        macro_f1: 0 to 1, on held-out images.
        p50_ms: Median latency of one image on the target, in ms.
        size_mb: Of the file, in MB.
        backend: What ran it in that time; "" where that is plain.
    """

    name: str
    macro_f1: float
    p50_ms: float
    size_mb: float
    backend: str = ""

    @property
    def measured(self) -> bool:
        """Whether all three numbers are known."""
        return all(isfinite(value) for value in (self.macro_f1, self.p50_ms, self.size_mb))


@dataclass(frozen=True)
class Choice:
    """The answer to "which is the best that fits?".

    Args:
        best: None where nothing fits.
        admissible: Everything that fits, the best first.
        sentence: For people.
    """

    best: Candidate | None
    admissible: tuple[Candidate, ...]
    sentence: str


def dominates(first: Candidate, second: Candidate) -> bool:
    """Tell whether the first is at least as good in everything and better in something."""
    ahead = (
        first.macro_f1 - second.macro_f1,
        second.p50_ms - first.p50_ms,
        second.size_mb - first.size_mb,
    )
    return min(ahead) >= 0 and max(ahead) > 0


def non_dominated(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that no other one dominates, the fastest first.

    A candidate with an unmeasured number is left out. Equal ones stay together.
    """
    measured = [one for one in candidates if one.measured]
    front = [one for one in measured if not any(dominates(other, one) for other in measured)]
    return tuple(sorted(front, key=lambda one: (one.p50_ms, one.size_mb, one.name)))


def best_within(
    candidates: Sequence[Candidate], *, max_mb: float | None = None, max_ms: float | None = None
) -> Choice:
    """Return the candidate of the highest macro F1 that keeps to the limits, or say that there is none.

    Args:
        candidates: Measured on the same images and the same machine; unmeasured ones cannot be chosen.
        max_mb: Largest file allowed, in MB.
        max_ms: Longest median latency allowed, in ms.

    Notes:
        Of equal macro F1 the faster wins, then the smaller, then the name that comes first. The macro F1 of
        a best of many is a little too good: confirm it on images that did not choose it.
    """
    limit_mb, limit_ms = (inf if limit is None else limit for limit in (max_mb, max_ms))
    fitting = [
        one for one in candidates if one.measured and one.size_mb <= limit_mb and one.p50_ms <= limit_ms
    ]
    fitting.sort(key=lambda one: (-one.macro_f1, one.p50_ms, one.size_mb, one.name))
    best = fitting[0] if fitting else None
    told = _sentence(best, len(fitting), candidates, _limits(max_mb, max_ms), limit_mb, limit_ms)
    return Choice(best, tuple(fitting), told)


def _sentence(
    best: Candidate | None,
    fitting: int,
    candidates: Sequence[Candidate],
    limits: str,
    max_mb: float,
    max_ms: float,
) -> str:
    unmeasured = sum(not one.measured for one in candidates)
    left_out = f" {unmeasured} of them lack a measurement." if unmeasured else ""
    if candidates and not any(isfinite(one.macro_f1) for one in candidates):
        kept = [one.name for one in candidates if one.size_mb <= max_mb and one.p50_ms <= max_ms]
        told = "None can be chosen, since none was scored: give images with labels to validate on."
        if not limits:
            return told
        named = f" ({', '.join(kept)})" if kept else ""
        return f"{told} {len(kept)} of {len(candidates)} networks keep to {limits}{named}."
    if best is None:
        wrong = f"keeps to {limits}" if limits else "was measured"
        return f"None of {len(candidates)} networks {wrong}.{left_out}"
    among = f"the {fitting} of {len(candidates)} networks that keep to {limits}"
    how = f" ({best.backend})" if best.backend else ""
    return (
        f"{best.name} is the best of {among if limits else f'{len(candidates)} networks'}: macro F1 "
        f"{best.macro_f1:.3f}, {best.p50_ms:.3g} ms{how}, {best.size_mb:.3g} MB.{left_out}"
    )


def _limits(max_mb: float | None, max_ms: float | None) -> str:
    parts = [f"{limit:g} {unit}" for limit, unit in ((max_mb, "MB"), (max_ms, "ms")) if limit is not None]
    return " and ".join(parts)
