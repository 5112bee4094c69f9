"""Images that cannot be read, and images that stand where another copy of them stands.

Two files are one image if their decoded pixels are equal, whatever they are called and however they are packed;
an image saved again with loss is found by `medssl.io.image_similarity` alone, which only reports. Measured on one
busy core: 70,000 digits of 28 x 28 in 17 s; two threads or processes gained nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssl.errors import ConfigError, DatalistError, ImageError
from medssl.io.image_facts import PixelFacts, pixel_facts
from medssl.io.image_items import HELD_OUT, ImageCohort, ImageItem
from medssl.io.images import read_image
from medssl.io.subjects import SECTIONS

_LOGGER = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called before each image with its name, the number read and the number in all; once more at the end."""

_LISTED = 10  # findings named in a message
_ORDER = ("training", "unlabeled", "validation", "test")  # what training sees, before what is held out


class Finding(NamedTuple):
    """An image that cannot be used.

    Args:
        section: Where it stands.
        item: The image.
        reason: What is wrong.
        cure: What to do.
    """

    section: str
    item: ImageItem
    reason: str
    cure: str


@dataclass(frozen=True)
class ImageCheck:
    """What a look at all pixels of a cohort showed.

    Args:
        digests: Path -> digest of the pixels, for images that could be read.
        findings: Images that cannot be used.
        facts: Path -> what its pixels say about how to prepare it.
    """

    digests: Mapping[Path, bytes]
    findings: tuple[Finding, ...] = ()
    facts: Mapping[Path, PixelFacts] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageLeak:
    """Copies of one image, or images of one group, in two sections, or copies within one.

    Args:
        kind: "same pixels", "same group", or "same pixels, two labels".
        sections: Where they stand; twice the same for copies within one.
        one: An image in the first section.
        other: An image in the second.
        count: Number of images that share the pixels or the group, in both sections.
    """

    kind: str
    sections: tuple[str, str]
    one: ImageItem
    other: ImageItem
    count: int

    @property
    def transductive(self) -> bool:
        """Tell whether training would see a held-out image or group, but not its label."""
        return self.sections[0] == "unlabeled" and self.sections[1] in HELD_OUT

    @property
    def harmless(self) -> bool:
        """Tell whether nothing held out is concerned, and no label contradicts another in training."""
        one, other = self.sections
        contradicts = self.kind.endswith("labels") and one == "training"
        return not contradicts and (one == other or other not in HELD_OUT)

    def describe(self) -> str:
        """Name both images with section and class, and what they share."""
        one, other = (
            f"{item.name} in '{section}'" + (f" ('{item.label}')" if item.label else "")
            for section, item in zip(self.sections, (self.one, self.other), strict=True)
        )
        shared = f"the group '{self.one.group}'" if self.kind == "same group" else self.kind
        return f"{one} and {other}: {shared}" + (f", {self.count} images in all" if self.count > 2 else "")


def inspect_images(cohort: ImageCohort, *, progress: Progress | None = None) -> ImageCheck:
    """Read every image once; bad images raise nothing."""
    placed = list(cohort.placed())
    digests, facts, findings = {}, {}, []
    for number, (section, item) in enumerate(placed):
        if progress:
            progress(item.name, number, len(placed))
        try:
            pixels = read_image(item.path)
            facts[item.path] = pixel_facts(pixels)
            digests[item.path] = pixel_digest(pixels, gray=facts[item.path].gray)
        except ImageError as error:
            findings.append(Finding(section, item, error.finding, error.cure))
    if progress and placed:
        progress(placed[-1][1].name, len(placed), len(placed))
    return ImageCheck(digests, tuple(findings), facts)


def check_images(
    cohort: ImageCohort,
    policy: Literal["fail", "skip"] = "fail",
    *,
    check: ImageCheck | None = None,
    progress: Progress | None = None,
) -> tuple[Finding, ...]:
    """Find the images that cannot be used.

    Args:
        cohort: Whose images.
        policy: "fail" raises where there is one; "skip" returns them, for `without_images` and the report.
        check: What `inspect_images` found, where it looked already.
        progress: Told about each image.

    Returns:
        Each with its reason; they are failures, never images of zeros.

    Raises:
        ImageError: There are some, and the policy is "fail"; the first ten are named and the others counted.
        ConfigError: There is no such policy.
    """
    if policy not in ("fail", "skip"):
        msg = f"The policy for unreadable images is '{policy}'; expected 'fail' or 'skip'."
        raise ConfigError(msg, "Correct it.")
    findings = (check or inspect_images(cohort, progress=progress)).findings
    if findings and policy == "fail":
        shown = " ".join(finding.reason for finding in findings[:_LISTED])
        more = f" And {len(findings) - _LISTED} more." if len(findings) > _LISTED else ""
        cures = " ".join(dict.fromkeys(finding.cure for finding in findings[:_LISTED]))
        msg = f"{len(findings)} of {len(list(cohort.placed()))} images cannot be used: {shown}{more}"
        raise ImageError(msg, f"{cures} Or leave them out (--skip-unreadable, where a command has it).")
    if findings:
        _LOGGER.warning("%d images cannot be used and are left out", len(findings))
    return findings


