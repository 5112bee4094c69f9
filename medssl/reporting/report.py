"""The HTML report: sections declared as data, rendered into one file that needs nothing else."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Args:
        text: Plain text.
        quiet: Set smaller and paler, for remarks.
    """

    text: str
    quiet: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Steps:
    """A numbered list of sentences.

    Args:
        items: One sentence or two each.
    """

    items: tuple[str, ...]
    kind: ClassVar[str] = "steps"


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row; the others are numbers, set to the right.

    Args:
        columns: Heads, with units.
        rows: Cells as texts, as many as heads.
        title: Stands above.
        note: Stands below, in small print.
        colors: "#rrggbb" of a swatch before each row's name, or None for none.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""
    colors: tuple[str, ...] | None = None
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Picture:
    """An image with its caption.

    Args:
        png: The file's bytes.
        alt: What is to be seen, for readers who do not see it.
        title: Stands above.
        caption: Stands below.
        plot: A chart, shown smaller than a picture of a brain.
    """

    png: bytes
    alt: str
    title: str = ""
    caption: str = ""
    plot: bool = False
    kind: ClassVar[str] = "picture"

    @property
    def uri(self) -> str:
        """The image as a data URI, so that the page asks for no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side, as many in a row as fit.

    Args:
        pictures: Each with what is to be seen (`Picture.alt`) and a line below (`Picture.caption`).
        title: Stands above.
        note: Stands below, in small print.
    """

    pictures: tuple[Picture, ...]
    title: str = ""
    note: str = ""
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True)
class Commands:
    """Shell commands, to be copied.

    Args:
        lines: One command each.
    """

    lines: tuple[str, ...]
    kind: ClassVar[str] = "commands"


@dataclass(frozen=True)
class Facts:
    """Names and values, two columns.

    Args:
        items: (name, value) pairs.
        title: Stands above.
    """

    items: tuple[tuple[str, str], ...]
    title: str = ""
    kind: ClassVar[str] = "facts"


Block = Text | Steps | Table | Picture | Gallery | Commands | Facts


@dataclass(frozen=True)
class Section:
    """A chapter of the report.

    Args:
        title: A word or three.
        blocks: What it holds, top to bottom.
    """

    title: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        """Name of the section inside the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Tile:
    """One number worth seeing first.

    Args:
        value: Such as "0.81".
        name: What it is.
        color: "#rrggbb" of a label, or None.
    """

    value: str
    name: str
    color: str | None = None


@dataclass(frozen=True)
class Report:
    """Everything the page says.

    Args:
        title: Of the page.
        headline: The result in one sentence of plain words.
        explanation: One or two sentences on how to read it.
        tiles: Numbers below the headline.
        sections: Chapters; those without blocks are left out.
        footer: Last lines, such as the version.
    """

    title: str
    headline: str
    explanation: str = ""
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section] = ()
    footer: str = ""


def render_report(report: Report) -> str:
    """Return the report as one HTML page: styles and images inside, no script, no request, no path."""
    environment = Environment(
        loader=PackageLoader("medssl.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    sections = [section for section in report.sections if section.blocks]
    return environment.get_template(TEMPLATE).render(report=report, sections=sections)
