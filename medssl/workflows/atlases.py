"""Labeled scans registered to other scans, every pair kept on disk, and the priors they make."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import InputError, RegistrationError
from medssl.io.files import atomic_path, read_json, read_tsv, write_json, write_tsv
from medssl.io.leaks import plain_id
from medssl.registration import (
    LIBRARY,
    Registration,
    RegistrationSettings,
    Scan,
    fails_for_good,
    register,
)
from medssl.workflows.processes import in_processes, workers_for
from medssl.workflows.warping import WarpedScan, warp_onto

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of jobs (pairs, scans) that are done and the number of all."""

Sample = Mapping[Any, Any]
"""A preprocessed scan: ``subject``, ``image`` ``(C, I, J, K)``, ``mask`` and ``label`` ``(1, I, J, K)``."""

_FOLDER = "registrations"

TABLE = "registrations.tsv"
"""Beside the registrations to one target: a row a labeled scan."""

COLUMNS = ("atlas", "weight", "overlap", "similarity", "folding", "file", "reason")
"""Of `TABLE`: weight is 0 for a registration that failed for a reason, folding a share of the voxels."""

MUCH_FOLDING = 0.01
"""Share of voxels with a Jacobian that is not positive above which a registration is worth a look."""

_METHOD = 3
"""Part of every key: raise it when `register` gives other results for the same input, or refuses other pairs."""


@dataclass(frozen=True)
class AtlasOptions:
    """How atlases are registered and used.

    Args:
        settings: Of each registration.
        nearest: How many of the most similar atlases make a prior; None for all.
        sigma_voxels: Smoothing of the prior, see `anatomical_prior`.
        floor: Floor of the prior.
        processes: Worker processes, one thread each; None for one a core where that pays, 1 for none but this.
    """

    settings: RegistrationSettings = field(default_factory=RegistrationSettings)
    nearest: int | None = None
    sigma_voxels: float = 0.7
    floor: float = 0.02
    processes: int | None = None


@dataclass(frozen=True, eq=False)
class LabeledScans:
    """Labeled scans as registration sees them; hashed once, however often they are laid over others.

    Args:
        scans: Name -> what is registered.
        labels: Name -> class numbers, ``(I, J, K)`` each.
    """

    scans: dict[str, Scan]
    labels: dict[str, NDArray[Any]]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> LabeledScans:
        """Take what registration needs from preprocessed samples.

        Raises:
            RegistrationError: Two have one name, or one is not fit to be registered.
        """
        labels = {str(sample["subject"]): np.asarray(sample["label"])[0] for sample in samples}
        return cls(_scans(samples, "atlases"), labels)

    @cached_property
    def digests(self) -> dict[str, str]:
        """Hash of each scan, labels left out: a registration does not depend on them."""
        return {name: _digest(scan) for name, scan in self.scans.items()}

    @cached_property
    def present(self) -> dict[str, set[int]]:
        """Class numbers that occur in each."""
        return {name: {int(number) for number in np.unique(label)} for name, label in self.labels.items()}


