"""Scans that stand on both sides of a split: the same subject, the same file, the same voxels, or nearly so.

Every scan of 'training' and 'unlabeled' is compared with every held-out one. Names and files come first. Then
two things are kept of each scan's first contrast: a digest of its voxel values that no flip, padding or header
changes, and a fingerprint, its coarse band-passed image, that resampling, noise, cropping and another scale of
intensities hardly change. Costs measured on one core: 0.1 s a scan of 144 x 176 x 144 voxels (not counting
inflating .nii.gz), and 1 ms for each pair of scans.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, rfftn
from scipy.ndimage import affine_transform, binary_erosion, gaussian_filter

from medssl.errors import DatalistError
from medssl.io.files import sha256_once
from medssl.io.inspection import FILLED_SHARE
from medssl.io.nifti import Volume, read_volume
from medssl.io.subjects import Cohort, Subject

_LOGGER = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called before each scan with its name, the number read and the number in all; once more at the end."""

HELD_OUT = ("validation", "test")
"""Sections that training must not see."""

SECTION_PAIRS = (
    ("training", "validation"),
    ("training", "test"),
    ("unlabeled", "validation"),
    ("unlabeled", "test"),
    ("validation", "test"),
    ("training", "unlabeled"),
)
"""Which sections are compared, each scan of the first with each of the second. Validation and test are
compared by subject and file only."""

NEAR_DUPLICATE = 0.85
"""Correlation of two fingerprints from which two scans are one. Measured (lowest of all scans for copies,
highest of all pairs for different scans), 8 simulated brains of 2 mm (28 pairs) | 200 real T1w crops around the
hippocampus, 1 mm, no mask (19,900 pairs, 30 scans copied):

=====================================================  ==========  ===========
different scans, mean                                  0.27        0.42
different scans, 99.9 % of the pairs below             0.38        0.71
different scans, highest                               0.385       0.799
stored with other axes, padded, moved, intensity x2.7  0.99        1.00
noise of 5 % or 10 % of the standard deviation         1.00        0.999
gamma 0.7                                              0.998       0.996
on a grid of 1.3 times the spacing, linear | cubic     0.98, 0.97  0.988, 0.989
on a grid of twice the spacing                         0.976       0.974
on a grid turned by 17 degrees                         0.979       0.987
header lost (axes swapped and flipped) and noise       0.965       1.00
cropped by 8 % and 4 % of each edge | 20 % and 8 %     0.99, 0.985 0.984, 0.953
cropped, rescaled, flipped, 1.3x, noise and moved      0.910       0.881
cropped and moved by a fraction of a voxel             0.984       0.845
=====================================================  ==========  ===========

Nearly all pairs of crops above 0.73 have neighboring numbers (083 and 084, 189 and 190), as if they were two
scans of one subject; strangers there probably stay below 0.76. Phantoms that differ in noise alone correlate by
0.99: they are copies of one anatomy."""

_BY_NAME_AND_FILE_ONLY = {"validation", "test"}
_LISTED = 5  # leaks named in a message

_GRID = 32  # voxels along each edge of a fingerprint
_FILLED = 0.8  # share of the edge that the scans of a cohort fill in the median
_BAND = (0.7, 1.5)  # widths in fingerprint voxels of the two Gaussians whose difference is kept
_CLIP = 3.0  # standard deviations
_REACH = 6  # largest shift in fingerprint voxels that is tried along each axis
_LEAST_OVERLAP = 0.4  # share of the content below which an overlap says nothing
_SURE = 0.9  # share of a fingerprint voxel that the scan covers
_LEVEL = 0.02  # of the brightest voxels: below is background or what a spline left of it
_LARGEST_BOX = 64  # voxels along an axis kept of a scan until the spacing of the cohort is known
_BATCH = 64  # scans whose spectra are held at once


