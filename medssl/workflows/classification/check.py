"""A look at every image of a folder before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from medssl.errors import MedsslError
from medssl.io.image_cohort import ImageCohort, read_image_cohort
from medssl.io.image_items import passed_over_remark
from medssl.io.image_leaks import check_images, inspect_images, require_no_image_leaks, without_images
from medssl.io.image_similarity import similar_images
from medssl.io.image_splits import LEAST_HELD_OUT
from medssl.io.images import read_image

LABELED = ("training", "validation", "test")

LISTED = 10
"""Pairs of images that look alike that are named."""

FEW = 5
"""Fewer labeled training images of a class are remarked on."""


@dataclass(frozen=True)
class FolderCheck:
    """What was found.

    Args:
        counts: Class and its images for training, validation and test, as text.
        unlabeled: Number of unlabeled images.
        sizes: Of the images, in words.
        channels: Of the images, in words.
        remarks: What is allowed, but worth knowing.
        problems: What has to be mended before training.
    """

    counts: tuple[tuple[str, ...], ...]
    unlabeled: int
    sizes: str
    channels: str
    remarks: tuple[str, ...]
    problems: tuple[str, ...]


def check_folder(
    data: Path,
    *,
    unlabeled: Path | None = None,
    transductive: bool = False,
    allow_outside: bool = False,
    similar: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> FolderCheck:
    """Read every image and say what is wrong; nothing is written.

    Args:
        data: Folder or manifest.
        unlabeled: Folder of unlabeled images beside it.
        transductive: Whether unlabeled images may be validation or test images.
        allow_outside: Accept paths and links that leave the folder.
        similar: Whether held-out images that look like one that training sees are looked for too.
        progress: Called with (name, done, all).

    Raises:
        InputError: There is nothing there that is understood.
        DatalistError: The layout contradicts itself.
    """
    cohort = read_image_cohort(data, unlabeled=unlabeled, allow_outside=allow_outside)
    look = inspect_images(cohort, progress=progress)
    findings = check_images(cohort, "skip", check=look)
    problems = [f"{one.item.name}: {one.reason} {one.cure}" for one in findings]
    remarks: list[str] = []
    try:
        usable = without_images(cohort, findings)
        leaks = require_no_image_leaks(usable, transductive=transductive, check=replace(look, findings=()))
        remarks += [leak.describe() for leak in leaks]
        remarks += _look_alikes(usable) if similar else []
    except MedsslError as error:
        problems.append(str(error))
    readable = [item for _, item in cohort.placed() if item.path in look.digests]
    shapes = Counter(read_image(item.path).shape for item in readable[:: max(1, len(readable) // 200)])
    return FolderCheck(
        tuple(
            (name, *[str(_count(cohort, section, name)) for section in LABELED]) for name in cohort.classes
        ),
        len(cohort.unlabeled),
        _most_common(Counter({f"{w} x {h}": n for (h, w, _), n in shapes.items()})),
        _most_common(Counter({str(c): n for (_, _, c), n in shapes.items()})),
        (*remarks, *_remarks(cohort)),
        tuple(problems),
    )


def _look_alikes(cohort: ImageCohort) -> list[str]:
    """Name pairs of images that may be one; strangers may look alike, so they stop nothing."""
    found = similar_images(cohort)
    said = [
        f"{one.held_out.name} looks like {one.seen.name}: see whether they are one image." for one in found
    ]
    more = [f"And {len(said) - LISTED} more pairs that look alike."] if len(said) > LISTED else []
    return [*said[:LISTED], *more]


def _count(cohort: ImageCohort, section: str, name: str) -> int:
    return sum(item.label == name for item in cohort.section(section))


def _remarks(cohort: ImageCohort) -> list[str]:
    few = [name for name in cohort.classes if _count(cohort, "training", name) < FEW]
    said = []
    if few:
        said.append(f"Fewer than {FEW} labeled training images of {', '.join(few)}: expect little of them.")
    if not cohort.validation:
        said.append(_held_out_remark(cohort))
    if not cohort.test:
        said.append("No test images: nothing will tell how good the classifier is on images it never met.")
    if not cohort.unlabeled:
        said.append("No unlabeled images: only supervised training is possible.")
    others = cohort.ignored - len(cohort.passed_over)
    if cohort.passed_over:
        said.append(passed_over_remark(cohort.passed_over))
    if others:
        said.append(f"{others} hidden or other files and folders were passed over.")
    return said


def _held_out_remark(cohort: ImageCohort) -> str:
    """Say what a training will validate on where the folder has no images for that."""
    rare = [name for name in cohort.classes if _count(cohort, "training", name) < LEAST_HELD_OUT]
    if len(rare) == len(cohort.classes):
        return (
            f"No validation images, and no class has {LEAST_HELD_OUT} labeled ones: nothing will be held out, and "
            "nothing will tell whether unlabeled images help."
        )
    but = f", none of {', '.join(rare)}: fewer than {LEAST_HELD_OUT}" if rare else ""
    return f"No validation images: some of the labeled ones will be held out{but}."


def _most_common(found: Counter[str]) -> str:
    words = [name for name, _ in found.most_common(3)]
    return ", ".join(words) + (f" and {len(found) - 3} others" if len(found) > 3 else "")
