"""The brain of one subject: partial volumes of the tissues on a 1 mm grid, before any scanner saw it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medssl.simulation.fields import random_field
from medssl.simulation.sampling import FIELD_OF_VIEW_MM, centers_mm
from medssl.simulation.template import Template, cerebrum_template
from medssl.simulation.warp import random_warp

INFANT_SCALE = (0.79, 0.79, 0.83)
"""Size of a brain at 6 months against the adult template, along x, y and z."""

WARP_SCALES_MM = ((28.0, 3.2), (14.0, 1.9), (8.0, 1.2))
"""Width of the smoothing and standard deviation of the velocity, from lobes to gyri."""

_CRISPNESS = 3.0
_FLOOR = 0.03
_RIM_MM = 1.0
_CORTEX_EDGE_MM = 1.2
_CORTEX_STRENGTH = 3.0
_SMOOTH_MM = 0.6
_SUBSAMPLE = 11


@dataclass(frozen=True)
class AnatomyTraits:
    """What makes one brain differ from another, apart from its warp.

    Args:
        scale: Size against the adult template along x, y, z.
        csf_share: Wanted share of CSF in the brain mask, before the borders are softened (which costs it some).
        white_share: Wanted share of white matter in the brain mask.
        ventricle: Raises (or lowers) the odds of CSF in the ventricles.
        sulcus_strength: Weight of the subject's own sulci.
        sulcus_width_mm: Half width of the subject's own sulci.
        sulcus_depth_mm: How deep they cut in.
        cortex_mm: Mean thickness of the cortex.
        thickness_variation: Standard deviation of its regional variation in mm.
        gyral_variation: Strength of the variation of white matter from gyrus to gyrus.
        sulcal_variation: Strength of the regional variation of sulcal CSF.
    """

    scale: tuple[float, float, float]
    csf_share: float
    white_share: float
    ventricle: float
    sulcus_strength: float
    sulcus_width_mm: float
    sulcus_depth_mm: float
    cortex_mm: float
    thickness_variation: float
    gyral_variation: float
    sulcal_variation: float


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Tissues of one brain on the 1 mm grid.

    Args:
        gray: Share of gray matter in each voxel.
        white: Share of white matter.
        inside: Share of the voxel that belongs to the brain; CSF is what remains of it.
        depth: Distance from the surface in adult mm, 0 outside.
        posterior: Position from the frontal (0) to the occipital pole (1).
        height: Position from the base (0) to the vertex (1).
        traits: The subject's traits.

    Shapes:
        all arrays: ``FIELD_OF_VIEW_MM``
    """

    gray: NDArray[np.float32]
    white: NDArray[np.float32]
    inside: NDArray[np.float32]
    depth: NDArray[np.float32]
    posterior: NDArray[np.float32]
    height: NDArray[np.float32]
    traits: AnatomyTraits


def draw_traits(rng: np.random.Generator) -> AnatomyTraits:
    """Draw the traits of one subject."""
    size = rng.normal(1.0, 0.035)
    x, y, z = np.asarray(INFANT_SCALE) * size * rng.normal(1.0, 0.02, 3)
    return AnatomyTraits(
        scale=(float(x), float(y), float(z)),
        csf_share=float(np.clip(rng.normal(0.245, 0.022), 0.20, 0.29)),
        white_share=float(rng.uniform(0.22, 0.40)),
        ventricle=float(rng.normal(0.8, 1.2)),
        sulcus_strength=float(rng.uniform(0.4, 2.8)),
        sulcus_width_mm=float(rng.uniform(0.9, 1.5)),
        sulcus_depth_mm=float(rng.uniform(5.0, 12.0)),
        cortex_mm=float(rng.uniform(1.8, 4.4)),
        thickness_variation=float(rng.uniform(1.2, 2.4)),
        gyral_variation=float(rng.uniform(2.2, 4.5)),
        sulcal_variation=float(rng.uniform(0.4, 0.9)),
    )


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a brain: traits, a warp of the template, sulci of its own, and tissue shares."""
    traits = draw_traits(rng)
    template = cerebrum_template()
    places = _template_places(rng, traits, template)
    depth = _sampled(template.depth, places, "nearest")
    inside = np.clip(depth * float(np.mean(traits.scale)) + _RIM_MM + 0.5, 0, 1)
    brain = inside > 0
    points = places[:, brain]
    logits = _tissue_logits(rng, traits, template, points, depth, brain)
    gray, white = _tissue_shares(logits, traits, inside[brain])
    span = np.array(template.gray.shape, dtype=np.float64)[:, None]
    relative = points / span
    return Anatomy(
        gray=_smooth(gray * inside[brain], brain),
        white=_smooth(white * inside[brain], brain),
        inside=inside.astype(np.float32),
        depth=_volume(np.maximum(depth[brain], 0), brain),
        posterior=_volume(1 - relative[1], brain),
        height=_volume(relative[2], brain),
        traits=traits,
    )


def _template_places(
    rng: np.random.Generator, traits: AnatomyTraits, template: Template
) -> NDArray[np.float32]:
    """Return the template voxel that each voxel of the subject comes from, ``(3, I, J, K)``."""
    places = random_warp(rng, FIELD_OF_VIEW_MM, WARP_SCALES_MM)
    for axis, length in enumerate(FIELD_OF_VIEW_MM):
        position = centers_mm(length, 1.0).reshape([-1 if a == axis else 1 for a in range(3)])
        places[axis] += position.astype(np.float32)
    turn = _small_rotation(rng).astype(np.float32) / np.array(traits.scale, dtype=np.float32)[:, None]
    center = template.center
    rows = [
        sum(turn[row, axis] * places[axis] for axis in range(3)) + np.float32(center[row]) for row in range(3)
    ]
    return np.stack(rows)


def _small_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a rotation by a few degrees about each axis (the head never lies quite straight)."""
    rotation = np.eye(3)
    for axis, angle in enumerate(rng.normal(0, np.deg2rad(3.0), 3)):
        first, second = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rotation = np.einsum("ij,jk->ik", turn, rotation)
    return rotation


