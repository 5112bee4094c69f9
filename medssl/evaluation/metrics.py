"""Overlap and surface distances of two label images, per label and summed up over subjects.

Conventions, the same everywhere in medssl:

* ``hd95_mm`` is the larger of the two directed 95th percentiles (as in MONAI). MedPy pools both
  directions first and gives other numbers; the "MHD" of the iSeg challenges is something else again.
* A label that neither image holds has no score: every value is NaN, the row is left out of the means
  and counted. A label that only one of them holds has Dice 0, no distances, and is counted too.
* Voxels whose reference is unknown are left out of both images.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isnan, nan, prod

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from medssl.errors import GridError
from medssl.labels import UNKNOWN, LabelTable

DISTANCES = ("hd95_mm", "hd_mm", "assd_mm")
MEASURES = ("dice", *DISTANCES)
COLUMNS = ("label", *MEASURES, "volume_pred_ml", "volume_ref_ml")

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Distances:
    """Distances between the surfaces of two masks, NaN where one has none.

    Args:
        hd95_mm: Larger of the two directed 95th percentiles.
        hd_mm: Largest distance (Hausdorff).
        assd_mm: Mean over the voxels of both surfaces together.
    """

    hd95_mm: float
    hd_mm: float
    assd_mm: float


@dataclass(frozen=True)
class LabelSummary:
    """What one label scored over all subjects.

    Args:
        label: Abbreviation, such as "GM".
        mean: Mean per measure, over the subjects that have it.
        sd: Sample standard deviation per measure; NaN for fewer than two subjects.
        n: Subjects with a Dice value.
        n_excluded: Subjects where neither image holds the label.
        n_missed: Subjects where only the reference holds it (Dice 0, no distances).
        n_invented: Subjects where only the prediction holds it (Dice 0, no distances).
    """

    label: str
    mean: Mapping[str, float]
    sd: Mapping[str, float]
    n: int
    n_excluded: int
    n_missed: int
    n_invented: int


@dataclass(frozen=True)
class Summary:
    """Scores of a group of subjects.

    Args:
        labels: One entry per label, in the order of the rows.
        mean_dice: Mean of the labels' mean Dice, so that each label counts the same; NaN without any.
        n_subjects: Subjects in the group.
    """

    labels: tuple[LabelSummary, ...]
    mean_dice: float
    n_subjects: int


def score_labels(
    pred: NDArray[np.integer],
    ref: NDArray[np.integer],
    spacing: tuple[float, float, float],
    table: LabelTable,
) -> list[dict[str, object]]:
    """Score a label image against its reference, one row per foreground label.

    Args:
        pred: Stored label values of the prediction.
        ref: Stored label values of the reference; 255 is unknown and left out on both sides.
        spacing: Voxel size in mm along (i, j, k).
        table: The labels to score.

    Returns:
        Rows with `COLUMNS`; volumes count the voxels whose reference is known.

    Shapes:
        pred: ``(I, J, K)``
        ref: ``(I, J, K)``

    Raises:
        GridError: The two images differ in shape.
    """
    if pred.shape != ref.shape:
        msg = (
            f"Prediction and reference differ in shape: {pred.shape} against {ref.shape}. "
            f"Bring both onto one grid first."
        )
        raise GridError(msg)
    unknown = ref == UNKNOWN
    pred = np.where(unknown, UNKNOWN, pred)
    return [
        {"label": label.abbreviation, **_score(pred == label.value, ref == label.value, unknown, spacing)}
        for label in table.foreground
    ]


def dice(pred: Mask, ref: Mask) -> float:
    r"""Compute the Dice overlap of two masks.

    .. math:: D = \frac{2 |P \cap R|}{|P| + |R|}

    Returns:
        0 to 1; NaN where both are empty.

    Shapes:
        pred: ``(I, J, K)``
        ref: ``(I, J, K)``
    """
    both = np.count_nonzero(pred) + np.count_nonzero(ref)
    return 2.0 * np.count_nonzero(pred & ref) / both if both else nan


def surface(mask: Mask, unknown: Mask | None = None) -> Mask:
    """Find the voxels of a mask that touch, face to face, a voxel outside it or the image border.

    Args:
        mask: The structure.
        unknown: Voxels nobody labeled; touching them does not make a surface. Without this an image
            labeled on every tenth slice would be all surface.

    Shapes:
        mask: ``(I, J, K)``
        return: ``(I, J, K)``
    """
    solid = mask if unknown is None else mask | unknown
    return np.asarray(mask & ~binary_erosion(solid))


def surface_distances(
    pred: Mask, ref: Mask, spacing: tuple[float, float, float], unknown: Mask | None = None
) -> Distances:
    """Measure how far the surfaces of two masks are apart.

    Args:
        pred: One mask.
        ref: The other; the result is the same when they are swapped.
        spacing: Voxel size in mm along (i, j, k).
        unknown: Voxels that make no surface where a mask ends at them.

    Shapes:
        pred: ``(I, J, K)``
        ref: ``(I, J, K)``

    Notes:
        Nearest neighbors come from a k-d tree over surface voxels, asked only for voxels that are not
        on both surfaces. On a 144 x 192 x 256 brain with three labels (one core) this takes 0.5 s, two
        distance maps on the cropped box take 1.3 s, and MONAI's functions 2.4 s for hd95 and assd
        alone; all three agree.
    """
    pred_surface, ref_surface = surface(pred, unknown), surface(ref, unknown)
    if not pred_surface.any() or not ref_surface.any():
        return Distances(nan, nan, nan)
    forth = _directed(pred_surface, ref_surface, spacing)
    back = _directed(ref_surface, pred_surface, spacing)
    return Distances(
        hd95_mm=float(max(np.percentile(forth, 95), np.percentile(back, 95))),
        hd_mm=float(max(forth.max(), back.max())),
        assd_mm=float((forth.sum() + back.sum()) / (forth.size + back.size)),
    )


def summarize(rows: Iterable[Mapping[str, object]]) -> Summary:
    """Sum up the rows of many subjects.

    Args:
        rows: Rows of `score_labels` with a ``subject`` added; a value may be None for NaN.

    Notes:
        Means run over subjects that have the value. Subjects without a label on both sides are left
        out and counted; those with it on one side only count as Dice 0 and are counted as well, since
        their distances are missing from the distance means.
    """
    by_label: dict[str, list[Mapping[str, object]]] = {}
    subjects = set()
    for row in rows:
        by_label.setdefault(str(row["label"]), []).append(row)
        subjects.add(str(row.get("subject", "")))
    labels = tuple(_summarize_label(label, group) for label, group in by_label.items())
    return Summary(labels, _mean([label.mean["dice"] for label in labels]), len(subjects))


def _score(pred: Mask, ref: Mask, unknown: Mask, spacing: tuple[float, float, float]) -> dict[str, float]:
    voxel_ml = prod(spacing) / 1000.0
    volumes = {
        "volume_pred_ml": np.count_nonzero(pred) * voxel_ml,
        "volume_ref_ml": np.count_nonzero(ref) * voxel_ml,
    }
    box = _bounding_box(pred | ref)
    if box is None:
        return {**dict.fromkeys(MEASURES, nan), **volumes}
    pred, ref, unknown = pred[box], ref[box], unknown[box]
    distances = surface_distances(pred, ref, spacing, unknown if unknown.any() else None)
    return {"dice": dice(pred, ref), **vars(distances), **volumes}


def _directed(source: Mask, target: Mask, spacing: tuple[float, float, float]) -> NDArray[np.float64]:
    """Distance in mm from each voxel of one surface to the nearest of the other."""
    start = np.argwhere(source)
    away = ~target[source]
    distances = np.zeros(len(start))
    tree = cKDTree(np.argwhere(target) * spacing, balanced_tree=False, compact_nodes=False)
    distances[away] = tree.query(start[away] * np.asarray(spacing))[0]
    return distances


def _bounding_box(mask: Mask) -> tuple[slice, slice, slice] | None:
    """Slices around the true voxels and their neighbors, or None where there are none."""
    spans = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not hit.size:
            return None
        spans.append(slice(max(int(hit[0]) - 1, 0), int(hit[-1]) + 2))
    return spans[0], spans[1], spans[2]


def _summarize_label(label: str, rows: list[Mapping[str, object]]) -> LabelSummary:
    values = {measure: [_number(row[measure]) for row in rows] for measure in MEASURES}
    lone = [row for row in rows if _number(row["dice"]) == 0.0]
    n = sum(not isnan(value) for value in values["dice"])
    return LabelSummary(
        label=label,
        mean={measure: _mean(values[measure]) for measure in MEASURES},
        sd={measure: _sd(values[measure]) for measure in MEASURES},
        n=n,
        n_excluded=len(rows) - n,
        n_missed=sum(_number(row["volume_pred_ml"]) == 0.0 for row in lone),
        n_invented=sum(_number(row["volume_ref_ml"]) == 0.0 for row in lone),
    )


def _number(value: object) -> float:
    return nan if value is None else float(str(value))


def _mean(values: list[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return statistics.fmean(known) if known else nan


def _sd(values: list[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return statistics.stdev(known) if len(known) > 1 else nan