@dataclass(frozen=True)
class Leak:
    """Two scans that should not stand where they stand.

    Args:
        one: A scan of the first section.
        other: A scan of the second.
        sections: Where the two stand.
        kind: "same subject", "same file", "same voxels" or "near-duplicate".
        detail: What shows it.
        files: The two files relative to the cohort's folder; a file outside it by its name alone.
    """

    one: Subject
    other: Subject
    sections: tuple[str, str]
    kind: str
    detail: str
    files: tuple[str, str] = ("", "")

    @property
    def transductive(self) -> bool:
        """Tell whether training would see a held-out scan, but not its label."""
        return self.sections[0] == "unlabeled" and self.sections[1] in HELD_OUT

    @property
    def harmless(self) -> bool:
        """Tell whether no held-out scan is concerned."""
        return not set(self.sections) & set(HELD_OUT)

    def describe(self) -> str:
        """Name both scans with section and file, and what makes them one; no absolute path."""
        names = [
            shown or scan.images[0].name
            for shown, scan in zip(self.files, (self.one, self.other), strict=True)
        ]
        one = f"{self.one.key} in '{self.sections[0]}' ({names[0]})"
        other = f"{self.other.key} in '{self.sections[1]}' ({names[1]})"
        return f"{one} and {other}: {self.kind}, {self.detail}"


def require_no_leaks(
    cohort: Cohort, *, transductive: bool = False, progress: Progress | None = None
) -> list[Leak]:
    """Refuse a cohort in which training would see a held-out scan.

    A scan that is both labeled and unlabeled is only logged as a warning.

    Args:
        cohort: What to check.
        transductive: Allow held-out scans, never their labels, among the unlabeled; the caller has to say so
            on every table and file.
        progress: Told about each scan.

    Returns:
        What was found and allowed, for stamping.

    Raises:
        DatalistError: A held-out subject, session or scan stands in a list that training reads, or in both
            'validation' and 'test'.
        InputError: A scan cannot be read.
        GridError: A header is unusable.
    """
    leaks = find_leaks(cohort, progress=progress)
    refused = [leak for leak in leaks if not leak.harmless and not (transductive and leak.transductive)]
    if refused:
        pairs = "pair" if len(refused) == 1 else "pairs"
        msg = f"{len(refused)} {pairs} of scans in lists that must not share any: {_listed(refused)}."
        raise DatalistError(msg, _cure(refused))
    wasted = [leak for leak in leaks if leak.harmless]
    if wasted:
        _LOGGER.warning(
            "%d scans are labeled and unlabeled too, which teaches nothing: %s", len(wasted), _listed(wasted)
        )
    return leaks


def find_leaks(
    cohort: Cohort,
    *,
    sections_checked: Sequence[tuple[str, str]] = SECTION_PAIRS,
    progress: Progress | None = None,
) -> list[Leak]:
    """Find scans that stand in two sections under one name or two; each pair is named once.

    Sessions of one subject are one subject for every pair of sections but training and unlabeled, which may
    share children, not scans.

    Args:
        cohort: What to check.
        sections_checked: Pairs of sections to compare.
        progress: Told about each scan whose voxels are read.

    Returns:
        In the order of the pairs of sections and of the lists.

    Raises:
        InputError: A scan cannot be read.
        GridError: A header is unusable.
    """
    files = _Files(cohort.root)
    by_voxels = [sections for sections in sections_checked if set(sections) != _BY_NAME_AND_FILE_ONLY]
    prints = _read_prints(cohort, by_voxels, progress)
    leaks = []
    for sections in sections_checked:
        one_list, other_list = (cohort.section(name) for name in sections)
        compare = _VoxelPairs(prints[sections[0]], prints[sections[1]]) if sections in by_voxels else None
        for (i, one), (j, other) in product(enumerate(one_list), enumerate(other_list)):
            related = plain_id(one.subject) == plain_id(other.subject)
            evidence = _same_subject(one, other, sections) or files.same(one, other)
            if evidence is None and compare is not None:
                evidence = compare.same(i, j, exactly=related)
            if evidence is not None:
                shown = files.shown(one.images[0]), files.shown(other.images[0])
                leaks.append(Leak(one, other, sections, *evidence, shown))
    return leaks


def _listed(leaks: Sequence[Leak]) -> str:
    """Describe the first leaks and count the others."""
    more = [f"and {len(leaks) - _LISTED} more"] if len(leaks) > _LISTED else []
    return "; ".join([*(leak.describe() for leak in leaks[:_LISTED]), *more])


