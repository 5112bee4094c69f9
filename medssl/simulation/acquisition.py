"""What a scanner makes of a signal: blur, voxels, motion, bias, noise and gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from medssl.errors import ConfigError
from medssl.simulation.sampling import FIELD_OF_VIEW_MM, centers_mm, output_shape, voxel_means

LARGEST_VALUE = 1000
"""Images are stored as whole numbers from 0 to this, as in iSeg."""


@dataclass(frozen=True)
class Site:
    """A scanner and its protocol.

    Args:
        spacing: Voxel size in mm along i, j, k where none is asked for.
        gain: Stored value of a signal of 1, by contrast.
        gamma: Exponent of the signal, by contrast.
        noise: Standard deviation of the noise at 1 mm, against a signal of 1.
        bias: Standard deviation of the logarithm of the bias field.
        blur_mm: Standard deviation of the point-spread function, by contrast.
    """

    spacing: tuple[float, float, float]
    gain: dict[str, float]
    gamma: dict[str, float]
    noise: float
    bias: float
    blur_mm: dict[str, float]


SITES = {
    "A": Site(
        spacing=(1.0, 1.0, 1.0),
        gain={"T1w": 760.0, "T2w": 820.0},
        gamma={"T1w": 1.0, "T2w": 1.0},
        noise=0.018,
        bias=0.12,
        blur_mm={"T1w": 0.40, "T2w": 0.60},
    ),
    "B": Site(
        spacing=(0.9, 0.9, 1.2),
        gain={"T1w": 430.0, "T2w": 560.0},
        gamma={"T1w": 0.8, "T2w": 1.2},
        noise=0.030,
        bias=0.16,
        blur_mm={"T1w": 0.60, "T2w": 0.45},
    ),
}


def known_site(name: str) -> Site:
    """Return a site by name.

    Raises:
        ConfigError: There is no such site.
    """
    if name not in SITES:
        msg = f"There is no simulated site '{name}'. Known: {', '.join(SITES)}."
        raise ConfigError(msg)
    return SITES[name]


def acquire(
    rng: np.random.Generator,
    signal: NDArray[np.float32],
    contrast: str,
    site: Site,
    spacing: tuple[float, float, float],
    motion: float = 0.0,
) -> NDArray[np.float64]:
    """Scan a signal.

    Args:
        rng: Source of the scan's gain, blur, bias and noise.
        signal: On the 1 mm grid.
        contrast: "T1w" or "T2w".
        site: Scanner and protocol.
        spacing: Voxel size in mm.
        motion: Largest shift of the head during the scan in mm; 0 for none.

    Returns:
        The image, 0 to `LARGEST_VALUE`, not yet rounded.

    Shapes:
        signal: ``FIELD_OF_VIEW_MM``
        return: ``output_shape(spacing)``
    """
    gain = site.gain[contrast] * np.exp(0.10 * np.clip(rng.standard_normal(), -2, 2))
    gamma = site.gamma[contrast] * np.exp(0.4 * np.clip(rng.standard_normal(), -2, 2))
    noise = site.noise * np.exp(0.45 * np.clip(rng.standard_normal(), -2, 2))
    blur = site.blur_mm[contrast] * np.exp(0.25 * np.clip(rng.standard_normal(), -2, 2))
    strength = site.bias * np.exp(0.4 * np.clip(rng.standard_normal(), -2, 2))
    bias = strength * bias_field(rng, spacing)
    image = voxel_means(ndimage.gaussian_filter(signal, blur, truncate=3.0), spacing).astype(np.float64)
    image = image * np.exp(bias)
    image = with_motion(rng, image, motion, spacing[1])
    image = with_rician_noise(rng, image, noise / np.sqrt(np.prod(spacing)))
    return np.asarray(np.clip(gain * image**gamma, 0, LARGEST_VALUE))


def bias_field(rng: np.random.Generator, spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Draw a slow field over the field of view, standard deviation near 1; spacing only samples it.

    Shapes:
        return: ``output_shape(spacing)``
    """
    axes = [
        centers_mm(n, size) / (extent / 2)
        for n, size, extent in zip(output_shape(spacing), spacing, FIELD_OF_VIEW_MM, strict=True)
    ]
    field = np.zeros(output_shape(spacing))
    waves = 6
    for _ in range(waves):
        frequency, phase = rng.uniform(0.4, 1.6, 3), rng.uniform(0, 2 * np.pi, 3)
        x, y, z = (np.cos(f * axis + p) for f, axis, p in zip(frequency, axes, phase, strict=True))
        field += x[:, None, None] * y[None, :, None] * z[None, None, :]
    return field * np.sqrt(8 / waves)


def with_motion(
    rng: np.random.Generator, image: NDArray[np.float64], largest_mm: float, spacing: float
) -> NDArray[np.float64]:
    """Let the head move along the phase-encoding axis (j) while k-space fills: ghosts and blur.

    Args:
        rng: Source of the motion.
        image: The still image.
        largest_mm: Largest shift in mm; 0 leaves the image as it is.
        spacing: Voxel size along j.

    Returns:
        The magnitude of the moved image.

    Shapes:
        image, return: ``(I, J, K)``
    """
    lines = image.shape[1]
    steps = rng.uniform(-1, 1, 6)
    breath = rng.uniform(0, 2 * np.pi)
    if largest_mm <= 0:
        return image
    time = np.linspace(0, 1, lines)
    shift = 0.6 * steps[np.minimum((6 * time).astype(int), 5)] + 0.4 * np.sin(2 * np.pi * 9 * time + breath)
    frequency = np.sort(scipy.fft.fftfreq(lines))
    phase = np.exp(-2j * np.pi * frequency * shift * largest_mm / spacing)
    space = scipy.fft.fft(image, axis=1)
    return np.abs(scipy.fft.ifft(space * scipy.fft.ifftshift(phase)[None, :, None], axis=1))


def with_rician_noise(
    rng: np.random.Generator, image: NDArray[np.float64], sigma: float
) -> NDArray[np.float64]:
    """Add complex Gaussian noise and take the magnitude.

    Shapes:
        image, return: ``(I, J, K)``
    """
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.sqrt(real**2 + imaginary**2)
