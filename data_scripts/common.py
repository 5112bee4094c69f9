"""What the scripts share: a command line, images as PNG with a manifest, and counts that have to fit."""

from __future__ import annotations

import argparse
import hashlib
import re
import secrets
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from medssl.errors import InputError, MedsslError, OutputError
from medssl.io.files import read_csv, require_writable_folder
from medssl.io.image_cohort import ImageCohort, ImageItem, find_images, read_image_cohort, write_manifest
from medssl.io.image_items import natural_order
from medssl.io.image_splits import split_cohort
from medssl.io.images import read_image


class Picture(NamedTuple):
    """An image on its way into the data set.

    Args:
        pixels: ``(H, W)`` or ``(H, W, C)``, uint8 or gray of uint16.
        label: Name of the class.
        name: Of the file, without suffix; unique in its class.
        split: "training", "validation" or "test"; "" where it is to be drawn.
        group: Patient, lesion or eye, if it is known.
    """

    pixels: np.ndarray
    label: str
    name: str
    split: str = ""
    group: str | None = None


@dataclass(frozen=True)
class Task:
    """One data set of the study on compact networks.

    Args:
        counts: What has to be found (see `tally`); the numbers are those that the study printed.
        tested: Images that the study tested on, as its printed accuracies tell, where the source has no test folder:
            as many are drawn, but for what rounding a class's share and keeping groups whole changes.
        columns: Names of the columns for image, label and group in the table of the source ("" for none).
    """

    counts: Mapping[str, int]
    tested: int | None = None
    columns: tuple[str, str, str] = ("image", "label", "")

    @property
    def test_share(self) -> float:
        """Share of the images that is drawn for testing; unused where the source says which."""
        return 0.25 if self.tested is None else self.tested / self.counts["images"]


# ------------------------------------------------------------------------------------------ command line


