import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance

from medssl.errors import GridError
from medssl.evaluation.metrics import (
    COLUMNS,
    dice,
    score_labels,
    summarize,
    surface,
    surface_distances,
)
from medssl.labels import BRAIN_TISSUES, UNKNOWN, LabelTable

SPACING = (0.8, 1.5, 2.5)


def blob(seed, shape=(9, 8, 7)):
    """A ragged mask with holes and islands."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape).transpose(1, 2, 3, 0) - np.array(shape) / 2
    return (np.linalg.norm(grid, axis=-1) < 3.2) ^ (rng.random(shape) < 0.12)


def _reference_surface(mask):
    """Voxels with a face neighbor that is outside the mask or the image."""
    points = []
    for point in np.argwhere(mask):
        for axis in range(3):
            for step in (-1, 1):
                other = point.copy()
                other[axis] += step
                inside = all(0 <= other[a] < mask.shape[a] for a in range(3))
                if not inside or not mask[tuple(other)]:
                    points.append(tuple(int(x) for x in point))
    return set(points)


def _reference_distances(pred, ref, spacing):
    """All pairs of surface voxels, one by one."""
    a = [np.array(p) * spacing for p in _reference_surface(pred)]
    b = [np.array(p) * spacing for p in _reference_surface(ref)]
    forth = [min(np.linalg.norm(p - q) for q in b) for p in a]
    back = [min(np.linalg.norm(p - q) for p in a) for q in b]
    hd95 = max(np.percentile(forth, 95), np.percentile(back, 95))
    return hd95, max(forth + back), np.mean(forth + back)


def scores(pred, ref, label="GM", spacing=(1.0, 1.0, 1.0)):
    return next(row for row in score_labels(pred, ref, spacing, BRAIN_TISSUES) if row["label"] == label)


def test_dice_by_hand():
    pred = np.array([1, 1, 1, 0, 0], bool)[:, None, None]
    ref = np.array([0, 1, 1, 1, 1], bool)[:, None, None]
    assert dice(pred, ref) == pytest.approx(2 * 2 / (3 + 4))


def test_surface_is_what_the_naive_search_finds():
    mask = blob(1)
    assert {tuple(p) for p in np.argwhere(surface(mask)).tolist()} == _reference_surface(mask)


@pytest.mark.parametrize("seeds", [(1, 2), (3, 4)])
def test_distances_equal_all_pairs_with_anisotropic_spacing(seeds):
    pred, ref = blob(seeds[0]), blob(seeds[1])
    found = surface_distances(pred, ref, SPACING)
    assert (found.hd95_mm, found.hd_mm, found.assd_mm) == pytest.approx(
        _reference_distances(pred, ref, SPACING)
    )


@pytest.mark.parametrize("percentile", [95, 100])
def test_distances_equal_monai(percentile):
    pred, ref = blob(5, (20, 24, 18)), np.roll(blob(6, (20, 24, 18)), 3, axis=1)
    channels = [torch.as_tensor(m)[None, None] for m in (pred, ref)]
    expected = compute_hausdorff_distance(
        *channels, include_background=True, percentile=percentile, spacing=SPACING
    )
    found = surface_distances(pred, ref, SPACING)
    assert (found.hd95_mm if percentile == 95 else found.hd_mm) == pytest.approx(float(expected), abs=1e-4)


def test_hd95_takes_the_worse_direction_and_does_not_pool():
    ref = np.zeros((40, 12, 12), bool)
    ref[2:10, 2:10, 2:10] = True
    pred = ref.copy()
    pred[30:33, 2:5, 2:5] = True  # 26 of 322 surface voxels (8 %); of both surfaces pooled 26 of 618 (4 %)
    found = surface_distances(pred, ref, (1.0, 1.0, 1.0))
    assert found.hd95_mm > 20
    assert found == surface_distances(ref, pred, (1.0, 1.0, 1.0))


def test_shift_of_a_cube_gives_its_length_in_mm():
    ref = np.zeros((12, 12, 12), np.uint8)
    ref[2:7, 2:7, 2:7] = 1
    row = scores(np.roll(ref, 2, axis=2), ref, spacing=(1.0, 1.0, 1.5))
    assert row["hd_mm"] == pytest.approx(3.0)
    assert row["dice"] == pytest.approx(3 / 5)
    assert row["volume_pred_ml"] == row["volume_ref_ml"] == pytest.approx(125 * 1.5 / 1000)


def test_rows_follow_the_table_and_have_the_columns():
    table = LabelTable.from_rows([{"index": 200, "name": "left"}, {"index": 7, "name": "right"}])
    ref = np.zeros((4, 4, 4), np.uint8)
    ref[1], ref[2] = 200, 7
    rows = score_labels(ref, ref, (1.0, 1.0, 1.0), table)
    assert [row["label"] for row in rows] == ["right", "left"]
    assert all(tuple(row) == COLUMNS and row["dice"] == 1.0 and row["hd_mm"] == 0.0 for row in rows)


def test_label_in_neither_image_has_no_score():
    empty = np.zeros((4, 4, 4), np.uint8)
    row = scores(empty, empty)
    assert all(math.isnan(row[key]) for key in ("dice", "hd95_mm", "hd_mm", "assd_mm"))
    assert row["volume_pred_ml"] == row["volume_ref_ml"] == 0.0


def test_label_in_one_image_only_has_dice_zero_and_no_distance():
    empty, full = np.zeros((4, 4, 4), np.uint8), np.ones((4, 4, 4), np.uint8)
    for row in (scores(empty, full), scores(full, empty)):
        assert row["dice"] == 0.0
        assert math.isnan(row["hd95_mm"])


def test_unknown_voxels_are_left_out_on_both_sides():
    rng = np.random.default_rng(0)
    ref = np.ones((6, 6, 6), np.uint8)
    ref[4:] = 0
    pred = ref.copy()
    unknown = rng.random(ref.shape) < 0.3
    ref[unknown], pred[unknown] = UNKNOWN, 3
    row, csf = scores(pred, ref), scores(pred, ref, "CSF")
    assert row["dice"] == 1.0
    assert row["volume_pred_ml"] == row["volume_ref_ml"]
    assert math.isnan(csf["dice"])


def test_a_label_that_ends_at_unknown_voxels_has_no_surface_there():
    mask = np.zeros((9, 9, 9), bool)
    mask[2:7, 2:7, 4] = True
    unknown = np.ones_like(mask)
    unknown[:, :, 4] = False
    assert surface(mask, unknown).sum() == 16  # the rim of the one labeled slice
    assert surface(mask).sum() == 25


def test_cropping_does_not_make_a_surface_at_unknown_voxels():
    ref = np.full((9, 9, 9), UNKNOWN, np.uint8)
    ref[:, :, 4] = 0
    ref[2:7, 2:7, 4] = 1
    pred = np.where(ref == 1, 1, 0).astype(np.uint8)
    pred[4, 4, 4] = 0  # a hole: four new surface voxels, each 1 mm from the rim of 16
    assert scores(pred, ref)["assd_mm"] == pytest.approx(4 / (16 + 4 + 16))


def test_swapping_prediction_and_reference_changes_no_distance():
    pred, ref = (blob(seed).astype(np.uint8) for seed in (8, 9))
    there, back = scores(pred, ref, spacing=SPACING), scores(ref, pred, spacing=SPACING)
    assert {k: there[k] for k in ("dice", "hd95_mm", "hd_mm")} == {
        k: back[k] for k in ("dice", "hd95_mm", "hd_mm")
    }
    assert there["assd_mm"] == pytest.approx(back["assd_mm"])


def test_images_of_different_shape_are_refused():
    with pytest.raises(GridError, match=r"\(3, 3, 3\) against \(3, 3, 4\)"):
        score_labels(
            np.zeros((3, 3, 3), np.uint8), np.zeros((3, 3, 4), np.uint8), (1.0, 1.0, 1.0), BRAIN_TISSUES
        )


def row(subject, label, dice_value, distance=1.0, pred_ml=1.0, ref_ml=1.0):
    return {
        "subject": subject,
        "label": label,
        "dice": dice_value,
        "hd95_mm": distance,
        "hd_mm": distance,
        "assd_mm": distance,
        "volume_pred_ml": pred_ml,
        "volume_ref_ml": ref_ml,
    }


def test_summary_by_hand():
    nan = math.nan
    summary = summarize(
        [
            row("sub-01", "GM", 0.8),
            row("sub-02", "GM", 0.6, 3.0),
            row("sub-03", "GM", nan, nan, 0.0, 0.0),
            row("sub-01", "WM", 0.5),
            row("sub-02", "WM", 0.0, nan, 0.0, 1.0),
            row("sub-03", "WM", 0.0, nan, 1.0, 0.0),
        ]
    )
    gm, wm = summary.labels
    assert (gm.n, gm.n_excluded, gm.n_missed, gm.n_invented) == (2, 1, 0, 0)
    assert (wm.n, wm.n_excluded, wm.n_missed, wm.n_invented) == (3, 0, 1, 1)
    assert gm.mean["dice"] == pytest.approx(0.7)
    assert gm.sd["dice"] == pytest.approx(math.sqrt(0.02))
    assert wm.mean["hd95_mm"] == 1.0
    assert math.isnan(wm.sd["hd95_mm"])
    assert summary.mean_dice == pytest.approx((0.7 + 0.5 / 3) / 2)
    assert summary.n_subjects == 3


def test_summary_of_nothing_has_no_mean():
    assert math.isnan(summarize([]).mean_dice)
    assert math.isnan(summarize([row("sub-01", "GM", None, None)]).mean_dice)
