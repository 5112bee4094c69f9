"""What registered labels say about a scan: which atlases are near, and the prior they make together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medssl.errors import RegistrationError


def anatomical_prior(
    warped: Sequence[NDArray[np.floating]],
    weights: Sequence[float],
    sigma_voxels: float = 0.7,
    floor: float = 0.02,
) -> NDArray[np.float32]:
    r"""Average the warped labels of several atlases into a prior that depends on the place.

    .. math:: a_k = \frac{G_\sigma * \bar a_k + \epsilon / K}{\sum_l G_\sigma * \bar a_l + \epsilon}, \qquad
              \bar a_k = \sum_n w_n a_{nk} / \sum_n w_n

    Args:
        warped: How much of each class an atlas sees at each voxel (`Registration.warp_labels`); all 0 where
            it does not reach.
        weights: w, one an atlas; 0 for one whose registration failed. If all are 0 the prior is flat.
        sigma_voxels: Standard deviation of the Gaussian G.
        floor: :math:`\epsilon`; 1 / 50 leaves any class at least .0196 / K.

    Returns:
        a, never 0, sums to 1 over classes; 1 / K where no atlas reaches.

    Shapes:
        warped: N times ``(K, I, J, K)``; return: ``(K, I, J, K)``

    Raises:
        RegistrationError: There is no atlas, a weight is missing or negative, or shapes differ.

    Source:
        Anatomical priors from registered labels as in multi-atlas segmentation; formula and figures in
        ``docs/experiments.md``.
    """
    _check(warped, weights)
    total = float(sum(weights))
    mean = np.zeros(warped[0].shape, np.float32)
    for labels, weight in zip(warped, weights, strict=True):
        if weight > 0:
            mean += np.float32(weight / total) * labels.astype(np.float32)
    for channel in mean:
        gaussian_filter(channel, sigma_voxels, output=channel, mode="nearest")
    return np.asarray((mean + floor / len(mean)) / (mean.sum(0) + floor), np.float32)


def similarity(
    fixed: NDArray[np.floating], warped: NDArray[np.floating], mask: NDArray[np.bool_] | None = None
) -> float:
    r"""Return the normalized cross correlation of two images in a mask, averaged over contrasts.

    .. math:: \frac{\sum_i (x_i - \bar x)(y_i - \bar y)}
              {\sqrt{\sum_i (x_i - \bar x)^2 \sum_i (y_i - \bar y)^2}}

    Args:
        fixed: The scan.
        warped: An atlas on its grid (`Registration.warp_image`).
        mask: Where to look; None for everywhere.

    Returns:
        -1 to 1; 0 for a contrast that is constant in the mask.

    Shapes:
        fixed, warped: ``(C, I, J, K)``; mask: ``(I, J, K)``
    """
    inside = np.ones(fixed.shape[1:], np.bool_) if mask is None else mask
    return float(np.mean([_correlation(x[inside], y[inside]) for x, y in zip(fixed, warped, strict=True)]))


def _correlation(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    x, y = x.astype(np.float64) - x.mean(dtype=np.float64), y.astype(np.float64) - y.mean(dtype=np.float64)
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else 0.0


def _check(warped: Sequence[NDArray[np.floating]], weights: Sequence[float]) -> None:
    if not len(warped) or len(warped) != len(weights) or min(weights) < 0:
        msg = f"A prior needs one weight of at least 0 an atlas: found {len(warped)} atlases, weights {list(weights)}."
        raise RegistrationError(msg)
    shapes = {labels.shape for labels in warped}
    if len(shapes) > 1 or len(warped[0].shape) != 4:
        msg = f"Warped labels of one scan have the shapes {sorted(shapes)}; expected one (K, I, J, K)."
        raise RegistrationError(msg)
