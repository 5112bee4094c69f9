"""Which of the prepared subjects or images a number stands for: a permutation drawn anew for each pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def shuffled(numbers: Sequence[int], size: int, *key: int) -> NDArray[np.int64]:
    """Return the place that each number stands for: in every ``size`` numbers each place occurs once.

    Args:
        numbers: Counted from 0 over the whole training.
        size: Places to draw from, at least 1.
        key: Seeds of the order; another key is another order.

    Returns:
        Places from 0 to ``size - 1``; that of a number depends on the number, the size and the key alone.

    Shapes:
        return: ``(len(numbers),)``

    Examples:
        >>> shuffled(range(6), 3, 5, 0).tolist()
        [1, 2, 0, 0, 1, 2]
    """
    turns = [divmod(number, size) for number in numbers]
    return np.array([_permutation(size, turn, key)[place] for turn, place in turns], np.int64)


def shuffled_by_class(numbers: Sequence[int], label: NDArray[np.int64], *key: int) -> NDArray[np.int64]:
    """Return the place that each number stands for, every class equally often.

    In every ``K`` numbers each of the K classes that occur is drawn once; a class goes through its own places
    in passes. Small classes are thus repeated more often than large ones.

    Args:
        numbers: Counted from 0 over the whole training.
        label: Class of each place.
        key: Seeds of the order.

    Shapes:
        label: ``(N,)``; return: ``(len(numbers),)``
    """
    members = [np.flatnonzero(label == name) for name in np.unique(label)]
    K = len(members)
    classes, turns = shuffled(numbers, K, *key, 0), np.asarray(numbers, np.int64) // K
    places = np.empty_like(classes)
    for name in np.unique(classes):
        own = classes == name
        places[own] = members[name][shuffled(turns[own].tolist(), len(members[name]), *key, 1 + int(name))]
    return places


@lru_cache(maxsize=16)
def _permutation(size: int, turn: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    return np.random.default_rng((*key, turn)).permutation(size)
