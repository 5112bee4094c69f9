"""One simulated subject: from a seed and a number to images and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ConfigError
from medssl.labels import BRAIN_TISSUES
from medssl.simulation.acquisition import Site, acquire, known_site
from medssl.simulation.anatomy import Anatomy, draw_anatomy
from medssl.simulation.contrast import CONTRASTS, draw_signals
from medssl.simulation.sampling import scan_affine, voxel_means

_SMALLEST_SPACING_MM, _LARGEST_SPACING_MM = 0.3, 8.0


@dataclass(frozen=True, eq=False)
class SimulatedSubject:
    """Scans and truth of one subject.

    Args:
        images: Contrast ("T1w", "T2w") -> skull-stripped image with whole numbers 0 to 1000.
        label: Values of `BRAIN_TISSUES`; T1w is 0 exactly where the label is.
        affine: Voxel -> RAS+ mm.
        facts: What was drawn, for ``participants.tsv``.

    Shapes:
        images: each ``(I, J, K)``
        label: ``(I, J, K)``
    """

    images: dict[str, NDArray[np.float32]]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    facts: dict[str, float | str]


def simulate_subject(
    seed: int,
    number: int,
    spacing: float | Sequence[float] | None = 1.0,
    site: str = "A",
    age_months: float = 6.0,
    motion: float = 0.0,
) -> SimulatedSubject:
    """Simulate one subject: a pure function of its arguments.

    Spacing, site, age and motion leave the anatomy alone: the same seed and number are the same brain.

    Args:
        seed: Seed of the cohort.
        number: Which subject of the cohort.
        spacing: Voxel size in mm, one number or three; None takes the site's own.
        site: "A" or "B".
        age_months: Age at the scan, 0 to 24.
        motion: Largest head motion in mm; 0 for none.

    Returns:
        The subject.

    Raises:
        ConfigError: The site is unknown, or a number is out of range.
    """
    scanner = known_site(site)
    size = checked_spacing(spacing, scanner)
    _check_range("seed", seed, 0, 2**32 - 1)
    _check_range("number", number, 0, 2**32 - 1)
    _check_range("age_months", age_months, 0.0, 24.0)
    _check_range("motion", motion, 0.0, 10.0)
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence((seed, number)).spawn(4)]
    anatomy = draw_anatomy(streams[0])
    signals = draw_signals(streams[1], anatomy, age_months)
    label = tissue_labels(anatomy, size)
    images = {}
    for name, rng in zip(CONTRASTS, streams[2:], strict=True):
        image = np.rint(acquire(rng, signals[name], name, scanner, size, motion))
        images[name] = np.where(label != 0, image, 0).astype(np.float32)
    first = images[CONTRASTS[0]]
    first[(label != 0) & (first == 0)] = 1
    return SimulatedSubject(images, label, scan_affine(size), _facts(anatomy, label, size, site, age_months))


def checked_spacing(spacing: float | Sequence[float] | None, site: Site) -> tuple[float, float, float]:
    """Return three voxel sizes.

    Raises:
        ConfigError: A size is not a number in the range that makes sense for a head.
    """
    sizes = site.spacing if spacing is None else spacing
    sizes = tuple(float(s) for s in sizes) if isinstance(sizes, Sequence) else (float(sizes),) * 3
    if len(sizes) != 3:
        msg = f"The spacing has {len(sizes)} numbers; expected one or three (mm along i, j, k)."
        raise ConfigError(msg)
    for size in sizes:
        _check_range("spacing", size, _SMALLEST_SPACING_MM, _LARGEST_SPACING_MM)
    return sizes[0], sizes[1], sizes[2]


def tissue_labels(anatomy: Anatomy, spacing: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Give each voxel the label whose partial volume is largest.

    Shapes:
        return: ``output_shape(spacing)``
    """
    gray, white, inside = (
        voxel_means(part, spacing) for part in (anatomy.gray, anatomy.white, anatomy.inside)
    )
    parts = {"BG": 1 - inside, "GM": gray, "WM": white, "CSF": inside - gray - white}
    values = np.array([row.value for row in BRAIN_TISSUES], dtype=np.uint8)
    winner = np.argmax(np.stack([parts[row.abbreviation] for row in BRAIN_TISSUES]), axis=0)
    return np.asarray(values[winner])


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        msg = f"{name} is {value:.10g}; expected {low:.10g} to {high:.10g}. Give a value in this range."
        raise ConfigError(msg)


def _facts(
    anatomy: Anatomy,
    label: NDArray[np.uint8],
    spacing: tuple[float, float, float],
    site: str,
    age_months: float,
) -> dict[str, float | str]:
    voxel_ml = math.prod(spacing) / 1000.0
    found = np.argwhere(label)
    box = (found.max(axis=0) - found.min(axis=0) + 1) * np.array(spacing)
    facts: dict[str, float | str] = {"age_months": float(age_months), "site": site}
    facts |= {f"head_{axis}_mm": round(float(mm), 1) for axis, mm in zip("xyz", box, strict=True)}
    facts["brain_ml"] = round(float((label != 0).sum()) * voxel_ml, 1)
    for row in BRAIN_TISSUES.foreground:
        facts[f"{row.abbreviation.lower()}_ml"] = round(float((label == row.value).sum()) * voxel_ml, 1)
    facts["ventricle_odds"] = round(anatomy.traits.ventricle, 2)
    facts["sulcus_depth_mm"] = round(anatomy.traits.sulcus_depth_mm, 1)
    return facts
