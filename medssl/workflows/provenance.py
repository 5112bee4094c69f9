"""What was run, with which versions, on which data: without paths of this machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import medssl
from medssl.io.files import sha256_once
from medssl.io.subjects import DEFAULT_CONTRASTS, Subject
from medssl.labels import BRAIN_TISSUES, NO_MASK

LIBRARIES = (
    *("torch", "monai", "pytorch-ignite", "numpy", "scipy", "nibabel", "nilearn", "simpleitk"),
    *("timm", "torchvision", "pillow"),
)


def versions() -> dict[str, str]:
    """Return the versions of Python, medssl and the libraries that touch the numbers; the `code_revision` if any."""
    found = {"python": platform.python_version(), "medssl": medssl.__version__}
    revision = code_revision()
    if revision is not None:
        found["revision"] = revision
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@cache
def code_revision(root: Path = Path(medssl.__file__).parents[1]) -> str | None:
    """Return the git revision of the code, ``-dirty`` where files were changed since; None where it is no checkout.

    Args:
        root: Folder that holds the package. An installed one has no ``.git`` beside it, whatever lies above.
    """
    if not (root / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(root)]
    command = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return done.stdout.strip() or None


def relative(path: Path | str, start: Path | str) -> str:
    """Return a path as seen from a folder, so that no record names a folder of this machine in full."""
    path = Path(path)
    place = path.parent.resolve() / path.name if path.name not in ("", "..") else path.resolve()
    return Path(os.path.relpath(place, Path(start).resolve())).as_posix()


def moved_hashes(hashes: Mapping[str, str], source: Path, start: Path) -> dict[str, str]:
    """Return hashes by path as seen from one folder as those seen from another."""
    return {relative(source / path, start): digest for path, digest in hashes.items()}


def command_line(
    verb: str, data: Iterable[Path | str], out: Path, options: Iterable[tuple[str, object]]
) -> str:
    """Return a command that repeats a run, its paths as seen from the folder that holds the output."""
    words = ["medssl", *verb.split(), *[relative(one, out.parent) for one in data], "--out", out.name]
    for name, value in options:
        if value is True:
            words.append(f"--{name}")
        elif value not in (None, False, (), ""):
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def file_hashes(subjects: Iterable[Subject], start: Path) -> dict[str, str]:
    """Return the sha256 of every file of some subjects, by its path as seen from a folder."""
    hashes: dict[str, str] = {}
    for subject in subjects:
        for path in (*subject.images, subject.label, subject.mask):
            if isinstance(path, Path):
                hashes[relative(path, start)] = sha256_once(path)
    return hashes


def item_hashes(items: Iterable[Mapping[str, Any]], start: Path | str) -> dict[str, str]:
    """Return the sha256 of every file of some items (`medssl.io.cohort.entries`), by its path as seen from a folder."""
    paths = {
        path
        for item in items
        for path in (*item["image"], item.get("label"), item.get("mask"))
        if path not in (None, NO_MASK)
    }
    return {relative(path, start): sha256_once(path) for path in sorted(paths)}


def other_baseline(record: Mapping[str, Any]) -> str:
    """Return what a run was not compared with, in words: training from the packaged weights. "" where these do not fit.

    Args:
        record: Of the run, ``run.json``.
    """
    fits = record.get("contrasts") == list(DEFAULT_CONTRASTS) and record.get("labels") == BRAIN_TISSUES.rows()
    if not fits or any(word in record["command"] for word in (" --init ", "init_weights=")):
        return ""
    return (
        "Training began with random weights. From the packaged ones (--init packaged), which are for iso-intense "
        "infant brains, labeled-only training may do better; that was not compared."
    )
