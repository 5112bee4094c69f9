import struct
import zlib

import numpy as np
import pytest
from matplotlib.colors import to_hex

from medssl.errors import GridError
from medssl.geometry import Grid
from medssl.labels import BRAIN_TISSUES, UNKNOWN, LabelTable
from medssl.reporting import figures
from medssl.reporting.figures import (
    CONVENTION,
    figure_to_png,
    plot_dice,
    plot_label_maps,
    plot_learning_curve,
    plot_subject,
    plot_volumes,
)

SHAPE = (16, 20, 12)
RAS = np.array([[1.0, 0, 0, -8], [0, 1.5, 0, -10], [0, 0, 2, 30], [0, 0, 0, 1]])


@pytest.fixture
def brain():
    """A ball of three tissues and its T1w."""
    distance = np.linalg.norm((np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2) / (5, 6, 4), axis=-1).T
    labels = np.select([distance < 0.5, distance < 0.8, distance < 1], [2, 1, 3], 0).astype(np.uint8)
    image = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32) * (labels > 0)
    return image, labels


def pixels(png):
    """Decode a palette PNG without filters into RGBA."""
    width, height = struct.unpack(">II", png[16:24])
    chunks, place = {}, 8
    while place < len(png):
        (size,) = struct.unpack(">I", png[place : place + 4])
        chunks[png[place + 4 : place + 8]] = png[place + 8 : place + 8 + size]
        place += size + 12
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    color = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    alpha = np.frombuffer(chunks[b"tRNS"], np.uint8)
    return np.dstack([color[rows[:, 1:]], alpha[rows[:, 1:]]])


def texts(figure):
    found = [text.get_text() for text in figure.texts]
    for axis in figure.axes:
        found += [axis.get_title(), axis.get_ylabel(), *(text.get_text() for text in axis.texts)]
    return found


def pictures(figure, columns):
    """The RGB panels of a subject's figure, one row a view."""
    panels = [axis.images[0].get_array() for axis in figure.axes]
    return [panels[start : start + columns] for start in range(0, len(panels), columns)]


def test_columns_are_contrasts_result_and_reference(brain):
    image, labels = brain
    figure = plot_subject(
        {"T1w": image, "T2w": image}, labels, labels, Grid(SHAPE, RAS), BRAIN_TISSUES, "sub-01"
    )
    assert [axis.get_title() for axis in figure.axes[:4]] == ["T1w", "T2w", "result", "against reference"]
    assert len(figure.axes) == 12


def test_one_contrast_and_nine_labels_without_reference(brain):
    image, labels = brain
    table = LabelTable.from_rows([{"index": 20 * n, "name": f"structure {n}"} for n in range(1, 10)])
    many = np.where(labels > 0, 20 * (1 + np.indices(SHAPE)[0] % 9), 0).astype(np.uint8)
    figure = plot_subject({"T1w": image}, many, None, Grid(SHAPE, RAS), table, "sub-01")
    assert len(figure.axes) == 6
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key == [label.name for label in table.foreground]
    used = {to_hex(tuple(color)) for color in pictures(figure, 2)[0][1].reshape(-1, 3)}
    assert used & {label.color for label in table.foreground}


def test_filled_panel_holds_table_colors_where_labels_are(brain):
    image, labels = brain
    figure = plot_subject({"T1w": image}, labels, None, Grid(SHAPE, RAS), BRAIN_TISSUES, "sub-01")
    found = {to_hex(tuple(color)) for color in pictures(figure, 2)[0][1].reshape(-1, 3)}
    assert {label.color for label in BRAIN_TISSUES.foreground} <= found


def test_label_maps_stand_side_by_side_in_table_colors(brain):
    image, labels = brain
    maps = {"teacher": np.zeros_like(labels), "target": labels}
    figure = plot_label_maps(image, maps, Grid(SHAPE, RAS), BRAIN_TISSUES, contrast="T1w")
    assert [axis.get_title() for axis in figure.axes[:3]] == ["T1w", "teacher", "target"]
    assert len(figure.axes) == 9
    used = [{to_hex(tuple(color)) for color in panel.reshape(-1, 3)} for panel in pictures(figure, 3)[0]]
    colors = {label.color for label in BRAIN_TISSUES.foreground}
    assert not colors & used[1]
    assert colors <= used[2]


