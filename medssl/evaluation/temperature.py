"""One number that makes a classifier as sure as it is right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from medssl.labels import UNKNOWN

BOUNDS = (0.05, 20.0)
"""Temperatures that are tried. Validation images without a single error push the temperature to the lower end."""


def fit_temperature(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> float:
    r"""Find the temperature whose probabilities explain the validation images best.

    .. math:: T = \arg\min_T -\frac{1}{N} \sum_i \log \mathrm{softmax}(s_i / T)_{y_i}

    Args:
        labels: Class numbers of validation images; 255 is unknown and left out.
        scores: What the network says before the softmax. Log-probabilities give the same temperature.

    Returns:
        Within `BOUNDS`; above 1 for a network that is too sure.

    Shapes:
        labels: ``(N,)``
        scores: ``(N, K)``

    Raises:
        ValueError: No image has a known class, or a score is not finite.

    Notes:
        The mean runs over the images. The temperature moves no argmax.

    Source:
        Guo et al.: On calibration of modern neural networks, ICML 2017, section 4.2. Own implementation.
    """
    known = np.asarray(labels) != UNKNOWN
    labels, scores = np.asarray(labels)[known], np.asarray(scores, dtype=np.float64)[known]
    if not len(labels) or not np.isfinite(scores).all():
        msg = f"Found {len(labels)} images of known class, all scores finite: {np.isfinite(scores).all()}; "
        msg += "expected at least one image and finite scores."
        raise ValueError(msg)

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(labels, scores / np.exp(log_temperature))

    found = minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def negative_log_likelihood(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> float:
    """Return the mean of minus the log-probability of the true class.

    Shapes:
        labels: ``(N,)``
        scores: ``(N, K)``
    """
    return float(-log_softmax(scores, axis=1)[np.arange(len(labels)), labels].mean())


def with_temperature(scores: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Turn scores into probabilities at a temperature.

    Shapes:
        scores: ``(N, K)``
        return: ``(N, K)``
    """
    return np.asarray(softmax(np.asarray(scores, dtype=np.float64) / temperature, axis=1))