def _cure(leaks: Sequence[Leak]) -> str:
    """Say what helps against these leaks."""
    cures = []
    if not all(leak.transductive for leak in leaks):
        cures.append("Keep all sessions and copies of a subject in one of the lists.")
    if any(leak.transductive for leak in leaks):
        cures.append(
            "Remove these scans from 'unlabeled', or pass --transductive, which every table then says."
        )
    return " ".join(cures)


# ------------------------------------------------------------------------------------------------ names


def plain_id(subject: str) -> str:
    """Spell a subject's id without what people write in two ways.

    Case, "sub-" or "subject" before a number, everything but letters and digits, and leading zeros go.
    """
    name = re.sub(r"[^a-z0-9]", "", re.sub(r"^sub-", "", subject.casefold()))
    name = re.sub(r"^sub(ject)?(?=\d)", "", name)
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _same_subject(one: Subject, other: Subject, sections: tuple[str, str]) -> tuple[str, str] | None:
    """Compare ids and, where sections may share a subject, sessions."""
    if plain_id(one.subject) != plain_id(other.subject):
        return None
    sessions = [(scan.session or "").casefold() for scan in (one, other)]
    if sessions[0] != sessions[1]:
        if not set(sections) & set(HELD_OUT):
            return None
        return "same subject", f"sessions '{one.session or 'none'}' and '{other.session or 'none'}'"
    if one.subject == other.subject:
        return "same subject", "the ids are equal"
    return "same subject", f"the ids '{one.subject}' and '{other.subject}' differ in spelling only"


# ------------------------------------------------------------------------------------------------ files


class _Stored(NamedTuple):
    """Where the voxels of an image lie."""

    path: Path
    resolved: Path
    inode: tuple[int, int] | None
    size: int


class _Files:
    """Compares image files, looking at each once; bytes are read only where sizes are equal."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 - a link keeps its own name
        self.known: dict[Path, _Stored] = {}
        self.digests: dict[Path, str] = {}

    def shown(self, path: Path) -> str:
        """Return a path relative to the cohort's folder, or the name of a file outside it."""
        absolute = Path(os.path.abspath(path))  # noqa: PTH100
        return absolute.relative_to(self.root).as_posix() if self.root in absolute.parents else path.name

    def same(self, one: Subject, other: Subject) -> tuple[str, str] | None:
        """Return what shows that two scans share an image file, or None."""
        for first, second in product(map(self._stored, one.images), map(self._stored, other.images)):
            names = f"{self.shown(first.path)} and {self.shown(second.path)}"
            if first.resolved == second.resolved or (first.inode and first.inode == second.inode):
                return "same file", f"{names} are one file on the disk"
            if first.inode and first.size == second.size and self._digest(first) == self._digest(second):
                return "same file", f"{names} are equal byte for byte"
        return None

    def _stored(self, path: Path) -> _Stored:
        if path not in self.known:
            voxels = path.with_suffix(".img") if path.suffix == ".hdr" else path  # headers may well be equal
            voxels = voxels if voxels.is_file() else path
            found = voxels.stat() if voxels.is_file() else None
            inode = (found.st_dev, found.st_ino) if found else None
            self.known[path] = _Stored(path, voxels.resolve(), inode, found.st_size if found else -1)
        return self.known[path]

    def _digest(self, stored: _Stored) -> str:
        if stored.resolved not in self.digests:
            self.digests[stored.resolved] = sha256_once(stored.resolved)
        return self.digests[stored.resolved]


# ----------------------------------------------------------------------------------------------- voxels


class _Look(NamedTuple):
    """What is kept of a scan until the spacing of the fingerprints is known.

    Args:
        digest: Of its values in ascending order without zeros.
        values: ``(I, J, K)``, standardized, cut to the foreground's box and reduced.
        inside: Where they count.
        affine: Of these voxels, 4 x 4, in mm.
    """

    digest: str
    values: NDArray[np.float16]
    inside: NDArray[np.bool_]
    affine: NDArray[np.float64]


class _Prints(NamedTuple):
    """The scans of a section.

    Args:
        digests: One a scan.
        centered: Fingerprints about each scan's own center, ``(N, 32, 32, 32)``.
        lattice: The same with voxel centers on a lattice in scanner space that all scans share.
    """

    digests: list[str]
    centered: NDArray[np.float32]
    lattice: NDArray[np.float32]


