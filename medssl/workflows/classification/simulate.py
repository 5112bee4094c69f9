"""A folder of simulated images: the layout a user has, with a signal that can be learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medssl.errors import OutputError
from medssl.io.files import require_writable_folder, write_json
from medssl.io.image_writing import write_png
from medssl.simulation.images import CELLS, simulate_images

BLOCK = 32
"""Images that are drawn at once."""


def simulate_folder(  # noqa: PLR0913 (one argument an option)
    out: Path,
    *,
    classes: int = len(CELLS),
    labeled: int = 10,
    validation: int = 10,
    test: int = 50,
    unlabeled: int = 400,
    size: int = 64,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Write ``train/``, ``val/`` and ``test/`` with a folder a class, and ``unlabelled/``.

    Args:
        out: Folder to make.
        classes: Kinds of cells.
        labeled: Training images a class.
        validation: Validation images a class.
        test: Test images a class.
        unlabeled: Unlabeled images in all; of which class they are stands in no file.
        size: Pixels a side.
        seed: The same seed gives the same pixels.
        progress: Called with (name, done, all).

    Raises:
        OutputError: The folder is in use, or cannot be written.
        ConfigError: More classes than there are kinds of cells.
    """
    require_writable_folder(out)
    if out.exists() and any(out.iterdir()):
        msg = f"The folder {out} is not empty."
        raise OutputError(msg, "Choose another one.")
    wanted = _wanted(classes, labeled, validation, test, unlabeled)
    total, left = sum(map(len, wanted)), [list(places) for places in wanted]
    first = done = 0
    while done < total:
        images, labels = simulate_images(BLOCK, classes=classes, size=size, seed=seed, first=first)
        first += BLOCK
        for image, label in zip(images, labels, strict=True):
            queue = left[int(label)] or left[classes]
            if queue:
                place = queue.pop(0)
                write_png(out / place, image)
                done += 1
                if progress is not None:
                    progress(place, done, total)
    write_json(out / "simulation.json", {"seed": seed, "size": size, "classes": CELLS[:classes]})
    return out


def _wanted(classes: int, labeled: int, validation: int, test: int, unlabeled: int) -> list[list[str]]:
    """Return the files of every class, and last those of any class."""
    sections = (("train", labeled), ("val", validation), ("test", test))
    named = [
        [f"{section}/{name}/{number:04d}.png" for section, count in sections for number in range(count)]
        for name in CELLS[:classes]
    ]
    return [*named, [f"unlabelled/{number:04d}.png" for number in range(unlabeled)]]