def without_images(cohort: ImageCohort, findings: Sequence[Finding]) -> ImageCohort:
    """Leave out the images of findings.

    Raises:
        DatalistError: A class would lose its last labeled training image.
    """
    bad = {finding.item.path for finding in findings}
    kept = {name: tuple(item for item in cohort.section(name) if item.path not in bad) for name in SECTIONS}
    left = {item.label for item in kept["training"]}
    empty = [name for name in cohort.classes if name not in left]
    if empty and bad:
        msg = f"Without the unreadable images no labeled training image of {', '.join(empty)} is left."
        raise DatalistError(msg, "Mend them.")
    return replace(cohort, **kept)


def require_no_image_leaks(
    cohort: ImageCohort,
    *,
    transductive: bool = False,
    check: ImageCheck | None = None,
    progress: Progress | None = None,
) -> list[ImageLeak]:
    """Refuse a cohort in which training would see a held-out image or group, or two labels of one image.

    Args:
        cohort: What to check.
        transductive: Allow held-out images and groups, never their labels, among the unlabeled; the caller has
            to say so on every table and file.
        check: What `inspect_images` found, where it looked already.
        progress: Told about each image.

    Returns:
        What was found and allowed, for the report: copies within a section or between training and unlabeled,
        and what is transductive.

    Raises:
        DatalistError: Copies or a group stand on both sides of a split, or copies in training have two labels.
        ImageError: An image cannot be read.
    """
    leaks = find_image_leaks(cohort, check=check, progress=progress)
    refused = [leak for leak in leaks if not leak.harmless and not (transductive and leak.transductive)]
    if refused:
        more = f"; and {len(refused) - _LISTED} more" if len(refused) > _LISTED else ""
        shown = "; ".join(leak.describe() for leak in refused[:_LISTED])
        msg = f"{len(refused)} leaks between lists that must not share images: {shown}{more}."
        raise DatalistError(msg, _cure(refused))
    copies = [leak for leak in leaks if leak.kind != "same group" and leak.harmless]
    if copies:
        _LOGGER.warning(
            "%d images have copies on the same side of the split, first %s", len(copies), copies[0].describe()
        )
    return leaks


def find_image_leaks(
    cohort: ImageCohort, *, check: ImageCheck | None = None, progress: Progress | None = None
) -> list[ImageLeak]:
    """Find images with the same pixels, and groups in two sections.

    Args:
        cohort: What to check.
        check: What `inspect_images` found, where it looked already.
        progress: Told about each image.

    Returns:
        One leak for each image or group and pair of sections, however many copies there are. A group may well
        stand in training and unlabeled, which is no leak.

    Raises:
        ImageError: An image cannot be read.
    """
    check = check or inspect_images(cohort, progress=progress)
    here = {item.path for _, item in cohort.placed()}
    unread = tuple(finding for finding in check.findings if finding.item.path in here)
    check_images(cohort, check=ImageCheck(check.digests, unread))
    leaks = []
    for shared in _sharing(cohort, lambda item: check.digests[item.path]):
        leaks += [leak for section in shared for leak in _within(section, shared[section])]
        leaks += _between(shared, "same pixels")
    for shared in _sharing(cohort, lambda item: item.group):
        leaks += [leak for leak in _between(shared, "same group") if leak.sections[1] in HELD_OUT]
    return leaks


def pixel_digest(pixels: NDArray[Any], *, gray: bool) -> bytes:
    """Return a digest of an image's values.

    Args:
        pixels: The image.
        gray: Whether all channels are equal, see `PixelFacts`: only one of them counts then.

    Shapes:
        pixels: ``(H, W, C)``
    """
    if gray:
        pixels = pixels[..., :1]
    digest = hashlib.blake2b(f"{pixels.dtype} {pixels.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels))
    return digest.digest()


def _sharing(cohort: ImageCohort, key: Callable[[ImageItem], object]) -> list[dict[str, list[ImageItem]]]:
    """Return the images that have the same key, by section; training comes first, test last."""
    found: dict[object, dict[str, list[ImageItem]]] = defaultdict(lambda: defaultdict(list))
    for section in _ORDER:
        for item in cohort.section(section):
            found[key(item)][section].append(item)
    found.pop(None, None)
    return [dict(sections) for sections in found.values() if sum(map(len, sections.values())) > 1]


def _within(section: str, items: Sequence[ImageItem]) -> Iterator[ImageLeak]:
    """Yield the leak of a section that holds an image more than once."""
    if len(items) > 1:
        other = next((item for item in items if item.label != items[0].label), None)
        kind = "same pixels, two labels" if other else "same pixels"
        yield ImageLeak(kind, (section, section), items[0], other or items[1], len(items))


def _between(shared: Mapping[str, Sequence[ImageItem]], kind: str) -> Iterator[ImageLeak]:
    """Yield one leak for each pair of sections."""
    for one, other in combinations(shared, 2):
        count = len(shared[one]) + len(shared[other])
        yield ImageLeak(kind, (one, other), shared[one][0], shared[other][0], count)


def _cure(leaks: Sequence[ImageLeak]) -> str:
    """Say what helps against these leaks."""
    cures = []
    if any(leak.kind.endswith("labels") and leak.sections[0] == leak.sections[1] for leak in leaks):
        cures.append("Decide which label of a repeated image is right, and leave one copy.")
    if any(not leak.transductive and leak.sections[0] != leak.sections[1] for leak in leaks):
        cures.append("Keep all copies of an image, and all images of a group, in one list.")
    if any(leak.transductive for leak in leaks):
        cures.append(
            "Remove these images from the unlabeled ones, or pass --transductive, which every table then says."
        )
    return " ".join(cures)