def test_label_maps_of_another_shape_are_refused(brain):
    image, labels = brain
    with pytest.raises(GridError, match="teacher"):
        plot_label_maps(image, {"teacher": labels[1:], "target": labels}, Grid(SHAPE, RAS), BRAIN_TISSUES)


@pytest.mark.parametrize(
    ("axcodes", "permutation", "flips"),
    [("LPI", (0, 1, 2), (0, 1, 2)), ("SRA", (2, 0, 1), ()), ("AIL", (1, 2, 0), (1, 2))],
)
def test_any_voxel_order_gives_the_same_picture(brain, axcodes, permutation, flips):
    image, labels = brain
    affine = RAS[:, [*permutation, 3]].copy()
    turned = [np.flip(volume.transpose(permutation), flips) for volume in (image, labels)]
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (turned[0].shape[axis] - 1)
        affine[:3, axis] *= -1
    grid = Grid(turned[0].shape, affine)
    assert grid.axcodes == axcodes
    there = plot_subject({"T1w": turned[0]}, turned[1], None, grid, BRAIN_TISSUES, "sub-01")
    here = plot_subject({"T1w": image}, labels, None, Grid(SHAPE, RAS), BRAIN_TISSUES, "sub-01")
    assert figure_to_png(there) == figure_to_png(here)


def test_right_is_on_the_left_and_anterior_and_superior_on_top(brain):
    image, labels = brain
    labels[:] = np.where(labels > 0, 1, 0)
    labels[11:, :, :][labels[11:, :, :] > 0] = 3  # the subject's right
    labels[:, 14:, :][labels[:, 14:, :] > 0] = 2  # anterior
    figure = plot_subject({"T1w": image}, labels, None, Grid(SHAPE, RAS), BRAIN_TISSUES, "sub-01")
    axis = figure.axes[1]
    left, right = axis.get_xlim()
    bottom, top = axis.get_ylim()
    assert left > right  # positive positions (right) come first
    assert top > bottom
    panel = pictures(figure, 2)[0][1]  # (anterior, right, color)
    rows, columns = np.nonzero([[to_hex(tuple(c)) == "#3b82c4" for c in row] for row in panel])
    assert columns.min() > panel.shape[1] / 2
    rows, _ = np.nonzero([[to_hex(tuple(c)) == "#f4f1e4" for c in row] for row in panel])
    assert rows.min() > panel.shape[0] / 2


def test_letters_position_window_and_convention_are_printed(brain):
    image, labels = brain
    figure = plot_subject(
        {"T1w": image}, labels, None, Grid(SHAPE, RAS), BRAIN_TISSUES, "sub-01", age_months=6
    )
    found = texts(figure)
    assert {"R", "L", "A", "P", "S", "I"} <= set(found)
    assert "sub-01, 6 months" in found
    # widest axial slice: index 5 of 12 (the first of two equal ones), 30 + 2 * 5 mm
    assert "axial, S 40 mm" in found
    note = next(text for text in found if CONVENTION in text)
    low, high = np.percentile(image[labels > 0], (1, 99))
    assert f"percentiles 1 to 99 of the brain, T1w {low:.4g} to {high:.4g}" in note


def test_unknown_voxels_get_no_contour(brain, monkeypatch):
    image, labels = brain
    seen = []
    monkeypatch.setattr(figures, "_draw_contours", lambda axis, values, *rest, **style: seen.append(values))
    reference = np.where(labels == 2, UNKNOWN, labels).astype(np.uint8)
    plot_subject({"T1w": image}, labels, reference, Grid(SHAPE, RAS), BRAIN_TISSUES, "sub-01")
    assert all(2 not in values for values in seen)
    assert len(seen) == 6


@pytest.mark.parametrize("value", [0, 1])
def test_an_empty_or_full_result_is_drawn(brain, value):
    image, _ = brain
    labels = np.full(SHAPE, value, np.uint8)
    figure = plot_subject({"T1w": image}, labels, labels, Grid(SHAPE, RAS), BRAIN_TISSUES, "")
    assert figure_to_png(figure).startswith(b"\x89PNG")


def test_a_volume_on_another_grid_is_refused(brain):
    image, labels = brain
    with pytest.raises(GridError, match="'T2w'"):
        plot_subject({"T2w": image[1:]}, labels, None, Grid(SHAPE, RAS), BRAIN_TISSUES, "sub-01")


