"""Figures: three views of a subject, learning curves, Dice and volumes.

Every ``plot_*`` takes arrays or rows and returns a `Figure`; nothing is shown or saved. Backgrounds are
transparent and lettering is mid-gray, so that a figure is legible on a light and on a dark page. Colors of
labels come from the label table alone.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medssl.errors import GridError
from medssl.geometry import Grid
from medssl.labels import UNKNOWN, LabelTable

INK = "#7d858f"
"""Lettering and rules: legible on white and on near-black."""

WINDOW_PERCENTILES = (1.0, 99.0)
"""Black and white of a picture, as percentiles of the intensities in the brain."""

SMOOTHED_FROM = 60
"""Values from which a loss is drawn with a running mean over a twentieth of them."""

CONVENTION = "radiological: the subject's right is on the left"

LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))
_MARGIN_MM = 5.0
_WIDTH_INCHES = 7.4
_PANEL_INCHES = 2.4
_GRAY_LEVELS = 63
_DIMMED = 0.5
_DPI = 140
_PLOT_DPI = 200

Rows = Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class View:
    """One of the three ways to look at a volume in RAS+ order; positive directions point left and up.

    Args:
        name: "axial", "coronal" or "sagittal".
        normal: Axis the slice is cut from.
        across: Axis drawn horizontally.
        up: Axis drawn vertically.
    """

    name: str
    normal: int
    across: int
    up: int


def slice_of(volume: NDArray[np.number], view: View, index: int) -> NDArray[np.number]:
    """Return one slice of a volume in RAS+ order as a view of it; `np.take` copies from the whole volume, slowly.

    Shapes:
        volume: ``(R, A, S, ...)``; slice: across and up, then the rest
    """
    return np.moveaxis(volume, view.normal, 0)[index]


VIEWS = (View("axial", 2, 0, 1), View("coronal", 1, 0, 2), View("sagittal", 0, 1, 2))


@dataclass(frozen=True)
class _Scene:
    """Volumes of one subject, turned to RAS+ order and cropped to what is worth seeing."""

    images: Mapping[str, NDArray[np.float32]]
    windows: Mapping[str, tuple[float, float]]
    result: NDArray[np.integer]
    reference: NDArray[np.integer] | None
    affine: NDArray[np.float64]
    spacing: NDArray[np.float64]
    table: LabelTable

    @property
    def extent_mm(self) -> NDArray[np.float64]:
        """Size of the field of view along R, A, S."""
        return np.asarray(self.spacing * self.result.shape)

    def slice_index(self, view: View) -> int:
        """Return the slice that holds the most labeled voxels, or the middle one without any."""
        others = (view.across, view.up)
        counts = np.count_nonzero(self.result, axis=others)
        return int(counts.argmax()) if counts.any() else self.result.shape[view.normal] // 2

    def position_mm(self, view: View, index: int) -> float:
        """Return where the middle of a slice lies along its normal."""
        voxel = (np.array(self.result.shape) - 1) / 2
        voxel[view.normal] = index
        return float(self.affine[view.normal, :3] @ voxel + self.affine[view.normal, 3])


def plot_subject(
    images: Mapping[str, NDArray[np.number]],
    result: NDArray[np.integer],
    reference: NDArray[np.integer] | None,
    grid: Grid,
    table: LabelTable,
    title: str,
    age_months: float | None = None,
) -> Figure:
    """Draw three views of a subject: each contrast, the result, and the result against the reference.

    Args:
        images: Contrast name -> intensities, drawn in this order.
        result: Stored label values of the result.
        reference: Stored label values of the reference (255 unknown), or None to leave the column out.
        grid: Grid of all volumes.
        table: Names and colors of the labels.
        title: First line, such as the subject; may be empty.
        age_months: Printed where known, since the contrast of an infant brain inverts with age.

    Shapes:
        images: ``(I, J, K)`` each
        result: ``(I, J, K)``
        reference: ``(I, J, K)``

    Raises:
        GridError: A volume has another shape than the grid.

    Notes:
        Of each view, the slice with the most labeled voxels is shown. The intensity window is the
        1st to 99th percentile of the labeled voxels and stands below the picture.
    """
    scene = _scene(images, result, reference, grid, table)
    age = "" if age_months is None else f"{age_months:g} months"
    headline = ", ".join(part for part in (title, age) if part)
    figure, axes = _three_views(scene, _heads(scene), headline, _note(scene))
    for row, view in zip(axes, VIEWS, strict=True):
        _draw_row(row, scene, view)
    return figure


def plot_label_maps(
    image: NDArray[np.number],
    maps: Mapping[str, NDArray[np.integer]],
    grid: Grid,
    table: LabelTable,
    *,
    contrast: str = "image",
    title: str = "",
) -> Figure:
    """Draw three views of a scan and of several label maps of it, side by side.

    Args:
        image: Intensities.
        maps: Name -> stored label values, drawn in this order; the last one chooses the slices.
        grid: Grid of all volumes.
        table: Names and colors of the labels.
        contrast: Name of the image.
        title: First line; may be empty.

    Shapes:
        image: ``(I, J, K)``; maps: ``(I, J, K)`` each

    Raises:
        GridError: A volume has another shape than the grid.
    """
    scene = _scene({contrast: image, **maps}, list(maps.values())[-1], None, grid, table)
    figure, axes = _three_views(scene, [contrast, *maps], title, CONVENTION)
    for row, view in zip(axes, VIEWS, strict=True):
        index = scene.slice_index(view)
        cut = {name: slice_of(volume, view, index) for name, volume in scene.images.items()}
        gray = shades(cut[contrast], scene.windows[contrast])
        panels = [gray, *(_filled(gray, cut[name], table) for name in maps)]
        for axis, panel in zip(row, panels, strict=True):
            _draw_panel(axis, panel, scene, view)
        _name_view(row[0], scene, view, index)
    return figure


def _three_views(
    scene: _Scene, heads: Sequence[str], headline: str, note: str
) -> tuple[Figure, NDArray[np.object_]]:
    """Set up a row of panels for each view, with heads above, the legend and a note below."""
    columns = len(heads)
    panel = min(_PANEL_INCHES, _WIDTH_INCHES / columns)
    inches_per_mm = panel / max(scene.extent_mm[view.across] for view in VIEWS)
    heights = [scene.extent_mm[view.up] * inches_per_mm for view in VIEWS]
    left = 0.24
    key = _key(scene.table, panel * columns + left)
    top, bottom = 0.5 if headline else 0.22, 0.38 + 0.16 * key.rows
    figure = blank_figure(panel * columns + left, sum(heights) + top + bottom, _DPI)
    width, height = figure.get_size_inches()
    axes = figure.subplots(
        len(VIEWS),
        columns,
        squeeze=False,
        gridspec_kw={
            "height_ratios": heights,
            "left": left / width,
            "right": 1.0,
            "top": 1 - top / height,
            "bottom": bottom / height,
            "wspace": 0.02,
            "hspace": 0.02,
        },
    )
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, color=INK, fontsize=8, pad=4)
    figure.text(0.012, 1 - 0.06 / height, headline, color=INK, fontsize=10, weight="bold", va="top")
    _draw_key(figure, key, bottom - 0.06)
    figure.text(0.012, 0.05 / height, note, color=INK, fontsize=6.5, va="bottom", linespacing=1.3)
    return figure, axes


def plot_learning_curve(rows: Rows, table: LabelTable) -> Figure:
    """Draw the training loss and, where it was measured, the validation Dice per label over the steps.

    Args:
        rows: Rows of ``metrics.tsv``: step, loss, val_dice, val_dice_<ABBREVIATION>; None or "" where
            nothing was measured.
        table: Names and colors of the labels.
    """
    dice = {
        label.abbreviation: (points, label.color)
        for label in table.foreground
        if (points := _curve(rows, f"val_dice_{label.abbreviation}")).size
    }
    mean = _curve(rows, "val_dice")
    panels = 2 if dice or mean.size else 1
    figure = blank_figure(5.4, 2.1 * panels + 0.3)
    axes = figure.subplots(panels, 1, squeeze=False, sharex=True)[:, 0]
    _draw_loss(axes[0], _curve(rows, "loss"))
    if panels == 2:
        for name, (points, color) in dice.items():
            _draw_line(axes[1], points, color, name)
        _draw_line(axes[1], mean, INK, "mean", style=(0, (4, 2)))
        quiet_axis(axes[1], "validation Dice")
        _legend(axes[1])
    axes[-1].set_xlabel("step", color=INK)
    figure.set_layout_engine("constrained")
    return figure


def plot_dice(rows: Rows, table: LabelTable) -> Figure:
    """Draw the Dice of every subject as a dot, one strip per label, with the median as a bar.

    Args:
        rows: Rows with ``label`` (abbreviation) and ``dice``.
        table: Names and colors of the labels.
    """
    values = {
        label.abbreviation: _known([row["dice"] for row in rows if row["label"] == label.abbreviation])
        for label in table.foreground
    }
    figure = _strips(values, table, "Dice")
    everything = [value for strip in values.values() for value in strip]
    lowest = min(everything, default=0.0)
    figure.axes[0].set_xlim(max(0.0, np.floor(lowest * 10 - 0.3) / 10), 1.005)
    return figure


def plot_volumes(rows: Rows, table: LabelTable) -> Figure:
    """Draw the volume of every label in every subject as a dot, with the median as a bar.

    Args:
        rows: Rows of ``volumes.tsv``: ``<ABBREVIATION>_ml`` per label.
        table: Names and colors of the labels.
    """
    values = {
        label.abbreviation: _known([row.get(f"{label.abbreviation}_ml") for row in rows])
        for label in table.foreground
    }
    figure = _strips(values, table, "volume, ml")
    figure.axes[0].set_xlim(left=0.0)
    return figure


def figure_to_png(figure: Figure) -> bytes:
    """Render a figure as PNG; the same figure gives the same bytes (no date, no software version).

    The file has a palette of the 256 most frequent colors, others become the nearest of them: a third of
    the bytes of a full-color file, and no difference to see.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.ascontiguousarray(canvas.buffer_rgba())
    packed = pixels.view(np.uint32)[..., 0]
    colors, counts = np.unique(packed, return_counts=True)
    channels = colors.view(np.uint8).reshape(-1, 4)
    palette = channels[np.sort(np.argsort(-counts, kind="stable")[:256])]
    nearest = cKDTree(palette).query(channels)[1].astype(np.uint8)
    chunks = (
        _png_chunk(b"PLTE", palette[:, :3].tobytes()),
        _png_chunk(b"tRNS", palette[:, 3].tobytes()),
    )
    places = nearest[np.searchsorted(colors, packed)]  # faster than the inverse of np.unique, and the same
    return _png(places[..., None], 3, *chunks)


