"""Labeled scans registered to other scans, every pair kept on disk, and the priors they make."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.errors import RegistrationError
from medssl.io.files import atomic_path
from medssl.registration import Registration, RegistrationSettings, Scan, anatomical_prior, register

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of pairs that are done and the number of all."""

Sample = Mapping[Any, Any]
"""A preprocessed scan: ``subject``, ``image`` ``(C, I, J, K)``, ``mask`` and ``label`` ``(1, I, J, K)``."""

_FOLDER = "registrations"
_SMALL = 1_000_000
"""Voxels to register, of all pairs added up, below which starting processes takes longer than it spares."""

_METHOD = 1
"""Part of every key: raise it when `register` gives other results for the same input."""


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
class Atlases:
    """Labeled scans and their registrations to other scans.

    Args:
        labels: Atlas -> class numbers, ``(I, J, K)`` each.
        shapes: Target -> shape of its grid.
        files: Target -> atlas -> its registration, for pairs that succeeded.
        failed: (target, atlas) -> why.
        classes: K.
        options: See `AtlasOptions`.
    """

    labels: dict[str, NDArray[Any]]
    shapes: dict[str, tuple[int, ...]]
    files: dict[str, dict[str, Path]]
    failed: dict[tuple[str, str], str]
    classes: int
    options: AtlasOptions

    def nearest(self, target: str) -> dict[str, Registration]:
        """Return the registrations of the atlases that are most similar to a target, the best first."""
        found = {atlas: Registration.load(path) for atlas, path in self.files[target].items()}
        order = sorted(found, key=lambda atlas: (-found[atlas].similarity, atlas))
        return {atlas: found[atlas] for atlas in order[: self.options.nearest]}

    def prior(self, target: str) -> NDArray[np.float16]:
        """Return what the atlases say about a target: above 0, sums to 1 over classes.

        It is flat where no atlas reaches, and for a class that none of the atlases has.

        Shapes:
            return: ``(K, I, J, K)``
        """
        nearest = self.nearest(target)
        if not nearest:
            logger.warning("%s: no atlas could be registered, its anatomical prior is flat.", target)
            return np.full((self.classes, *self.shapes[target]), 1 / self.classes, np.float16)
        warped = [one.warp_labels(self.labels[atlas], self.classes) for atlas, one in nearest.items()]
        prior = anatomical_prior(warped, [1.0] * len(warped), self.options.sigma_voxels, self.options.floor)
        present = {int(number) for atlas in nearest for number in np.unique(self.labels[atlas])}
        return _flat_for_absent(prior, [k for k in range(self.classes) if k not in present], target)


def register_atlases(
    atlases: Sequence[Sample],
    targets: Sequence[Sample],
    folder: Path,
    *,
    classes: int,
    options: AtlasOptions | None = None,
    progress: Progress | None = None,
) -> Atlases:
    """Register every labeled scan to every target, in parallel processes.

    Each pair is written at once to ``folder/registrations/<target>/<atlas>.npz`` and reused by the next call
    as long as both scans and the settings are the same; an interruption keeps those that are done. A scan
    is never an atlas for itself, nor for another session of its subject. A pair that fails is logged and
    left out, which is a weight of 0.

    Args:
        atlases: Preprocessed scans with labels.
        targets: Preprocessed scans; labels are not looked at.
        folder: Where registrations are kept.
        classes: K, the number of classes; label 255 (unknown) counts for none.
        options: See `AtlasOptions`.
        progress: Told about each pair; finished ones of earlier calls are told at once.

    Raises:
        RegistrationError: Two atlases or two targets have one name, or a worker process died.
        OutputError: The folder cannot be written to.
    """
    options = options or AtlasOptions()
    moving, fixed = _scans(atlases, "atlases"), _scans(targets, "targets")
    pairs = _pairs(moving, fixed, Path(folder), options.settings)
    waiting = [pair for pair in pairs if Registration.key_of(pair.path) != pair.key]
    done, failed = len(pairs) - len(waiting), {}
    if progress is not None:
        progress(done, len(pairs))
    for pair, why in _finished(waiting, fixed, moving, options):
        done += 1
        if why is not None:
            failed[pair.target, pair.atlas] = why
            logger.warning("%s: the atlas %s gets weight 0. %s", pair.target, pair.atlas, why)
        if progress is not None:
            progress(done, len(pairs))
    files: dict[str, dict[str, Path]] = {target: {} for target in fixed}
    for pair in pairs:
        if (pair.target, pair.atlas) not in failed:
            files[pair.target][pair.atlas] = pair.path
    labels = {str(sample["subject"]): np.asarray(sample["label"])[0] for sample in atlases}
    shapes = {target: scan.grid.shape for target, scan in fixed.items()}
    return Atlases(labels, shapes, files, failed, classes, options)