def parser(description: str) -> argparse.ArgumentParser:
    """Make the command line that all scripts have: SOURCE OUT --partial."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("source", type=Path, help="what was downloaded; it is only read")
    made.add_argument("out", type=Path, help="new folder, outside the source")
    made.add_argument("--partial", action="store_true", help="accept other counts than the published ones")
    return made


def add_drawing(made: argparse.ArgumentParser, test_share: float) -> None:
    """Add what a split that is drawn hangs on."""
    text = f"share of each class that is drawn for testing where the source does not say (default {test_share:.3g})"
    made.add_argument("--test-share", type=float, default=test_share, help=text)
    made.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")


def run(command: Callable[[], str]) -> None:
    """Do the work of a script; say what it did, or in one line why it could not."""
    try:
        print(command())
    except MedsslError as error:
        sys.exit(f"error: {error}")


def run_task(task: Task, description: str) -> None:
    """Convert one of the data sets of the study, from a tree of folders or from a table."""
    made = parser(description)
    add_drawing(made, task.test_share)
    image, label, group = task.columns
    made.add_argument("--table", type=Path, help="CSV file with the labels, where folders do not tell them")
    made.add_argument("--image-column", default=image, help=f"file name or its stem (default {image})")
    made.add_argument("--label-column", default=label, help=f"class (default {label})")
    made.add_argument("--group-column", default=group, help=f"patient or lesion (default {group or 'none'})")
    given = made.parse_args()

    def convert() -> str:
        if given.table is None:
            pictures = pictures_of_folders(given.source)
        else:
            columns = (given.image_column, given.label_column, given.group_column)
            pictures = pictures_of_table(given.source, given.table, columns)
        drawing = (given.test_share, given.seed)
        written = write_dataset(given, pictures, task.counts, drawing)
        return written if task.tested is None else f"{written}; the study tested on {task.tested}"

    run(convert)


# ------------------------------------------------------------------------------------------------ reading


def pictures_of_folders(source: Path) -> Iterator[Picture]:
    """Yield the images of CLASS/** or of train/CLASS/**, val and test."""
    cohort = read_image_cohort(source)
    divided = bool(cohort.validation or cohort.test)
    for section, item in cohort.placed():
        if item.label is not None:
            name = re.sub(r"\W+", "-", item.name.rpartition(".")[0])
            yield Picture(pixels_of(item.path), item.label, name, section if divided else "")


def pictures_of_table(source: Path, table: Path, columns: Sequence[str]) -> Iterator[Picture]:
    """Yield the images that a table names, wherever they lie below the source.

    Raises:
        InputError: The table lacks a column, or names an image that is not there, or there more than once.
    """
    image, label, group = columns
    rows = read_csv(table)
    missing = [name for name in columns if name and rows and name not in rows[0]]
    if missing or not rows:
        msg = (
            f"{table} has no column {', '.join(missing)}; it has {', '.join(rows[0]) if rows else 'no line'}."
        )
        raise InputError(msg, "Name them with --image-column, --label-column and --group-column.")
    found: dict[str, list[Path]] = defaultdict(list)
    for item in find_images(source):
        found[item.path.stem].append(item.path)
    for row in rows:
        stem = row[image] if row[image] in found else Path(row[image]).stem
        if stem not in found:
            msg = f"{table} names the image '{row[image]}', which is not below {source}."
            raise InputError(msg, "Give the folder that holds all images.")
        if len(found[stem]) > 1:
            msg = f"{table} names the image '{row[image]}', and there are {' and '.join(map(str, found[stem]))}."
            raise InputError(msg, "Give a folder that holds one image of each name.")
        yield Picture(
            pixels_of(found[stem][0]), row[label], stem, group=(row[group] or None) if group else None
        )


def pixels_of(path: Path) -> np.ndarray:
    """Read an image that PNG can hold."""
    pixels = read_image(path)
    if pixels.dtype == np.float32 or pixels.shape[2] not in (1, 3):
        msg = f"{path} holds {pixels.shape[2]} channels of {pixels.dtype}; expected gray or RGB of 8 bits."
        raise InputError(
            msg, "Name it in a manifest of your own (path,label,split) instead of converting it."
        )
    return pixels


# ------------------------------------------------------------------------------------------------ writing


def write_dataset(
    given: argparse.Namespace,
    pictures: Iterable[Picture],
    counts: Mapping[str, int],
    drawing: tuple[float, int] | None = None,
) -> str:
    """Write images and manifest into a new folder, all or nothing.

    Args:
        given: Command line with source, out and partial.
        pictures: What to write; those without a split are divided into training and test.
        counts: What has to be found (see `tally`).
        drawing: Share of test images and seed. Images with the same pixels stay on one side.

    Returns:
        What was written, for people.

    Raises:
        OutputError: The folder is there already, lies in the source, or cannot be written to.
        InputError: Other counts were found, and nothing was written.
    """
    with new_folder(given.out, given.source) as folder:
        items, copies = _written(folder, pictures)
        cohort = _divided(folder, items, copies, drawing)
        found = tally(cohort)
        if not given.partial:
            require_counts(found, counts)
        write_manifest(folder / "images.csv", cohort)
    repeated = sum(copies.values()) - len(copies)
    return ", ".join(f"{key} {value}" for key, value in found.items()) + f"; {repeated} repeated: {given.out}"


@contextmanager
def new_folder(out: Path, source: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes the new one if nothing goes wrong, and else goes away."""
    require_writable_folder(out, [source])
    if out.exists():
        msg = f"{out} is there already."
        raise OutputError(msg, "Choose a new folder, or remove it.")
    folder = out.resolve().with_name(f".partial-{secrets.token_hex(4)}-{out.resolve().name}")
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tally(cohort: ImageCohort) -> dict[str, int]:
    """Count images, classes, images a split ("train") and images of a class in a split ("train/cat")."""
    found = {"images": 0, "classes": len(cohort.classes)}
    for section, short in (("training", "train"), ("validation", "val"), ("test", "test")):
        items = cohort.section(section)
        found["images"] += len(items)
        if items:
            labels = Counter(str(item.label) for item in items)
            found[short] = len(items)
            found |= {f"{short}/{name}": labels[name] for name in cohort.classes}
    return found


def require_counts(found: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Refuse other counts than the published ones.

    Raises:
        InputError: A number differs.
    """
    wrong = [
        f"{key} {found.get(key, 0)} instead of {count}"
        for key, count in expected.items()
        if found.get(key, 0) != count
    ]
    if wrong:
        msg = f"The source is not the published data set: {', '.join(wrong)}. Nothing was written."
        raise InputError(msg, "Complete the download, or pass --partial for what is there.")


def _written(
    folder: Path, pictures: Iterable[Picture]
) -> tuple[list[tuple[str, str, ImageItem]], Counter[str]]:
    """Write images as PNG; return split, digest and item of each, and how often each digest occurs."""
    items, copies = [], Counter[str]()
    for picture in pictures:
        label = re.sub(r"[/\\]", "-", picture.label)
        path = folder / "images" / label / f"{picture.name}.png"
        if path.exists():
            msg = f"Two images would be written to {path.relative_to(folder)}."
            raise InputError(msg, "Give every image of a class its own file name.")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = picture.pixels[..., 0] if picture.pixels.shape[2:] == (1,) else picture.pixels
        Image.fromarray(pixels).save(path)
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        copies[digest] += 1
        name = path.relative_to(folder).as_posix()
        items.append((picture.split, digest, ImageItem(path, name, label, picture.group)))
    return items, copies


def _divided(
    folder: Path,
    items: Iterable[tuple[str, str, ImageItem]],
    copies: Mapping[str, int],
    drawing: tuple[float, int] | None,
) -> ImageCohort:
    """Put items into their sections; draw the test images where the source has no split."""
    sections: dict[str, list[ImageItem]] = {"training": [], "validation": [], "test": []}
    for split, digest, item in items:
        together = item.group or (digest if copies[digest] > 1 else None)
        sections[split or "training"].append(item if split else replace(item, group=together))
    classes = tuple(natural_order({str(item.label) for found in sections.values() for item in found}))
    cohort = ImageCohort(folder, classes, **{name: tuple(found) for name, found in sections.items()})
    if drawing is None or cohort.test:
        return cohort
    return split_cohort(cohort, validation=0, test=drawing[0], seed=drawing[1])