class _VoxelPairs:
    """Compares each scan of one section with each of another."""

    def __init__(self, ones: _Prints, others: _Prints) -> None:
        self.ones, self.others = ones, others
        self.alike = np.maximum(
            _best_turned(ones.centered, others.centered), _best_shifted(ones.lattice, others.lattice)
        )

    def same(self, i: int, j: int, *, exactly: bool) -> tuple[str, str] | None:
        """Return what shows that two scans are one, or None; two sessions are one only if exactly equal."""
        if self.ones.digests[i] == self.others.digests[j]:
            return "same voxels", "all values but the background's are equal under another name or grid"
        if self.alike[i, j] >= NEAR_DUPLICATE and not exactly:
            limit = f"below {NEAR_DUPLICATE} is usual for two subjects"
            return "near-duplicate", f"their fingerprints correlate by {self.alike[i, j]:.2f}; {limit}"
        return None


def _read_prints(
    cohort: Cohort, pairs: Sequence[tuple[str, str]], progress: Progress | None
) -> dict[str, _Prints]:
    """Read the first contrast of every scan that has one to be compared with."""
    compared = {name for sections in pairs if all(map(cohort.section, sections)) for name in sections}
    placed = [(name, scan) for name, scan in cohort.placed() if name in compared]
    looks: dict[str, list[_Look]] = {name: [] for sections in pairs for name in sections}
    for number, (name, scan) in enumerate(placed):
        if progress is not None:
            progress(scan.key, number, len(placed))
        looks[name].append(_look(read_volume(scan.images[0], scan.key)))
    if progress is not None:
        progress("", len(placed), len(placed))
    spacing = _common_spacing([look for found in looks.values() for look in found])
    return {name: _prints(found, spacing) for name, found in looks.items()}


def _prints(looks: Sequence[_Look], spacing: float) -> _Prints:
    both = np.zeros((2, len(looks), _GRID, _GRID, _GRID), np.float32)
    for number, look in enumerate(looks):
        center = look.affine[:3, :3] @ np.argwhere(look.inside).mean(axis=0) + look.affine[:3, 3]
        both[0, number] = _fingerprint(look, spacing, center)
        both[1, number] = _fingerprint(look, spacing, np.round(center / spacing) * spacing)
    return _Prints([look.digest for look in looks], both[0], both[1])


