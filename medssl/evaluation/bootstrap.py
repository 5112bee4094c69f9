"""How far a score could move had other cases been drawn: resampling with a seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
"""Resamples of an interval. Chance then moves its ends by about 2 % of its width."""

PERCENTILES = (2.5, 97.5)

_CELLS = 2_000_000
"""Draws times cases held at a time."""

Floats = NDArray[np.float64]


def mean_interval(differences: Floats, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile interval of a mean, resampling its cases with replacement.

    Args:
        differences: One number a case.
        draws: Resamples.
        seed: The same seed gives the same interval.

    Shapes:
        differences: ``(N,)``
    """
    means = np.random.default_rng(seed).choice(differences, (draws, len(differences))).mean(1)
    return percentile_interval(means)


def percentile_interval(resampled: Floats) -> tuple[float, float]:
    """Return the middle 95 % of what resampling gave.

    Shapes:
        resampled: ``(draws,)``
    """
    low, high = np.percentile(resampled, PERCENTILES)
    return float(low), float(high)


def stratified_weights(labels: NDArray[np.integer], draws: int, seed: int) -> Iterator[Floats]:
    """Yield how often each case is drawn, some draws at a time.

    Cases are drawn with replacement within their class, so that every class keeps its number of cases and a
    rare one never drops out of a mean over classes.

    Args:
        labels: Class of each case.
        draws: Resamples in all.
        seed: The same seed gives the same draws.

    Yields:
        Counts whose sum over a class is the number of its cases, in every draw.

    Shapes:
        labels: ``(N,)``
        yield: ``(R, N)``; the R add up to the draws
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == one) for one in np.unique(labels)]
    at_a_time = max(1, _CELLS // max(1, len(labels)))
    for start in range(0, draws, at_a_time):
        rows = min(at_a_time, draws - start)
        weights = np.zeros((rows, len(labels)))
        for places in members:
            weights[:, places] = _counts(rng.integers(len(places), size=(rows, len(places))))
        yield weights


def _counts(picks: NDArray[np.integer]) -> Floats:
    """Count in each row how often each place was picked, ``(R, n)`` to ``(R, n)``."""
    rows, n = picks.shape
    flat = picks + n * np.arange(rows)[:, None]
    return np.bincount(flat.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
