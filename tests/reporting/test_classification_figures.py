import itertools
import struct
import zlib

import numpy as np
import pytest

from medssl.reporting.classification_figures import (
    COLORS,
    MAX_RANKED,
    plot_class_scores,
    plot_confidences,
    plot_confusion,
    plot_critical_difference,
    plot_pareto,
    plot_reliability,
    plot_threshold,
    plot_training,
    thumbnail,
)
from medssl.reporting.figures import INK, figure_to_png, image_to_png

NAN = float("nan")


def texts(axis):
    return [text.get_text() for text in axis.texts]


def labels(axis):
    return [line.get_label() for line in axis.get_lines() if not line.get_label().startswith("_")]


def test_confusion_has_true_classes_in_rows_and_their_shares_as_color():
    (axis,) = plot_confusion([[3, 1, 0], [0, 0, 2], [0, 0, 0]], ["a", "b", "c"]).axes
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("true class", "predicted class")
    cells = np.asarray(axis.images[0].get_array())[..., 3]
    np.testing.assert_allclose(cells, [[0.75, 0.25, 0], [0, 0, 1], [0, 0, 0]])
    assert sorted((text.get_position(), text.get_text()) for text in axis.texts) == [
        ((0, 0), "3"), ((1, 0), "1"), ((2, 1), "2"),
    ]  # fmt: skip
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["a", "b", "c"]


def test_a_confusion_of_many_classes_has_no_numbers_and_short_names():
    (axis,) = plot_confusion(np.eye(20), [f"a class with a very long name, {n}" for n in range(20)]).axes
    assert texts(axis) == []
    assert all(len(tick.get_text()) <= 24 for tick in axis.get_xticklabels())


def test_reliability_draws_filled_bins_only_and_labeled_only_in_gray():
    arms = {
        "labeled-only": ([0, 4, 6], [NAN, 0.5, 0.9], [NAN, 0.6, 0.8]),
        "fixmatch": ([1, 0, 1], [0, NAN, 1], [0.1, NAN, 1]),
    }
    (axis,) = plot_reliability(arms).axes
    diagonal, first, second = axis.get_lines()
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert first.get_xydata().tolist() == [[0.6, 0.5], [0.8, 0.9]]
    assert (first.get_color(), second.get_color()) == (INK, COLORS[0])
    sizes = axis.collections[0].get_sizes()
    assert sizes[1] > sizes[0]


ROWS = [
    {"step": str(step), "loss": str(1 / step), "val_f1": str(step / 10) if step % 2 else ""}
    for step in range(1, 6)
]


def test_training_draws_what_was_measured():
    upper, lower = plot_training({"labeled-only": [ROWS], "ssldec": [ROWS[:1]]}).axes
    assert upper.get_lines()[0].get_xydata().tolist() == [[step, 1 / step] for step in range(1, 6)]
    assert lower.get_lines()[0].get_xydata().tolist() == [[1, 0.1], [3, 0.3], [5, 0.5]]
    assert labels(lower) == ["labeled-only", "ssldec"]
    assert lower.get_ylabel() == "validation macro F1"
    assert lower.get_lines()[1].get_marker() == "o"


def test_seeds_are_drawn_as_median_and_band_up_to_the_step_all_reach():
    more = [
        [{**row, "val_f1": float(row["val_f1"]) + 0.1 * shift} for row in ROWS if row["val_f1"]]
        for shift in range(3)
    ]
    more[2] = more[2][:2]
    _, lower = plot_training({"labeled-only": more}).axes
    assert lower.get_lines()[0].get_xydata() == pytest.approx(np.array([[1, 0.2], [3, 0.4]]))
    (band,) = lower.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.1, 0.5))


def test_a_long_loss_is_smoothed():
    rows = [{"step": step, "loss": 1 + (-1) ** step} for step in range(100)]
    upper, _ = plot_training({"labeled-only": [rows]}).axes
    assert len(upper.get_lines()[0].get_xydata()) == 96
    assert np.ptp(upper.get_lines()[0].get_ydata()) < 0.5


