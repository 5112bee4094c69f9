"""What is measured of one scan to decide whether it is worth a label: uncertainty, and what the scan is like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy.ndimage import uniform_filter
from torch import Tensor

from medssl.functional.uncertainty import jensen_shannon, mean_where, near_border, predictive_entropy
from medssl.geometry import Grid
from medssl.inference.plan import Box, box_of
from medssl.inference.predictor import Predictor
from medssl.labels import LabelTable
from medssl.workflows.prediction import Prepared, predict

BORDER_MM = 2.0
"""How near to a border between labels uncertainty counts."""

PLACE_MM = 10.0
"""Side of the cube whose mean uncertainty decides where to look first."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of each contrast's normalized intensities in the mask; part of what a scan is like."""

VERSION = 1
"""Of what is measured; measures of another version on disk are made anew."""

Opinion = Callable[[Prepared], Tensor]
"""A second prediction of a scan, ``(L, I, J, K)``, to disagree with."""

_VIEWS = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "I": "axial", "S": "axial"}
_THIRDS = (("left", "middle", "right"), ("back", "middle", "front"), ("bottom", "middle", "top"))


@dataclass(frozen=True)
class Slice:
    """A slice of a scan as its file stores it.

    Args:
        view: "sagittal", "coronal" or "axial".
        axis: Axis of the stored array that the slice is cut from, 0 to 2.
        index: Its place along that axis, from 0.
    """

    view: str
    axis: int
    index: int


