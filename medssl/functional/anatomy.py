"""Where classes are to be expected: labels of registered scans as a factor of the target distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medssl.errors import ConfigError

KNOWN = 0.005
"""Sum over the classes above which a prior says something; its floor alone is more, wherever it is made."""


def log_anatomical_factor(a: Tensor, weight: float | Tensor) -> Tensor:
    r"""Return the log of the factor that an anatomical prior multiplies an assignment with.

    .. math:: w_j \log \frac{a_j}{\sum_k a_k}

    Args:
        a: Prior of each class at each place (`registration.anatomical_prior`, never 0 inside the scan), or of the
            classes that have a cluster, where background has none; 0 in all classes where nothing is known, as in the
            padding of a crop: the factor is flat there.
        weight: w, one number or one a class; 0 switches it off.

    Returns:
        Float32 at least. The sum makes up for what linear interpolation of a crop, or a background that has no
        cluster, takes away.

    Shapes:
        a, return: ``(B, K, *spatial)``; weight: ``()`` or ``(K,)``
    """
    a = a.to(torch.promote_types(a.dtype, torch.float32))
    total = a.sum(1, keepdim=True)
    shares = torch.where(total > KNOWN, a / total.clamp_min(KNOWN), 1 / a.shape[1])
    w = torch.as_tensor(weight, dtype=a.dtype, device=a.device).reshape(-1)
    return w.view(1, -1, *[1] * (a.ndim - 2)) * shares.clamp_min(torch.finfo(torch.float16).tiny).log()


def weights_from(weight: Tensor, first: int) -> Tensor:
    """Return w of the labels from ``first`` on; a single number is that of all.

    Shapes:
        weight: ``()`` or ``(K,)``; return: ``()`` or ``(K - first,)``
    """
    return weight[first:] if weight.ndim else weight


def anatomy_weights(weight: float | Sequence[float], labels: int) -> Tensor:
    """Return w as a tensor: one number, or one a label, background included.

    Raises:
        ConfigError: Their number is another, or one is below 0.
    """
    weights = torch.as_tensor(weight, dtype=torch.float32)
    if weights.ndim > 1 or (weights.ndim and len(weights) != labels) or not (weights >= 0).all():
        msg = f"Found anatomy_weight {weight}; expected one number or {labels}, none below 0."
        raise ConfigError(msg, "Give one number for all labels, or one a label, background first.")
    return weights