def test_class_scores_say_where_there_is_none():
    figure = plot_class_scores(["a", "b"], {"labeled-only": [0.5, NAN], "fixmatch": [0.7, 0.0]})
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [0.5, 0, 0.7, 0]
    assert texts(axis) == ["0.50", "n/a", "0.70", "0.00"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["labeled-only", "fixmatch"]


def test_threshold_shows_both_curves_and_the_one_in_use():
    (axis,) = plot_threshold([0, 0.5, 0.9], [0.8, 0.9, NAN], [1, 0.5, 0], 0.5).axes
    assert labels(axis) == ["right among the kept", "kept"]
    assert [text.strip() for text in texts(axis)] == ["threshold 0.5"]
    (without,) = plot_threshold([0, 0.5], [0.8, 0.9], [1, 0.5]).axes
    assert texts(without) == []


def test_confidences_are_bars_over_their_bins():
    (axis,) = plot_confidences([0, 0.5, 1], [3, 5], [0, 4]).axes
    assert [(bar.get_x(), bar.get_height()) for bar in axis.patches] == [(0, 3), (0.5, 5), (0, 0), (0.5, 4)]


def test_pareto_numbers_the_networks_and_colors_the_front():
    names = ["good", "unmeasured", "poor"]
    (axis,) = plot_pareto(names, [0.9, 0.99, 0.8], [2.0, NAN, 3.0], [5.0, 1.0, 20.0], ["good"], 10.0).axes
    assert texts(axis) == ["1", "3"]
    good, poor = axis.collections
    assert poor.get_sizes()[0] > good.get_sizes()[0]
    assert good.get_facecolor()[0][0] > 0.8
    (axis_alone,) = plot_pareto(names, [0.9, 0.99, 0.8], [2.0, NAN, 3.0], [5.0, 1.0, 20.0], ["good"]).axes
    assert {"2", "2.5", "3"} < {tick.get_text() for tick in axis_alone.get_xticklabels()}
    assert texts(plot_pareto([], [], [], [], []).axes[0]) == []


def test_pareto_joins_the_front_by_latency_and_names_all_below():
    names = ["slow", "poor", "fast"]
    given = [0.9, 0.5, 0.8], [20.0, 8.0, 2.0], [5.0, 6.0, 1.0], ["slow", "fast"]
    figure = plot_pareto(names, *given, key=True)
    (axis,) = figure.axes
    (joined,) = axis.lines
    assert list(zip(*joined.get_data(), strict=True)) == [(2.0, 0.8), (20.0, 0.9)]
    assert [text.get_text() for text in figure.texts] == ["1  slow, 5 MB", "2  poor, 6 MB", "3  fast, 1 MB"]
    assert figure.texts[0].get_position()[1] > figure.texts[2].get_position()[1] > 0
    assert not plot_pareto(names, *given).texts
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "2", "5", "10", "20"]