@dataclass(frozen=True, eq=False)
class Atlases:
    """Labeled scans and their registrations to other scans.

    Args:
        labeled: The labeled scans.
        shapes: Target -> shape of its grid.
        files: Target -> atlas -> its registration, for pairs that succeeded.
        failed: (target, atlas) -> why.
        short_of_memory: Those of them that failed for want of memory: they are tried again.
        classes: K.
        options: See `AtlasOptions`.
    """

    labeled: LabeledScans
    shapes: dict[str, tuple[int, ...]]
    files: dict[str, dict[str, Path]]
    failed: dict[tuple[str, str], str]
    short_of_memory: frozenset[tuple[str, str]]
    classes: int
    options: AtlasOptions

    def nearest(self, target: str) -> list[str]:
        """Return the names of the atlases that are most similar to a target, the best first."""
        found = {atlas: Registration.similarity_of(path) for atlas, path in self.files[target].items()}
        return sorted(found, key=lambda atlas: (-found[atlas], atlas))[: self.options.nearest]

    def prior(self, target: str) -> NDArray[np.float16]:
        """Return what the atlases say about a target: above 0, sums to 1 over classes.

        It is flat where no atlas reaches, and for a class that none of the atlases has.

        Shapes:
            return: ``(K, I, J, K)``
        """
        return warp_onto(*self._job(target, (), {})).prior

    def warped(
        self,
        kept: Mapping[str, Collection[str]],
        samples: Mapping[str, Sample],
        *,
        sharing: int = 1,
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, WarpedScan]]:
        """Warp the nearest atlases onto every target, in parallel processes, in any order.

        Args:
            kept: Target -> atlases whose warped images are wanted, beside the prior.
            samples: Atlas -> its preprocessed sample, of those atlases.
            sharing: Processes like this one that share the cores.
            progress: Told about each target.
        """
        wanted = {atlas for atlases in kept.values() for atlas in atlases}
        stacks = {atlas: _image_and_mask(samples[atlas]) for atlas in wanted}
        jobs = [self._job(target, kept.get(target, ()), stacks) for target in self.files]
        voxels = sum(int(np.prod(self.shapes[target])) * len(self.files[target]) for target in self.files)
        workers = workers_for(voxels, self.options.processes, sharing)
        if progress is not None:
            progress(0, len(jobs))
        targets = list(self.files)
        for done, (number, warped) in enumerate(in_processes(warp_onto, jobs, workers), start=1):
            if progress is not None:
                progress(done, len(jobs))
            yield targets[number], warped

    def _job(
        self, target: str, kept: Collection[str], stacks: Mapping[str, NDArray[np.float32]]
    ) -> tuple[Any, ...]:
        """Return the arguments of `warp_onto`; say what will be missing."""
        nearest = self.nearest(target)
        present = {number for atlas in nearest for number in self.labeled.present[atlas]}
        absent = [number for number in range(self.classes) if number not in present]
        if not nearest:
            logger.warning("%s: no atlas could be registered, its anatomical prior is flat.", target)
        elif absent:
            what = "none of the atlases used has the classes"
            logger.warning("%s: %s %s, their anatomical prior is flat.", target, what, absent)
        atlases = [
            (
                atlas,
                self.files[target][atlas],
                self.labeled.labels[atlas],
                stacks[atlas] if atlas in kept else None,
            )
            for atlas in nearest
        ]
        options = self.options
        return atlases, self.shapes[target], self.classes, absent, options.sigma_voxels, options.floor


def register_atlases(
    atlases: Sequence[Sample] | LabeledScans,
    targets: Sequence[Sample],
    folder: Path,
    *,
    classes: int,
    options: AtlasOptions | None = None,
    progress: Progress | None = None,
) -> Atlases:
    """Register every labeled scan to every target, in parallel processes.

    Each pair is written at once to ``folder/registrations/<target>/<atlas>_<key>.npz``, the key being a hash of
    both scans, the settings and the library; whoever registers the same pair again finds it. An interruption
    keeps those that are done. ``registrations.tsv`` beside them tells overlap after the affine step, similarity,
    and the share of voxels that fold. A scan is never an atlas for itself, nor for another session of its subject.
    A pair that fails is logged and left out, which is a weight of 0. ``<atlas>_<key>.failed.json`` says why, and
    the pair is not tried again, unless memory was short.

    Args:
        atlases: Preprocessed scans with labels; `LabeledScans` where they are laid over scan after scan.
        targets: Preprocessed scans; labels are not looked at.
        folder: Where registrations are kept; any number of runs may share it.
        classes: K, the number of classes; label 255 (unknown) counts for none.
        options: See `AtlasOptions`.
        progress: Told about each pair; finished ones of earlier calls are told at once.

    Raises:
        RegistrationError: Two atlases or two targets have one name, a scan is not fit to be registered, or a
            worker process died.
        OutputError: The folder cannot be written to.
    """
    options = options or AtlasOptions()
    labeled = atlases if isinstance(atlases, LabeledScans) else LabeledScans.of(atlases)
    fixed = _scans(targets, "targets")
    pairs = _pairs(labeled, fixed, Path(folder), options.settings)
    waiting, failed = _still_to_do(pairs)
    done = len(pairs) - len(waiting)
    if progress is not None:
        progress(done, len(pairs))
    jobs = [(pair, fixed[pair.target], labeled.scans[pair.atlas], options.settings) for pair in waiting]
    voxels = sum(int(fixed[pair.target].inside.sum()) for pair in waiting)
    workers = workers_for(voxels, options.processes)
    for number, why in in_processes(register_and_save, jobs, workers):
        done += 1
        if why is not None:
            failed |= _noted_failure(waiting[number], why)
        if progress is not None:
            progress(done, len(pairs))
    files: dict[str, dict[str, Path]] = {target: {} for target in fixed}
    short = set()
    for pair in pairs:
        if (pair.target, pair.atlas) not in failed:
            files[pair.target][pair.atlas] = pair.path
        elif _known_failure(pair) is None:
            short.add((pair.target, pair.atlas))
    _write_tables(pairs, failed)
    shapes = {target: scan.grid.shape for target, scan in fixed.items()}
    return Atlases(labeled, shapes, files, failed, frozenset(short), classes, options)