@dataclass(frozen=True)
class Measures:
    """What is known about one scan.

    Args:
        entropy: Mean predictive entropy in nats, in the mask within 2 mm of a border between predicted labels.
        disagreement: Mean Jensen-Shannon divergence in nats of two predictions, in the mask where either finds
            a label; None without a second one.
        shares: Share of each foreground label in the predicted foreground, by abbreviation.
        volume_ml: Of the predicted foreground.
        quantiles: Contrast -> `QUANTILES` of its intensities in the mask, after normalization.
        means: "contrast label" -> mean normalized intensity where that label is predicted.
        border: Abbreviations of the two labels that are confused most near borders; empty without a border.
        place: Where uncertainty is largest, as words such as "left front top".
        voxel: The same place in the stored array.
        slices: The three slices through it.
    """

    entropy: float
    disagreement: float | None
    shares: Mapping[str, float]
    volume_ml: float
    quantiles: Mapping[str, Sequence[float]]
    means: Mapping[str, float]
    border: tuple[str, ...]
    place: str
    voxel: tuple[int, int, int]
    slices: tuple[Slice, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what `measures_of_json` reads back."""
        return asdict(self)

    def descriptor(self) -> list[tuple[str, list[float]]]:
        """Return what the scan is like: named groups of numbers, each group counted once in a distance."""
        quantiles = [value for values in self.quantiles.values() for value in values]
        return [
            ("shares", list(self.shares.values())),
            ("volume", [float(np.log(max(self.volume_ml, 1e-6)))]),
            ("quantiles", quantiles),
            ("means", list(self.means.values())),
        ]


def measures_of_json(told: Mapping[str, Any]) -> Measures:
    """Read what `Measures.as_json` made."""
    slices = tuple(Slice(**one) for one in told["slices"])
    i, j, k = told["voxel"]
    return Measures(**{**told, "slices": slices, "voxel": (i, j, k), "border": tuple(told["border"])})


def measure(
    prepared: Prepared,
    predictor: Predictor,
    *,
    second: Opinion | None,
    grid: Grid,
    contrasts: Sequence[str],
    table: LabelTable,
) -> Measures:
    """Run the network on a scan and measure it.

    Args:
        prepared: The scan in the network's space.
        predictor: Holds the network.
        second: Another prediction of it, such as `mirrored`; None leaves the disagreement out.
        grid: Of the scan's own file, where slices are counted.
        contrasts: Names of its channels.
        table: Names of the labels.
    """
    image, mask = _image_and_mask(prepared)
    whole = predict(prepared, predictor).whole()
    other = None if second is None else second(prepared)
    box = box_of(mask) or Box((0, 0, 0), (1, 1, 1))
    cut = (slice(None), *box.slices)
    p, inside, scan = whole[cut], mask[box.slices], image[cut]
    spacing = _spacing(prepared)
    labels, entropy = p.argmax(0), predictive_entropy(p[None])[0]
    near = near_border(labels[None], inside[None], max(1, round(BORDER_MM / min(spacing))))[0]
    doubt = torch.where(near, entropy, 0.0)
    disagreement = None
    if other is not None:
        q = other[cut]
        apart = jensen_shannon(p[None], q[None])[0]
        found = inside & ((labels > 0) | (q.argmax(0) > 0))
        disagreement = float(mean_where(apart[None], found[None]))
        doubt = doubt + torch.where(found, apart, 0.0)
    spot = _worst_place(doubt, spacing)
    voxel = _stored_voxel(prepared, grid, [a + b for a, b in zip(spot, box.start, strict=True)])
    names = [label.abbreviation for label in table]
    return Measures(
        entropy=float(mean_where(entropy[None], near[None])),
        disagreement=disagreement,
        **_appearance(scan, labels, inside, contrasts, names),
        volume_ml=float((inside & (labels > 0)).sum()) * float(np.prod(spacing)) / 1000,
        border=_confused(p, near, names),
        place=_in_words(spot, inside.shape),
        voxel=voxel,
        slices=tuple(
            Slice(_VIEWS.get(code, "slice"), axis, voxel[axis]) for axis, code in enumerate(grid.axcodes)
        ),
    )


def mirrored(prepared: Prepared, predictor: Predictor) -> Tensor:
    """Predict a scan mirrored left to right, and mirror the answer back.

    Training mirrors half of its crops, so that a network that knows its task gives the same answer; not to be
    used where labels name a side.

    Shapes:
        return: ``(L, I, J, K)``
    """
    image, mask = _image_and_mask(prepared)
    return predictor.predict(image.flip(1), mask.flip(0)).flip(1)


def of_another(prepared: Prepared, predictor: Predictor) -> Tensor:
    """Predict a scan with another network of the same space.

    Shapes:
        return: ``(L, I, J, K)``
    """
    return predictor.predict(*_image_and_mask(prepared))


def _image_and_mask(prepared: Prepared) -> tuple[Tensor, Tensor]:
    return prepared.sample["image"].as_tensor(), prepared.sample["mask"].as_tensor()[0] > 0.5


def _affine(prepared: Prepared) -> np.ndarray:
    image: MetaTensor = prepared.sample["image"]
    return np.asarray(image.affine, dtype=np.float64)


def _spacing(prepared: Prepared) -> list[float]:
    return [float(size) for size in np.linalg.norm(_affine(prepared)[:3, :3], axis=0)]


def _appearance(
    scan: Tensor, labels: Tensor, inside: Tensor, contrasts: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    """Return shares of labels and statistics of intensities; the mean of a label that is absent is 0."""
    foreground = [inside & (labels == number) for number in range(1, len(names))]
    counts = torch.stack([where.sum() for where in foreground]).double()
    shares = counts / counts.sum().clamp_min(1)
    probes = torch.tensor(QUANTILES, dtype=torch.float64)
    quantiles, means = {}, {}
    for name, channel in zip(contrasts, scan.double(), strict=True):
        # sorted by hand: torch.quantile refuses more than 16 million values
        values = channel[inside].sort().values if inside.any() else channel.new_zeros(1)
        places = (probes * (len(values) - 1)).round().long()
        quantiles[name] = [float(value) for value in values[places]]
        for label, where in zip(names[1:], foreground, strict=True):
            means[f"{name} {label}"] = float(mean_where(channel[None], where[None]))
    return {
        "shares": {name: float(share) for name, share in zip(names[1:], shares, strict=True)},
        "quantiles": quantiles,
        "means": means,
    }


def _confused(p: Tensor, near: Tensor, names: Sequence[str]) -> tuple[str, ...]:
    """Return the two labels whose product of probabilities near borders is largest."""
    if not near.any():
        return ()
    values = p[:, near].double()
    products = torch.triu(values @ values.T, diagonal=1)
    first, second = divmod(int(products.argmax()), len(names))
    return names[first], names[second]


def _worst_place(doubt: Tensor, spacing: Sequence[float]) -> list[int]:
    """Return the voxel around which the mean of a cube is largest."""
    sides = [max(1, round(PLACE_MM / size)) for size in spacing]
    mean = uniform_filter(doubt.float().numpy(force=True), sides, mode="constant")
    return [int(place) for place in np.unravel_index(int(mean.argmax()), mean.shape)]


def _stored_voxel(prepared: Prepared, grid: Grid, voxel: Sequence[int]) -> tuple[int, int, int]:
    """Return the voxel of the scan's own grid nearest to one of the network's space."""
    position = _affine(prepared) @ np.array([*voxel, 1.0])
    stored = np.rint(np.linalg.solve(grid.affine, position)[:3]).astype(int)
    i, j, k = np.clip(stored, 0, np.array(grid.shape) - 1).tolist()
    return i, j, k


def _in_words(spot: Sequence[int], shape: Sequence[int]) -> str:
    """Say in which thirds of the mask's box, along left-right, back-front, bottom-top, a voxel lies."""
    words = [
        thirds[min(2, 3 * place // side)] for thirds, place, side in zip(_THIRDS, spot, shape, strict=True)
    ]
    known = [word for word in words if word != "middle"]
    return " ".join(known) if known else "center"