@pytest.mark.parametrize("max_ms", [0.02, 0.5, 3.0, 10.0, 100.0, 5000.0])
def test_the_numbers_below_pareto_reach_the_limit_and_do_not_overlap(max_ms):
    figure = plot_pareto(["a", "b"], [0.9, 0.8], [2.0, 3.0], [5.0, 1.0], ["a"], max_ms)
    figure_to_png(figure)
    (axis,) = figure.axes
    ticks = axis.get_xticks()
    assert min(ticks) / 2.6 <= max_ms <= 2.6 * max(ticks)
    assert not any("e" in label.get_text() for label in axis.get_xticklabels())
    boxes = [label.get_window_extent() for label in axis.get_xticklabels()]
    assert all(left.x1 + 1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_pareto_of_equal_times_has_a_number_below():
    (axis,) = plot_pareto(["a"], [0.9], [2.13], [5.0], ["a"]).axes
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["2.13"]


def test_critical_difference_joins_what_it_does_not_tell_apart():
    (axis,) = plot_critical_difference(["A", "B", "C"], [1.2, 1.9, 2.9], 1.05, ((0, 1), (1, 2)), "B").axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["A", "B", "C"]
    assert texts(axis) == ["critical difference 1.05"]
    lines = axis.get_lines()
    length, first, second = lines[3:]
    assert np.diff(length.get_xdata())[0] == pytest.approx(1.05)
    assert [list(bar.get_ydata()) for bar in (first, second)] == [[-0.2, 1.2], [0.8, 2.2]]
    assert [line.get_color() == COLORS[0] for line in lines[:3]] == [False, True, False]


def test_only_the_best_are_drawn():
    n = MAX_RANKED + 10
    (axis,) = plot_critical_difference(
        [f"n{k}" for k in range(n)], list(range(1, n + 1)), 5.0, ((0, 5), (28, 39), (35, 39))
    ).axes
    assert len(axis.get_yticklabels()) == MAX_RANKED
    assert len(axis.get_lines()) == MAX_RANKED + 3


@pytest.mark.parametrize("groups", [((0, 1),), ()])
def test_two_treatments_without_a_difference_are_drawn(groups):
    assert figure_to_png(plot_critical_difference(["A", "B"], [1.4, 1.6], groups=groups)).startswith(
        b"\x89PNG"
    )


def test_thumbnails_average_blocks_and_keep_8_bits():
    image = np.zeros((224, 336, 3), np.uint8)
    image[:, 168:] = (10, 20, 31)
    small = thumbnail(image)
    assert small.shape == (75, 112, 3)
    assert small[0, 0].tolist() == [0, 0, 0]
    assert small[-1, -1].tolist() == [10, 20, 31]
    assert (thumbnail(image[:50, :60]) == image[:50, :60]).all()
    by_hand = thumbnail(np.array([[0, 10, 4, 4], [20, 30, 4, 4]], np.uint8), side=2)
    assert by_hand[..., 0].tolist() == [[15, 4]]


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 1), (40, 30, 5)])
def test_thumbnails_of_other_types_are_stretched(shape):
    image = np.linspace(-3, 900, int(np.prod(shape))).reshape(shape).astype(np.float32)
    small = thumbnail(image)
    assert small.shape == (40, 30, 1)
    assert (small.min(), small.max()) == (0, 255)
    assert (thumbnail(np.full((4, 4), 7, np.uint16)) == 0).all()


@pytest.mark.parametrize(
    "figure",
    [
        plot_confusion([[3, 1], [0, 2]], ["no finding at all", "a finding"]),
        plot_confusion(np.eye(9), [f"a long name {n}" for n in range(9)]),
        plot_reliability({"labeled-only": ([3, 0], [0.5, NAN], [0.4, NAN])}),
        plot_training({"labeled-only": [ROWS], "ssldec": [ROWS, ROWS]}),
        plot_class_scores(["a"], {"labeled-only": [NAN]}),
        plot_threshold([0, 0.5], [0.8, NAN], [1, 0], 0.5),
        plot_confidences([0, 0.5, 1], [0, 0], [0, 0]),
        plot_pareto(["a"], [0.9], [2.0], [5.0], ["a"], 10.0),
        plot_critical_difference(["A", "B", "C"], [1.2, 1.9, 2.9], 1.05, ((0, 1), (1, 2)), "B"),
    ],
)
def test_figures_can_be_drawn_on_transparent_ground(figure):
    """Warnings are errors: of a layout that does not fit, of missing letters, of empty axes."""
    figure.set_dpi(30)
    assert figure_to_png(figure).startswith(b"\x89PNG")
    assert np.asarray(figure.canvas.buffer_rgba())[0, 0, 3] == 0


def unpacked(png, channels):
    width, height = struct.unpack(">II", png[16:24])
    start = png.index(b"IDAT")
    (size,) = struct.unpack(">I", png[start - 4 : start])
    rows = np.frombuffer(zlib.decompress(png[start + 4 : start + 4 + size]), np.uint8)
    return rows.reshape(height, 1 + width * channels)[:, 1:].reshape(height, width, channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_written_as_they_are(channels):
    image = np.random.default_rng(0).integers(0, 256, (7, 5, channels)).astype(np.uint8)
    png = image_to_png(image)
    assert png.startswith(b"\x89PNG")
    assert png[25] == {1: 0, 3: 2}[channels]  # gray or color, in the header
    assert (unpacked(png, channels) == image).all()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3))]
)
def test_other_pictures_are_refused(image):
    with pytest.raises(ValueError, match="uint8"):
        image_to_png(image)
