"""MixMatch's three steps: guess a sharp label, draw shares, mix images and labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def sharpen(p: Tensor, temperature: float) -> Tensor:
    r"""Return :math:`p_c^{1/T} / \sum_k p_k^{1/T}`, without a gradient.

    Args:
        p: Probabilities.
        temperature: T; 1 changes nothing, less makes the likeliest class likelier, more levels them.

    Raises:
        ValueError: The temperature is not above 0.

    Shapes:
        p, return: ``(B, K, *spatial)``

    Source:
        Berthelot et al.: MixMatch, NeurIPS 2019, equation 7.
    """
    if not temperature > 0:
        msg = f"Found temperature {temperature}; expected a number above 0."
        raise ValueError(msg)
    p = p.detach()
    return p if temperature == 1 else (p.log() / temperature).softmax(1)


def mixup_shares(count: int, alpha: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw one share a sample, :math:`\max(\beta, 1 - \beta)` with :math:`\beta \sim \mathrm{Beta}(\alpha, \alpha)`.

    Args:
        count: Number of samples.
        alpha: Of the Beta distribution; 0 mixes nothing.
        generator: Torch's random numbers on the CPU, the global ones where not given; one of them is drawn
            and seeds the Beta distribution.

    Returns:
        Float32 in [0.5, 1]: each sample stays nearer to itself than to its partner.

    Raises:
        ValueError: Alpha is below 0.

    Shapes:
        return: ``(count,)``

    Source:
        Berthelot et al.: MixMatch, NeurIPS 2019, equations 8 and 9; one share a sample, not one a batch.
    """
    if not alpha >= 0:
        msg = f"Found alpha {alpha}; expected a number of at least 0."
        raise ValueError(msg)
    seed = int(torch.randint(2**62, (), generator=generator))
    if alpha == 0:
        return torch.ones(count)
    shares = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count))
    return torch.maximum(shares, 1 - shares).float()


def mixup(images: Tensor, targets: Tensor, shares: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mix each sample with its partner, :math:`x_i' = \beta_i x_i + (1 - \beta_i) x_{\pi(i)}`, targets alike.

    Args:
        images: x.
        targets: Probabilities of the classes.
        shares: :math:`\beta` (`mixup_shares`).
        partners: :math:`\pi`, the number of each sample's partner.

    Returns:
        Images and targets; these sum to 1 as they did.

    Shapes:
        images: ``(N, C, *spatial)``; targets: ``(N, K)``; shares, partners: ``(N,)``

    Source:
        Zhang et al.: mixup, ICLR 2018; Berthelot et al.: MixMatch, NeurIPS 2019, equations 10 and 11.
    """
    mixed = (_mixed(values, shares, partners) for values in (images, targets))
    return next(mixed), next(mixed)


def _mixed(values: Tensor, shares: Tensor, partners: Tensor) -> Tensor:
    return values[partners].lerp(values, shares.to(values).view(-1, *[1] * (values.ndim - 1)))