def test_png_is_transparent_outside_the_panels_and_shows_the_figure(brain):
    image, labels = brain
    figure = plot_subject({"T1w": image}, labels, None, Grid(SHAPE, RAS), BRAIN_TISSUES, "sub-01")
    shown = pixels(figure_to_png(figure))
    assert shown[0, 0, 3] == 0
    drawn = np.asarray(figure.canvas.buffer_rgba()).astype(int)
    assert np.abs(drawn - shown)[drawn[..., 3] > 0].mean() < 3
    assert figure_to_png(figure) == figure_to_png(figure)


def test_a_noisy_brain_of_ordinary_size_stays_below_300_kb():
    shape = (110, 140, 120)
    inside = np.linalg.norm((np.indices(shape).T - np.array(shape) / 2) / (50, 65, 55), axis=-1).T < 1
    rng = np.random.default_rng(0)
    image = rng.normal(100, 20, shape).astype(np.float32) * inside
    labels = (rng.integers(1, 4, (11, 14, 12)).repeat(10, 0).repeat(10, 1).repeat(10, 2) * inside).astype(
        np.uint8
    )
    grid = Grid(shape, np.eye(4))
    png = figure_to_png(
        plot_subject({"T1w": image, "T2w": image}, labels, labels, grid, BRAIN_TISSUES, "sub-01")
    )
    assert len(png) < 300_000


ROWS = [
    {"step": "25", "loss": "1.2", "val_dice": "", "val_dice_GM": ""},
    {"step": "50", "loss": "0.9", "val_dice": "0.5", "val_dice_GM": "0.6"},
    {"step": "75", "loss": "0.7", "val_dice": "0.7", "val_dice_GM": "0.8"},
]


def test_learning_curve_draws_what_was_measured():
    loss, dice = plot_learning_curve(ROWS, BRAIN_TISSUES).axes
    assert loss.get_lines()[0].get_xydata().tolist() == [[25, 1.2], [50, 0.9], [75, 0.7]]
    by_name = {line.get_label(): line for line in dice.get_lines()}
    assert by_name["GM"].get_xydata().tolist() == [[50, 0.6], [75, 0.8]]
    assert by_name["GM"].get_color() == "#e6a817"
    assert by_name["mean"].get_ydata().tolist() == [0.5, 0.7]
    assert "WM" not in by_name


def test_learning_curve_without_validation_shows_the_loss_alone():
    rows = [{"step": row["step"], "loss": row["loss"]} for row in ROWS]
    assert len(plot_learning_curve(rows, BRAIN_TISSUES).axes) == 1


def test_a_long_loss_gets_its_running_mean():
    rows = [{"step": step, "loss": 1.0 + step % 2} for step in range(200)]
    raw, smooth = plot_learning_curve(rows, BRAIN_TISSUES).axes[0].get_lines()
    assert len(raw.get_xdata()) == 200
    np.testing.assert_allclose(smooth.get_ydata(), 1.5)
    assert smooth.get_xdata()[0] == 5


def test_dice_strips_show_every_subject_and_the_median():
    rows = [{"label": "GM", "dice": dice} for dice in (0.7, 0.9, 0.8, float("nan"))]
    (axis,) = plot_dice([*rows, {"label": "WM", "dice": 0.5}], BRAIN_TISSUES).axes
    strips = [
        points.get_offsets()[:, 0].tolist() for points in axis.collections if len(points.get_offsets()) > 0
    ]
    assert [0.7, 0.9, 0.8] in strips
    assert axis.get_xlim()[0] <= 0.5
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["GM", "WM", "CSF"]


def test_volumes_start_at_zero_and_take_their_colors_from_the_table():
    (axis,) = plot_volumes([{"GM_ml": "400", "WM_ml": "300", "CSF_ml": "n/a"}], BRAIN_TISSUES).axes
    assert axis.get_xlim()[0] == 0
    assert to_hex(axis.collections[0].get_facecolor()[0]) == "#e6a817"


@pytest.mark.parametrize("plot", [plot_dice, plot_volumes, plot_learning_curve])
def test_plots_are_transparent_and_survive_no_rows(plot):
    figure = plot([], BRAIN_TISSUES)
    assert pixels(figure_to_png(figure))[0, 0, 3] == 0
