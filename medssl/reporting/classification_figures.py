"""Figures of classification: what was confused, how sure it was, what a threshold keeps, which network to choose.

As in `medssl.reporting.figures`: every ``plot_*`` takes plain numbers and returns a `Figure` on a transparent
ground, legible on a light and on a dark page. Labeled-only is gray throughout, methods are colored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite, isnan, nan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from medssl.reporting.figures import INK, blank_figure, quiet_axis

COLORS = ("#d1870a", "#3b82c4", "#4c9a60", "#9166b3", "#c2523c", "#2f9a9a")
"""Of the methods, in their order; they begin again after the last."""

MAX_RANKED = 30
"""Treatments a critical-difference diagram shows."""

MAX_COUNTED = 14
"""Classes up to which a confusion matrix has its numbers written in."""

SMOOTHED_FROM = 60

_KEY_LINE = 0.19  # inches
_WIDTH = 4.7
_LABEL = 9

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, object]]


def color_of(place: int) -> str:
    """Return the color of an arm: gray for the first, labeled-only."""
    return INK if place == 0 else COLORS[(place - 1) % len(COLORS)]


def plot_confusion(confusion: Sequence[Sequence[float]], classes: Sequence[str]) -> Figure:
    """Draw how many images of each class (row) were called what (column); the color is the share of the row.

    Args:
        confusion: Images per true class and predicted class.
        classes: Names.

    Shapes:
        confusion: ``(K, K)``
    """
    counts = np.asarray(confusion, dtype=np.float64)
    k = len(classes)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    longest = max(map(len, classes))
    side = min(0.26 * k + 1.0, 4.4) if k > 6 else 2.6
    upright = longest * k <= 26
    figure = blank_figure(
        max(side + 0.5 + 0.07 * min(longest, 24), _WIDTH),
        side + 0.45 + (0 if upright else 0.05 * min(longest, 24)),
    )
    axis = figure.subplots()
    cells = np.ones((k, k, 4))
    cells[..., :3] = np.array([0x3B, 0x82, 0xC4]) / 255
    cells[..., 3] = share
    axis.imshow(cells, interpolation="nearest")
    if k <= MAX_COUNTED:
        _write_counts(axis, counts, share)
    names = [_short(name, 24) for name in classes]
    turn = {} if upright else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(range(k), names, **turn)
    axis.set_yticks(range(k), names)
    _axis(axis, "predicted class", "true class")
    axis.grid(visible=False)
    axis.set_xticks(np.arange(k + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(k + 1) - 0.5, minor=True)
    axis.grid(which="minor", color=INK, alpha=0.22, linewidth=0.6)
    axis.tick_params(which="minor", length=0)
    axis.tick_params(labelsize=8.5 if k <= 12 else 6)
    figure.set_layout_engine("constrained")
    return figure


def plot_reliability(
    arms: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float]]],
) -> Figure:
    """Draw the share of right answers against the confidence; on the dotted line a network is as sure as right.

    Args:
        arms: Name -> (images, accuracy, mean confidence) of each bin; labeled-only first. The area of a dot
            grows with its images.
    """
    figure = blank_figure(3.9, 3.6 + 0.2 * ((len(arms) + 1) // 2))
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle=(0, (1, 2)))
    for place, (name, bins) in enumerate(arms.items()):
        count, accuracy, confidence = (np.asarray(one, dtype=np.float64) for one in bins)
        filled = count > 0
        color = color_of(place)
        axis.plot(confidence[filled], accuracy[filled], color=color, linewidth=1.3, alpha=0.8)
        area = 8 + 90 * count[filled] / max(count.sum(), 1)
        axis.scatter(
            confidence[filled], accuracy[filled], s=area, color=color, label=_short(name, 32), zorder=3
        )
    _axis(axis, "confidence", "share of right answers")
    axis.set_xlim(-0.02, 1.03)
    axis.set_ylim(-0.03, 1.03)
    axis.set_aspect("equal")
    _key_above(figure, axis)
    figure.set_layout_engine("constrained")
    return figure


def plot_training(
    runs: Mapping[str, Sequence[Rows]], score: str = "val_f1", quantity: str = "macro F1"
) -> Figure:
    """Draw the training loss and the validation score over the steps, one color an arm.

    Args:
        runs: Name -> the rows of ``metrics.tsv`` of each of its seeds; labeled-only first. Of several seeds the
            median is drawn, with a band from the least to the greatest.
        score: Column of the score.
        quantity: Its name.
    """
    figure = blank_figure(_WIDTH, 4.3)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for place, (name, seeds) in enumerate(runs.items()):
        losses = [_smooth(_curve(rows, "loss")) for rows in seeds]
        _draw_seeds(upper, losses, color_of(place), "")
        _draw_seeds(lower, [_curve(rows, score) for rows in seeds], color_of(place), name)
    _axis(upper, "", "training loss")
    _axis(lower, "step", f"validation {quantity}")
    lower.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _key(lower, "lower right")
    figure.set_layout_engine("constrained")
    return figure


def plot_class_scores(
    classes: Sequence[str], arms: Mapping[str, Sequence[float]], quantity: str = "F1"
) -> Figure:
    """Draw a score of every class as bars, one an arm.

    Args:
        classes: Names.
        arms: Name -> score of each class, NaN where there is none; labeled-only first.
        quantity: What the score is.
    """
    bar = 0.8 / len(arms)
    figure = blank_figure(_WIDTH, len(classes) * max(0.3, 0.13 * len(arms) + 0.12) + 0.9)
    axis = figure.subplots()
    middle = np.arange(len(classes))
    for place, (name, values) in enumerate(arms.items()):
        heights = middle + (place - (len(arms) - 1) / 2) * bar
        lengths = np.asarray(values, dtype=np.float64)
        axis.barh(heights, np.nan_to_num(lengths), 0.88 * bar, color=color_of(place), label=_short(name, 32))
        for height, length in zip(heights, lengths, strict=True):
            text, x = ("n/a", 0.0) if isnan(length) else (f"{length:.2f}", length)
            axis.text(x + 0.01, height, text, color=INK, fontsize=7, va="center", ha="left")
    axis.set_yticks(middle, [_short(name, 24) for name in classes])
    axis.set_ylim(len(classes) - 0.5, -0.5)
    axis.set_xlim(0, 1.09)
    _axis(axis, quantity, "")
    axis.grid(visible=False, axis="y")
    _key_above(figure, axis)
    figure.set_layout_engine("constrained")
    return figure


def plot_threshold(
    thresholds: Sequence[float],
    precision: Sequence[float],
    coverage: Sequence[float],
    chosen: float | None = None,
) -> Figure:
    """Draw what a threshold on the confidence would keep of the validation images, and how much of it is right.

    Args:
        thresholds: Rising.
        precision: Share of the kept labels that is right, NaN where none is kept.
        coverage: Share of the images kept.
        chosen: The threshold in use, or None.
    """
    figure = blank_figure(_WIDTH, 2.9)
    axis = figure.subplots()
    axis.plot(thresholds, precision, color=COLORS[0], linewidth=1.8, marker=".", label="right among the kept")
    axis.plot(thresholds, coverage, color=COLORS[1], linewidth=1.8, marker=".", label="kept")
    if chosen is not None:
        axis.axvline(chosen, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
        side = "right" if chosen > 0.5 else "left"
        axis.text(
            chosen, 1.04, f" threshold {chosen:g} ", color=INK, fontsize=8, ha=side, va="bottom",
        )  # fmt: skip
    _axis(axis, "threshold on the confidence", "share of validation images")
    axis.set_ylim(0, 1.03)
    _key(axis, "lower left")
    figure.set_layout_engine("constrained")
    return figure


def plot_confidences(edges: Sequence[float], counts: Sequence[int], kept: Sequence[int]) -> Figure:
    """Draw how sure the teachers are of the unlabeled images, and which of these are kept.

    Args:
        edges: Ends of the bins, one more than bins.
        counts: Images per bin.
        kept: Kept images per bin.
    """
    figure = blank_figure(_WIDTH, 2.4)
    axis = figure.subplots()
    width = np.diff(edges)
    left = np.asarray(edges[:-1], dtype=np.float64)
    axis.bar(left, counts, 0.92 * width, align="edge", color=INK, alpha=0.45, label="all")
    axis.bar(left, kept, 0.92 * width, align="edge", color=COLORS[1], label="kept")
    _axis(axis, "confidence", "unlabeled images")
    axis.grid(visible=False, axis="x")
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.set_xlim(0, 1)
    _key(axis, "upper left")
    figure.set_layout_engine("constrained")
    return figure


def plot_pareto(
    names: Sequence[str],
    macro_f1: Sequence[float],
    p50_ms: Sequence[float],
    size_mb: Sequence[float],
    front: Sequence[str],
    max_ms: float | None = None,
    *,
    key: bool = False,
) -> Figure:
    """Draw macro F1 against latency; the area of a dot is the size of the file, its number the place in the names.

    Args:
        names: Of the networks, counted from 1.
        macro_f1: 0 to 1.
        p50_ms: Median latency of one image in ms, on a logarithmic axis.
        size_mb: In MB.
        front: Names of those that none other beats in everything; they are colored and joined, the others gray.
        max_ms: Longest latency allowed, drawn as a line.
        key: Write the names and sizes below, for a picture that has no table beside it.
    """
    rows = zip(names, macro_f1, p50_ms, size_mb, strict=True)
    measured = [(number, row) for number, row in enumerate(rows, start=1) if all(map(isfinite, row[1:]))]
    lines = len(measured) if key else 0
    figure = blank_figure(_WIDTH, 3.5 + _KEY_LINE * lines)
    axis = figure.subplots()
    ahead = sorted((ms, score) for _, (name, score, ms, _) in measured if name in front)
    axis.plot(*zip(*ahead, strict=True) if ahead else ((), ()), color=COLORS[0], linewidth=1.2, alpha=0.6)
    largest = max((mb for _, (*_, mb) in measured), default=1.0)
    for number, (name, score, ms, mb) in measured:
        color, alpha = (COLORS[0], 0.7) if name in front else (INK, 0.4)
        area = 18 + 240 * mb / largest
        axis.scatter(ms, score, s=area, color=color, alpha=alpha, zorder=3)
        axis.annotate(
            str(number), (ms, score), xytext=(0, 0.55 * np.sqrt(area) + 1.5), textcoords="offset points",
            ha="center", va="bottom", color=INK, fontsize=8, weight="bold" if name in front else "normal",
        )  # fmt: skip
    axis.set_xscale("log")
    if max_ms is not None:
        axis.axvline(max_ms, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    _axis(axis, "median latency of one image, ms", "macro F1")
    _plain_log_ticks(axis, [*(ms for _, (_, _, ms, _) in measured), *([] if max_ms is None else [max_ms])])
    axis.margins(x=0.12, y=0.16)
    axis.set_yticks([tick for tick in axis.get_yticks() if 0 <= tick <= 1])  # the margin may reach beyond
    figure.set_layout_engine("constrained", rect=_above(lines, figure))
    for line, (number, (name, _, _, mb)) in enumerate(measured if key else ()):
        height = _KEY_LINE * (lines - line - 0.6) / figure.get_figheight()
        weight = "bold" if name in front else "normal"
        text = f"{number}  {_short(name, 48)}, {mb:.3g} MB"
        figure.text(0.03, height, text, color=INK, fontsize=8, weight=weight)
    return figure


def plot_critical_difference(
    names: Sequence[str],
    mean_ranks: Sequence[float],
    difference: float = nan,
    groups: Sequence[tuple[int, int]] = (),
    control: str | None = None,
) -> Figure:
    """Draw mean ranks from the best down; a bar at the right joins those that Nemenyi's test does not tell apart.

    Args:
        names: By rising mean rank; the first `MAX_RANKED` are shown.
        mean_ranks: 1 is the best possible.
        difference: The critical one, drawn as a length at the top; NaN for none.
        groups: First and last place of every such bar.
        control: Drawn in another color.
    """
    shown = min(len(names), MAX_RANKED)
    figure = blank_figure(_WIDTH, 0.22 * shown + 0.95)
    axis = figure.subplots()
    for row, (name, rank) in enumerate(zip(names[:shown], mean_ranks, strict=False)):
        color = COLORS[0] if name == control else COLORS[1]
        axis.plot([1, rank], [row, row], color=color, linewidth=1.2, alpha=0.55)
        axis.scatter([rank], [row], s=26, color=color, zorder=3)
    if isfinite(difference):
        first = mean_ranks[0]
        axis.plot([first, first + difference], [-1.1, -1.1], color=INK, linewidth=2.2, solid_capstyle="butt")
        axis.text(first, -1.45, f"critical difference {difference:.2f}", color=INK, fontsize=8, va="bottom")
    right = max(*mean_ranks[:shown], mean_ranks[0] + difference if isfinite(difference) else 0)
    step = 0.035 * max(right - 1, 0.5)
    for number, (top, bottom) in enumerate(
        (top, min(low, shown - 1)) for top, low in groups if top < shown - 1
    ):
        place = right + (1.5 + number) * step
        axis.plot([place, place], [top - 0.2, bottom + 0.2], color=INK, linewidth=3.0, solid_capstyle="butt")
    axis.set_yticks(range(shown), [_short(name, 34) for name in names[:shown]])
    axis.set_ylim(shown - 0.4, -2.4 if isfinite(difference) else -0.6)
    _axis(axis, "mean rank (1 is best)", "")
    axis.grid(visible=False, axis="y")
    figure.set_layout_engine("constrained")
    return figure


def thumbnail(image: NDArray[np.generic], side: int = 112) -> NDArray[np.uint8]:
    """Shrink an image by whole steps until its longer side fits, and stretch its values to 8 bits.

    Args:
        image: Values of any type; a picture of 8 bits keeps them, another is stretched from its least to its
            greatest value.
        side: Pixels.

    Shapes:
        image: ``(H, W)``, ``(H, W, 1)`` or ``(H, W, C)``; of more than three channels the first is shown
        return: ``(h, w, 1)`` or ``(h, w, 3)``
    """
    picture = image[..., None] if image.ndim == 2 else image
    picture = picture if picture.shape[2] == 3 else picture[..., :1]
    step = max(1, -(-max(picture.shape[:2]) // side))
    small = picture.astype(np.float64)
    for axis, size in enumerate(picture.shape[:2]):
        small = _block_means(small, axis, -(-size // step))
    if image.dtype != np.uint8:
        low, high = float(small.min()), float(small.max())
        small = (small - low) * (255 / (high - low) if high > low else 0.0)
    return np.round(small).astype(np.uint8)


def _block_means(picture: Floats, axis: int, parts: int) -> Floats:
    """Average an axis over parts of (almost) equal length."""
    size = picture.shape[axis]
    starts = np.arange(parts) * size // parts
    lengths = np.diff(starts, append=size).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    return np.asarray(np.add.reduceat(picture, starts, axis=axis) / lengths)


def _axis(axis: Axes, across: str, up: str) -> None:
    """Name both directions and give the axis the quiet look."""
    quiet_axis(axis, up)
    axis.set_xlabel(across, color=INK)
    axis.xaxis.label.set_size(_LABEL)
    axis.yaxis.label.set_size(_LABEL)


def _write_counts(axis: Axes, counts: Floats, share: Floats) -> None:
    size = 9 if len(counts) <= 6 else 7
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            color = "white" if share[row, column] > 0.55 else INK
            text = f"{counts[row, column]:.0f}"
            axis.text(column, row, text, color=color, fontsize=size, ha="center", va="center")


def _curve(rows: Rows, column: str) -> Floats:
    """Collect (step, value) where the column was measured, ``(N, 2)``."""
    points = [(_number(row.get("step")), _number(row.get(column))) for row in rows]
    known = [point for point in points if not isnan(sum(point))]
    return np.array(known, dtype=np.float64).reshape(-1, 2)


def _smooth(points: Floats) -> Floats:
    """Replace many values by their running mean over a twentieth of them."""
    if len(points) < SMOOTHED_FROM:
        return points
    width = len(points) // 20
    mean = np.convolve(points[:, 1], np.ones(width) / width, mode="valid")
    return np.stack([points[width // 2 : width // 2 + len(mean), 0], mean], axis=1)


def _draw_seeds(axis: Axes, curves: Sequence[Floats], color: str, name: str) -> None:
    """Draw the median of several curves with a band, at the steps of the longest one that every one reaches."""
    drawn = [curve for curve in curves if len(curve)]
    if not drawn:
        return
    last = min(curve[-1, 0] for curve in drawn)
    steps = max(drawn, key=len)[:, 0]
    steps = steps[steps <= last]
    values = np.array([np.interp(steps, curve[:, 0], curve[:, 1]) for curve in drawn])
    marker = "o" if len(steps) == 1 else None
    axis.plot(
        steps,
        np.median(values, axis=0),
        color=color,
        linewidth=1.7,
        marker=marker,
        label=_short(name, 32) or None,
    )
    if len(drawn) > 1:
        axis.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0)


def _above(lines: int, figure: Figure) -> tuple[float, float, float, float]:
    """Return the part of a figure above some lines of names: left, bottom, width, height."""
    below = _KEY_LINE * lines / figure.get_figheight()
    return (0.0, below, 1.0, 1.0 - below)


def _plain_log_ticks(axis: Axes, values: Sequence[float]) -> None:
    """Write 1, 2, 5, 10, ... below a logarithmic axis, more numbers where it is short, fewer where it is long."""
    low, high = min(values, default=1.0), max(values, default=1.0)
    digits: Sequence[float] = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    if high > 4 * low:
        digits = (1, 2, 5) if high < 500 * low else (1,)
    ticks = [digit * 10.0**power for power in range(-3, 7) for digit in digits]
    near = [tick for tick in ticks if low / 2 <= tick <= high * 2]
    if not any(low <= tick <= high for tick in near):
        near = [low]
    axis.set_xticks(near, [f"{float(f'{tick:.3g}'):g}" for tick in near])  # 1000, not 1e+03
    axis.set_xticks([], minor=True)


def _key_above(figure: Figure, axis: Axes) -> None:
    """Set the legend above the axes, where it hides nothing."""
    handles, _ = axis.get_legend_handles_labels()
    figure.legend(
        handles=handles, frameon=False, labelcolor=INK, fontsize=8, ncols=2, loc="outside upper left"
    )


def _key(axis: Axes, place: str) -> None:
    handles, _ = axis.get_legend_handles_labels()
    if handles:
        axis.legend(frameon=False, labelcolor=INK, fontsize=8, loc=place)


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _number(value: object) -> float:
    number = nan if value in (None, "", "n/a") else float(str(value))
    return number if abs(number) < inf else nan