def anatomical_priors(
    atlases: Sequence[Sample],
    targets: Sequence[Sample],
    folder: Path,
    *,
    classes: int,
    options: AtlasOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float16]]:
    """Return the prior of each target, made of the labeled scans that are registered to it.

    Whole brains at 1 mm take about 60 MB a target; `register_atlases` and `Atlases.prior` make one at a time.

    Args:
        atlases: As in `register_atlases`.
        targets: As there.
        folder: As there.
        classes: As there.
        options: As there.
        progress: As there.

    Shapes:
        return: ``(K, I, J, K)`` each
    """
    found = register_atlases(atlases, targets, folder, classes=classes, options=options, progress=progress)
    return {target: found.prior(target) for target in found.files}


def leave_one_out(
    atlases: Sequence[Sample],
    folder: Path,
    *,
    classes: int,
    options: AtlasOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float16]]:
    """Return the prior of each labeled scan, made of the labeled scans of other subjects.

    Args:
        atlases: As in `register_atlases`.
        folder: As there.
        classes: As there.
        options: As there.
        progress: As there.

    Shapes:
        return: ``(K, I, J, K)`` each
    """
    return anatomical_priors(atlases, atlases, folder, classes=classes, options=options, progress=progress)


@dataclass(frozen=True)
class _Pair:
    """One registration to make: file and hash of what it is made from."""

    target: str
    atlas: str
    path: Path
    key: str


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
        scans[name] = Scan(voxels, np.asarray(image.affine, np.float64), None if mask.all() else mask)
    return scans


def _pairs(
    atlases: Mapping[str, Scan], targets: Mapping[str, Scan], folder: Path, settings: RegistrationSettings
) -> list[_Pair]:
    """List the pairs of different subjects."""
    digests = {id(scan): _digest(scan) for scan in (*atlases.values(), *targets.values())}
    method = json.dumps({"method": _METHOD, **asdict(settings)}, sort_keys=True)
    pairs = []
    for target, fixed in targets.items():
        for atlas, moving in atlases.items():
            if _person(atlas) != _person(target):
                text = "\n".join((digests[id(fixed)], digests[id(moving)], method))
                key = hashlib.sha256(text.encode()).hexdigest()
                pairs.append(_Pair(target, atlas, folder / _FOLDER / target / f"{atlas}.npz", key))
    return pairs


def _person(subject: str) -> str:
    return subject.split("_ses-", maxsplit=1)[0]


def _digest(scan: Scan) -> str:
    """Return a hash of all that a registration depends on."""
    digest = hashlib.sha256(repr(scan.image.shape).encode())
    for array in (scan.affine, scan.image, np.packbits(scan.inside)):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _finished(
    pairs: Sequence[_Pair], fixed: Mapping[str, Scan], moving: Mapping[str, Scan], options: AtlasOptions
) -> Iterator[tuple[_Pair, str | None]]:
    """Yield each pair when it is written, or with the reason why it failed, in any order."""
    voxels = sum(int(fixed[pair.target].inside.sum()) for pair in pairs)
    workers = min(options.processes or (_cpus() if voxels > _SMALL else 1), len(pairs))
    if workers <= 1:
        for pair in pairs:
            yield _register_and_save(pair, fixed[pair.target], moving[pair.atlas], options.settings)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interruptions) as pool:
        jobs = [
            pool.submit(_register_and_save, pair, fixed[pair.target], moving[pair.atlas], options.settings)
            for pair in pairs
        ]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool as error:
            msg = "A process that registers scans died; finished pairs are kept."
            raise RegistrationError(
                msg, "Is memory short? Go on with one process: --set train#dataset#registered#processes=1."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _register_and_save(
    pair: _Pair, fixed: Scan, moving: Scan, settings: RegistrationSettings
) -> tuple[_Pair, str | None]:
    """Make one registration and write it, so that a pair which runs when Ctrl-C comes is kept as well."""
    try:
        registration = replace(register(fixed, moving, settings), key=pair.key)
    except RegistrationError as error:
        return pair, str(error)
    with atomic_path(pair.path) as temporary:
        registration.save(temporary)
    return pair, None


def _leave_interruptions() -> None:
    """Let the parent alone react to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _flat_for_absent(prior: NDArray[np.float32], absent: Sequence[int], target: str) -> NDArray[np.float16]:
    """Give classes that no atlas has the share 1 / K everywhere: nobody knows where they are."""
    if absent:
        logger.warning(
            "%s: none of the atlases used has the classes %s, their anatomical prior is flat.", target, absent
        )
        prior = prior * (1 - len(absent) / len(prior)) / np.delete(prior, absent, axis=0).sum(0)
        prior[list(absent)] = 1 / len(prior)
    return prior.astype(np.float16)
