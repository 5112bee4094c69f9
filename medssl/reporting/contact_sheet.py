"""A contact sheet: many scans on one page, each with the three slices that are worth a look and why."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medssl.errors import GridError
from medssl.geometry import Grid
from medssl.reporting.figures import (
    CONVENTION,
    INK,
    LETTERS,
    VIEWS,
    View,
    blank_figure,
    box_around,
    intensity_window,
    ras_order,
    shades,
    slice_of,
    to_ras,
)

_WIDTH_INCHES = 7.4
_ROW_INCHES = 1.75
_TEXT_INCHES = 2.3
_CHARACTERS = 38
_DPI = 110
_MARK = "#ff8c42"


@dataclass(frozen=True, eq=False)
class Entry:
    """One scan of the sheet.

    Args:
        title: Such as its place and its subject.
        text: Why it is here.
        image: Intensities, ``(I, J, K)``, 0 outside the brain.
        grid: Of the image.
        voxel: The place, in the image, that the slices run through.
    """

    title: str
    text: str
    image: NDArray[np.number]
    grid: Grid
    voxel: tuple[int, int, int]


def plot_contact_sheet(entries: Sequence[Entry], note: str = "") -> Figure:
    """Draw a row a scan: what it is and why, and an axial, a coronal and a sagittal slice.

    A ring marks the place that the slices run through.

    Args:
        entries: The scans, from top to bottom; at least one.
        note: What the page is, below it.

    Raises:
        GridError: An image has another shape than its grid, or its place lies outside.
    """
    height = _ROW_INCHES * len(entries) + 0.4
    figure = blank_figure(_WIDTH_INCHES, height, _DPI)
    axes = figure.subplots(
        len(entries),
        len(VIEWS),
        squeeze=False,
        gridspec_kw={
            "left": _TEXT_INCHES / _WIDTH_INCHES,
            "right": 1.0,
            "top": 1 - 0.05 / height,
            "bottom": 0.35 / height,
            "wspace": 0.02,
            "hspace": 0.04,
        },
    )
    for row, entry in zip(axes, entries, strict=True):
        _draw_entry(row, entry)
        top = row[0].get_position().y1
        figure.text(0.012, top - 0.06 / height, entry.title, color=INK, fontsize=9, weight="bold", va="top")
        text = textwrap.fill(entry.text, _CHARACTERS)
        figure.text(0.012, top - 0.26 / height, text, color=INK, fontsize=7, va="top", linespacing=1.3)
    lines = "\n".join(line for line in (note, CONVENTION) if line)
    figure.text(0.012, 0.05 / height, lines, color=INK, fontsize=6.5, va="bottom", linespacing=1.3)
    return figure


def _draw_entry(row: Sequence[Axes], entry: Entry) -> None:
    """Draw the three slices of a scan, cropped to what is worth seeing."""
    shape = entry.image.shape
    if shape != entry.grid.shape or not all(0 <= at < n for at, n in zip(entry.voxel, shape, strict=True)):
        msg = (
            f"Cannot draw '{entry.title}': found an image of shape {shape} and the voxel {entry.voxel}; "
            f"expected {entry.grid.shape} as in its grid, and a voxel inside."
        )
        raise GridError(msg)
    axcodes = entry.grid.axcodes
    order = ras_order(axcodes)
    turned = to_ras(entry.image, axcodes)
    spot = [shape[at] - 1 - entry.voxel[at] if axcodes[at] in "LPI" else entry.voxel[at] for at in order]
    spacing = np.array(entry.grid.spacing)[order]
    brain = turned != 0
    box = box_around(brain, spacing)
    window = intensity_window(turned, brain)
    place = [at - span.start for at, span in zip(spot, box, strict=True)]
    for axis, view in zip(row, VIEWS, strict=True):
        stored = order[view.normal]
        label = f"{view.name}, slice {entry.voxel[stored]} of {shape[stored]}"
        _draw_slice(axis, shades(turned[box], window), place, spacing, view, label)


def _draw_slice(
    axis: Axes,
    volume: NDArray[np.float64],
    place: Sequence[int],
    spacing: NDArray[np.float64],
    view: View,
    label: str,
) -> None:
    """Draw one slice in mm on black, left on the right as radiologists look at it, and ring the place."""
    cut = slice_of(volume, view, place[view.normal])
    across, up = (cut.shape[side] * spacing[at] for side, at in enumerate((view.across, view.up)))
    axis.imshow(cut.transpose(1, 0, 2), origin="lower", extent=(0, across, 0, up), interpolation="nearest")
    x, y = ((place[at] + 0.5) * spacing[at] for at in (view.across, view.up))
    axis.plot([x], [y], marker="o", markersize=15, markerfacecolor="none", markeredgecolor=_MARK)
    side = max(across, up)
    axis.set_xlim((across + side) / 2, (across - side) / 2)
    axis.set_ylim((up - side) / 2, (up + side) / 2)
    axis.set_facecolor("black")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    letters = (LETTERS[view.across][0], LETTERS[view.across][1])
    style = {"transform": axis.transAxes, "color": "#aab2bc", "fontsize": 6}
    for x_text, letter in zip((0.03, 0.97), letters, strict=True):
        axis.text(x_text, 0.5, letter, ha="center", va="center", **style)
    axis.text(0.03, 0.03, label, ha="left", va="bottom", **style)
