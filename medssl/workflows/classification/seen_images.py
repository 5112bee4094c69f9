"""Whether images that are scored were seen in training: a score on those says little of new images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medssl.errors import InputError
from medssl.io.files import read_json, sha256_once
from medssl.io.image_items import ImageItem, first_names
from medssl.io.image_manifest import FILE_NAME, read_manifest
from medssl.workflows.provenance import relative

ROLES = {
    "unlabeled": "unlabeled images of its training",
    "validation": "its validation images, on which its best step and its thresholds were chosen",
    "training": "its labeled training images",
}
"""Section of a run -> what its images were; one that is there twice counts as the last."""


def remarks_on_seen_images(items: Sequence[ImageItem], section: str, run: Path) -> tuple[str, ...]:
    """Say which of the images that shall be scored a run has seen, by the content of their files.

    Args:
        items: Images of a section.
        section: "test", "validation" or "training"; of the last, and of validation images that were validation
            images of the run, nothing is said.
        run: Run folder; nothing is known of any other model.

    Returns:
        Sentences for whoever reads the scores.

    Raises:
        InputError: Test images were labeled training images, or unlabeled ones of a run that is not transductive.
    """
    record = read_json(run / "run.json") if (run / "run.json").is_file() else {}
    roles = {} if section == "training" else _roles(run, record)
    found: dict[str, list[str]] = defaultdict(list)
    for item in items if roles else ():
        if role := roles.get(sha256_once(item.path)):
            found[role].append(item.name)
    found.pop(section, None)
    said = {
        role: f"{len(names)} of {len(items)} {section} images were {ROLES[role]}: {first_names(names)}."
        for role, names in found.items()
    }
    allowed = {"validation", "unlabeled"} if record.get("transductive") else {"validation"}
    refused = [sentence for role, sentence in said.items() if role not in allowed]
    if section == "test" and refused:
        msg = f"The model {run.name} would be scored on what it learned: {' '.join(refused)}"
        cure = "Score images that it never saw, or train without these; --section training scores what was learned."
        raise InputError(msg, cure)
    return tuple(said.values())


def never_learned(items: Sequence[ImageItem], run: Path) -> tuple[ImageItem, ...]:
    """Return the images whose labels the training of a run did not learn, by the content of their files.

    Args:
        items: Images.
        run: Run folder; of any other model nothing is known, and all images are returned.
    """
    record = read_json(run / "run.json") if (run / "run.json").is_file() else {}
    learned = {digest for digest, role in _roles(run, record).items() if role == "training"}
    return tuple(item for item in items if not learned or sha256_once(item.path) not in learned)


def _roles(run: Path, record: Mapping[str, Any]) -> dict[str, str]:
    """Return what every image that the training of a run saw was, by the sha256 of its file."""
    hashes = record.get("data_sha256", {})
    if not hashes or not (run / FILE_NAME).is_file():
        return {}
    sections = read_manifest(run / FILE_NAME, allow_outside=True).sections  # images may be gone, or moved
    return {
        hashes[name]: role
        for role in ROLES
        for item in sections[role]
        if (name := relative(item.path, run)) in hashes
    }