def _still_to_do(pairs: Sequence[_Pair]) -> tuple[list[_Pair], dict[tuple[str, str], str]]:
    """Return the pairs that nobody has registered yet, and why others failed when they were."""
    waiting: list[_Pair] = []
    failed: dict[tuple[str, str], str] = {}
    for pair in pairs:
        if Registration.key_of(pair.path) == pair.key:
            continue
        why = _known_failure(pair)
        if why is None:
            waiting.append(pair)
        else:
            failed |= _noted_failure(pair, why)
    return waiting, failed


def _noted_failure(pair: _Pair, why: str) -> dict[tuple[str, str], str]:
    """Say that a pair failed, now or before, and return why."""
    logger.warning("%s: the atlas %s gets weight 0. %s", pair.target, pair.atlas, why)
    return {(pair.target, pair.atlas): why}


def _write_tables(pairs: Sequence[_Pair], failed: Mapping[tuple[str, str], str]) -> None:
    """Tell how the registrations to each target turned out; rows that are there are not made again."""
    tables: dict[Path, list[_Pair]] = {}
    for pair in pairs:
        tables.setdefault(pair.path.with_name(TABLE), []).append(pair)
    for path, found in tables.items():
        rows = _known_rows(path)
        for pair in found:
            why = failed.get((pair.target, pair.atlas))
            if why is not None:
                rows.pop(pair.path.name, None)
                rows[pair.marker.name] = _failed_row(pair, why)
            elif pair.path.name not in rows:
                rows[pair.path.name] = _row(pair)
        write_tsv(path, sorted(rows.values(), key=_failed_last), COLUMNS)


def _failed_last(row: Mapping[str, str]) -> tuple[bool, str, str]:
    """Return what the rows of a table are sorted by."""
    return row["weight"] == "0", row["atlas"], row["file"]


