"""Subjects of a flat folder (``<id>_T1w.nii.gz``), or one subject given as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medssl.errors import DatalistError
from medssl.io.subjects import (
    DEFAULT_CONTRASTS,
    Subject,
    is_nifti,
    name_parts,
    only_one,
    plain_label,
    stem,
)

_MASKS = ("desc-brain_mask", "mask")
_BIDS_SUFFIXES = frozenset(
    {"T1w", "T2w", "T2starw", "T2star", "FLAIR", "FLASH", "PD", "PDw", "PDT2", "inplaneT1", "inplaneT2"}
    | {"angio", "UNIT1", "MP2RAGE", "T1map", "T2map", "T2starmap", "R1map", "R2map", "R2starmap"}
    | {"PDmap", "MTRmap", "MTVmap", "MTsat", "T1rho", "M0map", "Chimap"}
)


def find_subjects(root: Path, contrasts: tuple[str, ...]) -> tuple[Subject, ...]:
    """Find ``<id>_<contrast>.nii[.gz]`` with ``<id>[_*]_dseg`` and ``<id>_[desc-brain_]mask`` beside them.

    Args:
        root: The folder; its subfolders are not looked at.
        contrasts: BIDS suffixes in channel order.

    Raises:
        DatalistError: A subject has two files for one purpose.
    """
    paths = sorted(path for path in root.iterdir() if is_nifti(path))
    names = sorted({stem(path).rpartition("_")[0] for path in paths if _suffix(path) in contrasts} - {""})
    return tuple(_subject(name, _files_of(name, names, paths), root, contrasts) for name in names)


def subject_of_files(paths: Sequence[Path], contrasts: tuple[str, ...]) -> Subject:
    """Make a subject of files given one by one: by their suffixes where they have them, else in order.

    Args:
        paths: One image a contrast.
        contrasts: BIDS suffixes in channel order.

    Raises:
        DatalistError: The number of files is wrong, or they belong to two subjects.
    """
    if len(paths) != len(contrasts):
        names = ", ".join(path.name for path in paths)
        msg = f"{len(paths)} files were given ({names}); expected {len(contrasts)}: {', '.join(contrasts)}."
        raise DatalistError(msg, "Give one file a contrast.")
    subjects = sorted({name_parts(path)[0].get("sub", "") for path in paths} - {""})
    if len(subjects) > 1:
        msg = f"The files belong to different subjects ({', '.join(subjects)}); expected one subject."
        raise DatalistError(msg, "Give the contrasts of one subject, or a folder with all of them.")
    by_suffix = {_suffix(path): path for path in paths}
    ordered = [by_suffix[name] for name in contrasts] if set(by_suffix) == set(contrasts) else list(paths)
    name = re.sub(rf"[_-]?{contrasts[0].removesuffix('w')}w?$", "", stem(ordered[0]))
    entities, _ = name_parts(ordered[0])
    return Subject(
        subject=plain_label(entities.get("sub") or name or ordered[0].resolve().parent.name) or "scan",
        session=plain_label(entities.get("ses", "")) or None,
        images=tuple(ordered),
        mask=_mask(name, [path for path in ordered[0].parent.iterdir() if is_nifti(path)]),
    )


def contrasts_of_files(paths: Sequence[Path]) -> tuple[str, ...] | None:
    """Return the BIDS suffixes of files, the default contrasts first, or None where the names have none."""
    suffixes = [_suffix(path) for path in paths]
    if len(set(suffixes)) < len(suffixes) or not all(is_contrast(suffix) for suffix in suffixes):
        return None
    ranks = {name: rank for rank, name in enumerate(DEFAULT_CONTRASTS)}
    return tuple(sorted(suffixes, key=lambda suffix: ranks.get(suffix, len(ranks))))


def is_contrast(suffix: str) -> bool:
    """Tell whether a text is one of BIDS' suffixes for anatomical scans."""
    return suffix in _BIDS_SUFFIXES


def _suffix(path: Path) -> str:
    return name_parts(path)[1]


def _files_of(name: str, names: list[str], paths: list[Path]) -> list[Path]:
    """Return the files of one id; a file belongs to the longest id that it starts with."""
    longer = tuple(f"{other}_" for other in names if other.startswith(f"{name}_"))
    return [path for path in paths if path.name.startswith(f"{name}_") and not path.name.startswith(longer)]


def _subject(name: str, files: list[Path], root: Path, contrasts: tuple[str, ...]) -> Subject:
    entities, _ = name_parts(f"{name}_")
    images = []
    for contrast in contrasts:
        fitting = [path for path in files if stem(path) == f"{name}_{contrast}"]
        missing = root / f"{name}_{contrast}.nii.gz"
        images.append(only_one(fitting, name, f"{contrast} scan") or missing)
    return Subject(
        subject=plain_label(entities.get("sub", name)),
        session=plain_label(entities.get("ses", "")) or None,
        images=tuple(images),
        label=only_one((path for path in files if _suffix(path) == "dseg"), name, "label image"),
        mask=_mask(name, files),
    )


def _mask(name: str, files: list[Path]) -> Path | None:
    masks = [path for path in files if name and stem(path) in {f"{name}_{mask}" for mask in _MASKS}]
    return only_one(masks, name, "brain mask")