def _look(volume: Volume) -> _Look:
    """Keep a digest and a reduced copy of a scan."""
    inside = _inside(volume.data)
    box = _box(inside)
    inside = inside[box]
    eroded = binary_erosion(inside, border_value=1)  # resampling mixes the rim with the background
    within = (eroded if eroded.any() else inside).astype(np.float32)
    steps = [-(-n // _LARGEST_BOX) for n in within.shape]
    count = _block_sums(within, steps)
    counted = count >= 0.5 * count.max()
    values = np.where(counted, _block_sums(volume.data[box] * within, steps) / np.maximum(count, 1), 0)
    values = (values - values[counted].mean()) / max(float(values[counted].std()), 1e-12)
    first = [cut.start + (step - 1) / 2 for cut, step in zip(box, steps, strict=True)]
    affine = volume.grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    affine[:3, :3] *= steps
    return _Look(volume.voxel_sha256(), np.clip(values, -99, 99).astype(np.float16), counted, affine)


def _inside(data: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the foreground; what is not 0 where that is nearly all, as in a crop or a head in noisy air."""
    size = np.abs(data)
    inside = size > _LEVEL * np.percentile(size[::3, ::3, ::3], 99)
    return inside if inside[_box(inside)].mean() <= FILLED_SHARE else data != 0


def _box(inside: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box around everything that is true."""
    found = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(where[0]), int(where[-1]) + 1) for where in found)


def _block_sums(data: NDArray[np.float32], steps: Sequence[int]) -> NDArray[np.float32]:
    """Add up blocks of ``steps`` voxels; the last ones may be smaller."""
    padded = np.pad(data, [(0, -n % step) for n, step in zip(data.shape, steps, strict=True)])
    split = [part for n, step in zip(padded.shape, steps, strict=True) for part in (n // step, step)]
    return np.asarray(padded.reshape(split).sum(axis=(1, 3, 5)))


def _common_spacing(looks: Sequence[_Look]) -> float:
    """Return the spacing in mm at which the median scan fills most of a fingerprint."""
    extents = [
        float((np.abs(look.affine[:3, :3]) @ (np.array(look.values.shape) - 1)).max()) for look in looks
    ]
    return max(float(np.median(extents)), 1e-3) / (_FILLED * _GRID) if extents else 1.0


def _fingerprint(look: _Look, spacing: float, center: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the band-passed scan on a small grid along the scanner's axes, ``(32, 32, 32)``, of length 1.

    Args:
        look: The scan.
        spacing: In mm.
        center: Middle of the grid in scanner space, in mm.
    """
    target = np.diag([spacing, spacing, spacing, 1.0])
    target[:3, 3] = center - spacing * (_GRID - 1) / 2
    to_voxel = np.linalg.inv(look.affine) @ target
    own = np.linalg.norm(look.affine[:3, :3], axis=0)
    width = 0.4 * np.maximum(spacing / own - 1, 0)
    weights = look.inside.astype(np.float32)
    total, covered = (
        affine_transform(
            gaussian_filter(part, width, mode="constant"),
            to_voxel[:3, :3], to_voxel[:3, 3], (_GRID, _GRID, _GRID), order=1,
        )
        for part in (look.values.astype(np.float32) * weights, weights)
    )  # fmt: skip
    sure = covered > _SURE
    result = np.zeros(sure.shape, np.float32)
    if sure.any():
        values = np.where(sure, total / np.maximum(covered, _SURE), 0)
        fine, coarse = (_smooth_inside(values, sure, size) for size in _BAND)
        band = (fine - coarse)[sure]
        band = np.clip((band - band.mean()) / max(float(band.std()), 1e-12), -_CLIP, _CLIP)
        result[sure] = band / max(float(np.linalg.norm(band)), 1e-12)
    return result


def _smooth_inside(
    values: NDArray[np.float32], inside: NDArray[np.bool_], width: float
) -> NDArray[np.float32]:
    """Smooth with a Gaussian that looks at nothing outside."""
    weights = gaussian_filter(inside.astype(np.float32), width, mode="constant")
    return np.asarray(gaussian_filter(values, width, mode="constant") / np.maximum(weights, 1e-6))


def _turned(prints: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield fingerprints in the 48 ways in which their axes can be named and pointed."""
    for axes in permutations((1, 2, 3)):
        for i, j, k in product((1, -1), repeat=3):
            yield prints.transpose(0, *axes)[:, ::i, ::j, ::k]


def _best_turned(ones: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correlation of each pair in the best of all orientations, ``(N, M)``."""
    flat = ones.reshape(len(ones), _GRID**3)
    best = np.full((len(ones), len(others)), -1.0, np.float32)
    for turned in _turned(others):
        np.maximum(best, flat @ turned.reshape(len(others), _GRID**3).T, out=best)
    return best


def _best_shifted(ones: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correlation of each pair where both have content, at the best shift, ``(N, M)``."""
    best = np.full((len(ones), len(others)), -1.0, np.float32)
    lags = np.r_[0 : _REACH + 1, -_REACH:0]
    for start in range(0, len(ones), _BATCH):
        some = slice(start, start + _BATCH)
        spectra = _spectra(ones[some])
        for number, other in enumerate(others):
            image, square, where = (np.conj(part) for part in _spectra(other[None]))
            shared, one_energy, other_energy = (
                irfftn(one * two, s=(_GRID,) * 3, axes=(1, 2, 3))[:, lags][:, :, lags][:, :, :, lags]
                for one, two in zip(spectra, (image, where, square), strict=True)
            )
            energy = np.sqrt(np.maximum(one_energy, 0) * np.maximum(other_energy, 0))
            best[some, number] = (shared / np.maximum(energy, _LEAST_OVERLAP)).max(axis=(1, 2, 3))
    return best


def _spectra(prints: NDArray[np.float32]) -> list[NDArray[np.complex64]]:
    """Return the spectra of fingerprints, of their squares, and of where they have content."""
    parts = (prints, prints**2, (prints != 0).astype(np.float32))
    return [rfftn(part, axes=(1, 2, 3)) for part in parts]