def _known_rows(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a table by the file that they describe and that is there; none of a damaged table."""
    try:
        told = ({"reason": "n/a"} | row for row in read_tsv(path))  # earlier versions told none
        rows = [row for row in told if set(row) == set(COLUMNS)]
        return {row["file"]: row for row in rows if (path.parent / row["file"]).is_file()}
    except InputError:
        return {}


def _row(pair: _Pair) -> dict[str, str]:
    """Look at one registration; say where it folds much."""
    quality = Registration.quality_of(pair.path)
    if quality["folding"] > MUCH_FOLDING:
        share = 100 * quality["folding"]
        logger.warning("%s: %s laid over it folds in %.1f %% of the voxels.", pair.target, pair.atlas, share)
    told = {name: f"{value:.4f}" for name, value in quality.items()}
    return {"atlas": pair.atlas, "weight": "1", **told, "file": pair.path.name, "reason": "n/a"}


def _failed_row(pair: _Pair, why: str) -> dict[str, str]:
    """Tell of one registration that failed; it has a file where that is remembered."""
    file = pair.marker.name if pair.marker.is_file() else "n/a"
    told = {"atlas": pair.atlas, "weight": "0", "file": file, "reason": why}
    return dict.fromkeys(COLUMNS, "n/a") | told


@dataclass(frozen=True)
class _Pair:
    """One registration to make: file and hash of what it is made from."""

    target: str
    atlas: str
    path: Path
    key: str

    @property
    def marker(self) -> Path:
        """Stands in the place of the file where the pair failed."""
        return self.path.with_suffix(".failed.json")


def _known_failure(pair: _Pair) -> str | None:
    """Return why a pair failed before, made from the same; None where that is not known."""
    try:
        told = read_json(pair.marker)
    except InputError:
        return None
    same = isinstance(told, dict) and told.get("key") == pair.key
    return str(told.get("why", "")) if same else None


def register_and_save(pair: _Pair, fixed: Scan, moving: Scan, settings: RegistrationSettings) -> str | None:
    """Make one registration and write it, so that a pair which runs when Ctrl-C comes is kept as well.

    Where it fails for good, that is written in its place.

    Returns:
        Why it failed, None where it did not.
    """
    try:
        registration = replace(register(fixed, moving, settings), key=pair.key)
    except RegistrationError as error:
        if fails_for_good(error):
            write_json(pair.marker, {"key": pair.key, "why": str(error)})
        return str(error)
    with atomic_path(pair.path) as temporary:
        registration.save(temporary)
    pair.marker.unlink(missing_ok=True)
    return None


def _scans(samples: Sequence[Sample], what: str) -> dict[str, Scan]:
    """Take what registration needs from samples, by name."""
    scans: dict[str, Scan] = {}
    for sample in samples:
        name, image = str(sample["subject"]), sample["image"]
        if name in scans:
            msg = f"Two of the {what} have the name {name}; expected one scan each."
            raise RegistrationError(msg, "Name sessions apart, such as sub-01_ses-6mo.")
        mask = np.asarray(sample["mask"])[0] > 0.5
        voxels = np.ascontiguousarray(np.asarray(image), np.float32)
        affine = np.asarray(image.affine, np.float64)
        scans[name] = Scan(voxels, affine, None if mask.all() else mask, name)
    return scans


def _pairs(
    labeled: LabeledScans, targets: Mapping[str, Scan], folder: Path, settings: RegistrationSettings
) -> list[_Pair]:
    """List the pairs of different subjects."""
    method = json.dumps({"method": _METHOD, "library": LIBRARY, **asdict(settings)}, sort_keys=True)
    pairs = []
    for target, fixed in targets.items():
        digest = _digest(fixed)
        for atlas in labeled.scans:
            if _person(atlas) != _person(target):
                text = "\n".join((digest, labeled.digests[atlas], method))
                key = hashlib.sha256(text.encode()).hexdigest()
                name = f"{atlas}_{key[:12]}.npz"
                pairs.append(_Pair(target, atlas, folder / _FOLDER / target / name, key))
    return pairs


def _person(scan: str) -> str:
    return plain_id(scan.split("_ses-", maxsplit=1)[0])


def _digest(scan: Scan) -> str:
    """Return a hash of all that a registration depends on."""
    digest = hashlib.sha256(repr(scan.image.shape).encode())
    for array in (scan.affine, scan.image, np.packbits(scan.inside)):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _image_and_mask(sample: Sample) -> NDArray[np.float32]:
    """Stack what is warped of a labeled scan beside its labels: ``(C + 1, I, J, K)``, the mask last."""
    image, mask = (np.asarray(sample[name], np.float32) for name in ("image", "mask"))
    return np.concatenate([image, mask])