def image_to_png(image: NDArray[np.uint8]) -> bytes:
    """Write a small picture as PNG, pixel by pixel as it is.

    Shapes:
        image: ``(H, W, 1)`` gray or ``(H, W, 3)`` color

    Raises:
        ValueError: Another shape or type.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8:
        msg = f"Found a picture of shape {image.shape} and type {image.dtype}; expected (H, W, 1 or 3) of uint8."
        raise ValueError(msg)
    return _png(image, 0 if image.shape[2] == 1 else 2)


def _png(image: NDArray[np.uint8], kind: int, *chunks: bytes) -> bytes:
    """Write a PNG of 8 bits a channel; kind 0 is gray, 2 color, 3 places in a palette."""
    height, width, channels = image.shape
    scanlines = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter: none
    scanlines[:, 1:] = image.reshape(height, -1)
    head = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    content = _png_chunk(b"IDAT", zlib.compress(scanlines.tobytes(), 9))
    return b"".join((b"\x89PNG\r\n\x1a\n", head, *chunks, content, _png_chunk(b"IEND", b"")))


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def blank_figure(width: float, height: float, dpi: int = _PLOT_DPI) -> Figure:
    """Return an empty transparent figure.

    Args:
        width: In inches.
        height: In inches.
        dpi: Pixels an inch.
    """
    figure = Figure(figsize=(width, height), dpi=dpi)
    figure.patch.set_alpha(0.0)
    return figure


def _scene(
    images: Mapping[str, NDArray[np.number]],
    result: NDArray[np.integer],
    reference: NDArray[np.integer] | None,
    grid: Grid,
    table: LabelTable,
) -> _Scene:
    """Turn all volumes to RAS+ order and crop them to the object."""
    volumes = {**images, "result": result, **({} if reference is None else {"reference": reference})}
    for name, volume in volumes.items():
        if volume.shape != grid.shape:
            msg = (
                f"Cannot draw '{name}': its shape is {volume.shape}, expected {grid.shape} as in its grid. "
                f"Give all volumes of a subject on one grid."
            )
            raise GridError(msg)
    turned = {name: to_ras(volume, grid.axcodes) for name, volume in volumes.items()}
    affine = _ras_affine(grid)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    seen = np.logical_or.reduce([volume != 0 for volume in turned.values()])
    box = box_around(seen, spacing)
    start = np.array([span.start for span in box])
    affine[:3, 3] += affine[:3, :3] @ start
    cropped = {name: volume[box] for name, volume in turned.items()}
    truth = cropped.pop("reference", None)
    labels = cropped.pop("result")
    brain = labels != 0
    windows = {name: intensity_window(volume, brain) for name, volume in cropped.items()}
    return _Scene(cropped, windows, labels, truth, affine, spacing, table)


def to_ras(volume: NDArray[np.number], axcodes: str) -> NDArray[np.number]:
    """Permute and flip axes so that they point to right, anterior, superior."""
    order = ras_order(axcodes)
    flipped = [axis for axis, source in enumerate(order) if axcodes[source] in "LPI"]
    return np.flip(volume.transpose(order), flipped)


def ras_order(axcodes: str) -> list[int]:
    """Return the stored axes that run left-right, back-front, bottom-top."""
    return [next(axis for axis, code in enumerate(axcodes) if code in pair) for pair in LETTERS]


def _ras_affine(grid: Grid) -> NDArray[np.float64]:
    """Affine of the volume that `to_ras` makes."""
    affine = np.eye(4)
    affine[:3, 3] = grid.affine[:3, 3]
    for axis, source in enumerate(ras_order(grid.axcodes)):
        step = grid.affine[:3, source]
        flip = grid.axcodes[source] in "LPI"
        affine[:3, axis] = -step if flip else step
        if flip:
            affine[:3, 3] += step * (grid.shape[source] - 1)
    return affine


def box_around(seen: NDArray[np.bool_], spacing: NDArray[np.float64]) -> tuple[slice, slice, slice]:
    """Slices around the true voxels with a margin, or everything where there are none."""
    spans = []
    for axis in range(3):
        hit = np.flatnonzero(seen.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(_MARGIN_MM / spacing[axis]))
        first, last = (hit[0], hit[-1]) if hit.size else (0, seen.shape[axis] - 1)
        spans.append(slice(max(int(first) - margin, 0), min(int(last) + margin + 1, seen.shape[axis])))
    return spans[0], spans[1], spans[2]


def intensity_window(image: NDArray[np.number], brain: NDArray[np.bool_]) -> tuple[float, float]:
    """Return black and white: `WINDOW_PERCENTILES` in the brain, or of everything without one."""
    values = image[brain] if brain.any() else image.ravel()
    low, high = np.percentile(values, WINDOW_PERCENTILES)
    return float(low), float(max(high, low + 1e-6))


def _draw_row(axes: NDArray[np.object_], scene: _Scene, view: View) -> None:
    """Draw one view: contrasts, result, result against reference."""
    index = scene.slice_index(view)
    cut = {name: slice_of(volume, view, index) for name, volume in scene.images.items()}
    result = slice_of(scene.result, view, index)
    gray = {name: shades(cut[name], scene.windows[name]) for name in cut}
    first = next(iter(gray.values()))
    panels = [*gray.values(), _filled(first, result, scene.table)]
    if scene.reference is not None:
        panels.append(np.round(first * _DIMMED * _GRAY_LEVELS) / _GRAY_LEVELS)
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel, scene, view)
    if scene.reference is not None:
        reference = slice_of(scene.reference, view, index)
        _draw_contours(axes[-1], reference, scene, view, width=2.4, alpha=0.4)
        _draw_contours(axes[-1], np.where(reference == UNKNOWN, 0, result), scene, view, width=0.6, alpha=1.0)
    _name_view(axes[0], scene, view, index)


def _name_view(axis: Axes, scene: _Scene, view: View, index: int) -> None:
    """Write beside a row what it shows, and where."""
    position = scene.position_mm(view, index)
    side = LETTERS[view.normal][0 if position >= 0 else 1]
    axis.set_ylabel(f"{view.name}, {side} {abs(position):.0f} mm", color=INK, fontsize=7, labelpad=4)


def shades(image: NDArray[np.number], window: tuple[float, float]) -> NDArray[np.float64]:
    """Map intensities to gray in [0, 1], in few enough steps to keep the file small."""
    low, high = window
    shade = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1)
    shade = np.where(image == 0, 0.0, 0.06 + 0.94 * shade)
    return np.repeat(np.round(shade * _GRAY_LEVELS)[..., None] / _GRAY_LEVELS, 3, axis=-1)


def _filled(gray: NDArray[np.float64], labels: NDArray[np.integer], table: LabelTable) -> NDArray[np.float64]:
    """Paint labels over a gray slice."""
    filled = gray.copy()
    for label in table.foreground:
        inside = labels == label.value
        filled[inside] = np.array(to_rgb(label.color))
    return filled


def _draw_panel(axis: Axes, picture: NDArray[np.float64], scene: _Scene, view: View) -> None:
    """Show one slice in mm with its axis letters, on black."""
    across, up = scene.extent_mm[view.across], scene.extent_mm[view.up]
    widest = max(scene.extent_mm[other.across] for other in VIEWS)
    axis.imshow(
        picture.transpose(1, 0, 2), origin="lower", extent=(0, across, 0, up), interpolation="nearest"
    )
    axis.set_xlim((across + widest) / 2, (across - widest) / 2)
    axis.set_ylim(0, up)
    axis.set_facecolor("black")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    (left, right), (over, under) = LETTERS[view.across], LETTERS[view.up]
    places = ((0.03, 0.5, left), (0.97, 0.5, right), (0.5, 0.965, over), (0.5, 0.03, under))
    for x, y, letter in places:
        axis.text(
            x, y, letter, transform=axis.transAxes, color="#aab2bc", fontsize=6, ha="center", va="center"
        )


def _draw_contours(
    axis: Axes,
    labels: NDArray[np.integer],
    scene: _Scene,
    view: View,
    width: float,
    alpha: float,
) -> None:
    """Outline every label of a slice in its color."""
    x = (np.arange(labels.shape[0]) + 0.5) * scene.spacing[view.across]
    y = (np.arange(labels.shape[1]) + 0.5) * scene.spacing[view.up]
    for label in scene.table.foreground:
        inside = (labels == label.value).T
        if inside.any() and not inside.all() and min(inside.shape) > 1:
            axis.contour(x, y, inside, levels=[0.5], colors=[label.color], linewidths=width, alpha=alpha)


@dataclass(frozen=True)
class _Key:
    """The legend of a subject: what it says, and how it is set."""

    handles: list[Patch]
    texts: list[str]
    columns: int

    @property
    def rows(self) -> int:
        return -(-len(self.texts) // self.columns)


def _key(table: LabelTable, width: float) -> _Key:
    """Set the legend in as many columns as fit into a width in inches."""
    handles = [Patch(facecolor=label.color, edgecolor=INK, linewidth=0.5) for label in table.foreground]
    texts = [
        label.name if label.name == label.abbreviation else f"{label.name} ({label.abbreviation})"
        for label in table.foreground
    ]
    widest = 0.36 + 0.062 * max(map(len, texts), default=0)
    return _Key(handles, texts, max(1, min(len(texts), int(width / widest))))


def _draw_key(figure: Figure, key: _Key, top: float) -> None:
    """Write the legend below the pictures."""
    if key.texts:
        figure.legend(
            key.handles,
            key.texts,
            loc="upper left",
            bbox_to_anchor=(0.012, top / figure.get_size_inches()[1]),
            borderpad=0,
            borderaxespad=0,
            ncols=key.columns,
            frameon=False,
            labelcolor=INK,
            fontsize=7,
            handlelength=1.1,
            columnspacing=1.4,
        )


def _heads(scene: _Scene) -> list[str]:
    heads = [*scene.images, "result"]
    return heads if scene.reference is None else [*heads, "against reference"]


def _note(scene: _Scene) -> str:
    """Say what left and right are, and what black and white."""
    low, high = WINDOW_PERCENTILES
    windows = ", ".join(f"{name} {a:.4g} to {b:.4g}" for name, (a, b) in scene.windows.items())
    drawn = "" if scene.reference is None else "; right column: result as thin lines, reference as broad ones"
    return f"{CONVENTION}{drawn}\nblack to white: percentiles {low:g} to {high:g} of the brain, {windows}"


def _curve(rows: Rows, column: str) -> NDArray[np.float64]:
    """Collect (step, value) where the column was measured, ``(N, 2)``."""
    points = [(_number(row.get("step")), _number(row.get(column))) for row in rows]
    return np.array([point for point in points if not isnan(sum(point))], dtype=np.float64).reshape(-1, 2)


def _draw_loss(axis: Axes, points: NDArray[np.float64]) -> None:
    """Draw the loss and, of many values, their running mean."""
    many = len(points) >= SMOOTHED_FROM
    axis.plot(
        points[:, 0], points[:, 1], color=INK, linewidth=0.6 if many else 1.6, alpha=0.45 if many else 1.0
    )
    if many:
        width = len(points) // 20
        smooth = np.convolve(points[:, 1], np.ones(width) / width, mode="valid")
        middle = points[width // 2 : width // 2 + len(smooth), 0]
        axis.plot(middle, smooth, color=INK, linewidth=1.6)
    quiet_axis(axis, "training loss")


def _draw_line(
    axis: Axes,
    points: NDArray[np.float64],
    color: str,
    name: str,
    style: str | tuple[float, tuple[float, ...]] = "solid",
) -> None:
    """Draw a curve with a thin gray rim, so that pale label colors show on a white page."""
    rim = [Stroke(linewidth=3.0, foreground=INK), Normal()]
    marker = "o" if len(points) == 1 else None
    axis.plot(
        points[:, 0],
        points[:, 1],
        color=color,
        label=name,
        linestyle=style,
        linewidth=1.8 if color != INK else 1.2,
        marker=marker,
        path_effects=rim if color != INK else None,
    )


def _strips(values: Mapping[str, list[float]], table: LabelTable, quantity: str) -> Figure:
    """Draw one horizontal strip of dots per label."""
    colors = {label.abbreviation: label.color for label in table.foreground}
    figure = blank_figure(5.4, 0.42 * len(values) + 0.6)
    axis = figure.subplots()
    for row, (name, strip) in enumerate(values.items()):
        spread = np.linspace(-0.16, 0.16, len(strip)) if len(strip) > 1 else np.zeros(len(strip))
        axis.scatter(strip, row + spread, s=26, color=colors[name], edgecolors=INK, linewidths=0.6, zorder=3)
        if strip:
            axis.vlines(float(np.median(strip)), row - 0.34, row + 0.34, color=INK, linewidth=2.0, zorder=2)
    axis.set_yticks(range(len(values)), list(values))
    axis.set_ylim(len(values) - 0.5, -0.5)
    quiet_axis(axis, "")
    axis.set_xlabel(quantity, color=INK)
    figure.set_layout_engine("constrained")
    return figure


def quiet_axis(axis: Axes, ylabel: str) -> None:
    """Give an axis the quiet look all plots share."""
    axis.set_facecolor("none")
    axis.set_ylabel(ylabel, color=INK)
    axis.tick_params(colors=INK, labelsize=8, length=0)
    axis.grid(color=INK, alpha=0.22, linewidth=0.6)
    axis.set_axisbelow(True)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _legend(axis: Axes) -> None:
    """Write the legend above the lines, where it covers none."""
    lines = [line for line in axis.get_lines() if isinstance(line, Line2D)]
    if lines:
        axis.legend(
            frameon=False,
            labelcolor=INK,
            fontsize=8,
            ncols=4,
            loc="lower right",
            bbox_to_anchor=(1, 0.97),
            borderpad=0,
        )


def _known(values: Sequence[object]) -> list[float]:
    numbers = [_number(value) for value in values]
    return [number for number in numbers if not isnan(number)]


def _number(value: object) -> float:
    return nan if value in (None, "", "n/a") else float(str(value))