def _sampled(
    volume: NDArray[np.float32], places: NDArray[np.float32], mode: str = "constant"
) -> NDArray[np.float64]:
    return np.asarray(ndimage.map_coordinates(volume, places, order=1, mode=mode, output=np.float64))


def _tissue_logits(
    rng: np.random.Generator,
    traits: AnatomyTraits,
    template: Template,
    points: NDArray[np.float32],
    depth: NDArray[np.float64],
    brain: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return log odds of (gray, white, CSF) at the points of the brain, ``(3, N)``."""
    gray, white = _sampled(template.gray, points), _sampled(template.white, points)
    ventricles = _sampled(template.ventricles, points)
    fluid = np.clip(1 - gray - white, 0, 1)
    logits = _CRISPNESS * np.log(np.stack([gray, white, fluid]).clip(0) + _FLOOR)
    logits[1] += traits.gyral_variation * random_field(rng, FIELD_OF_VIEW_MM, 6.0)[brain]
    logits[2] += traits.sulcal_variation * random_field(rng, FIELD_OF_VIEW_MM, 18.0)[brain]
    logits[2] += traits.ventricle * ventricles
    reach = traits.sulcus_depth_mm * (1 + 0.35 * random_field(rng, FIELD_OF_VIEW_MM, 12.0)[brain])
    near = traits.sulcus_strength / (1 + np.exp((depth[brain] - reach) / 1.5))
    logits[2] += near * _own_sulci(rng, traits.sulcus_width_mm)[brain]
    thickness = (
        traits.cortex_mm + traits.thickness_variation * random_field(rng, FIELD_OF_VIEW_MM, 14.0)[brain]
    )
    distance = _sulcus_distance(logits, traits, ventricles, brain)
    logits[0] += _CORTEX_STRENGTH * np.tanh((thickness - distance) / _CORTEX_EDGE_MM)
    return logits


def _own_sulci(rng: np.random.Generator, width_mm: float) -> NDArray[np.float32]:
    """Return curved sheets, 1 in their middle: where a random field crosses zero steeply."""
    field = random_field(rng, FIELD_OF_VIEW_MM, 7.0)
    slope = sum(np.gradient(field, axis=axis) ** 2 for axis in range(3)) + np.float32(1e-4)
    return np.asarray(np.exp(-(field**2) / slope / width_mm**2) * slope / (slope + 0.006))


def _sulcus_distance(
    logits: NDArray[np.float64],
    traits: AnatomyTraits,
    ventricles: NDArray[np.float64],
    brain: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return the distance in mm to the CSF at the surface of the brain, the ventricles left out."""
    lead = logits[2] - np.maximum(logits[0], logits[1])
    fluid = (lead > np.quantile(lead[::_SUBSAMPLE], 1 - traits.csf_share)) & (ventricles < 0.2)
    tissue = np.zeros(brain.shape, dtype=bool)
    tissue[brain] = ~fluid
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    return np.asarray(ndimage.distance_transform_edt(tissue[box])[brain[box]])


def _tissue_shares(
    logits: NDArray[np.float64], traits: AnatomyTraits, inside: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shift the odds until the brain holds the wanted shares, and return those of gray and white matter."""
    wanted = np.array([1 - traits.csf_share - traits.white_share, traits.white_share, traits.csf_share])
    some, weight = logits[:, ::_SUBSAMPLE], inside[::_SUBSAMPLE] >= 0.5
    offset = np.zeros((3, 1))
    for _ in range(25):
        winners = np.bincount(np.argmax(some + offset, axis=0)[weight], minlength=3)
        found = np.maximum(winners / winners.sum(), 1e-3)
        offset += 1.5 * np.log(wanted / found)[:, None]
    shares = _softmax(logits + offset)
    return shares[0], shares[1]


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))


def _smooth(share: NDArray[np.float64], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Soften a tissue's border and dissolve its specks."""
    return np.asarray(ndimage.gaussian_filter(_volume(share, brain), _SMOOTH_MM, truncate=3.0))


def _volume(values: NDArray[np.floating], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    volume = np.zeros(brain.shape, dtype=np.float32)
    volume[brain] = values
    return volume
