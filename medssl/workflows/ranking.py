"""Label these next: the unlabeled scans of a cohort, the one whose label promises most first."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from medssl.errors import ConfigError, DatalistError, InputError, MedsslError
from medssl.functional.selection import (
    descriptor_distance,
    greedy_coverage,
    rank_share,
    similarity,
    standardized,
)
from medssl.geometry import Grid
from medssl.inference.predictor import Predictor
from medssl.io.cohort import read_cohort
from medssl.io.files import read_json, require_writable_folder, sha256, write_json
from medssl.io.inspection import require_usable
from medssl.io.subjects import Cohort, Subject
from medssl.workflows.devices import choose_device
from medssl.workflows.models import Model, load_model
from medssl.workflows.overlap import overlapped
from medssl.workflows.prediction import Prepared, prepare
from medssl.workflows.ranking_words import Facts, reason
from medssl.workflows.scan_measures import (
    VERSION,
    Measures,
    Opinion,
    Slice,
    measure,
    measures_of_json,
    mirrored,
    of_another,
)
from medssl.workflows.segment import require_each_once, without_folders

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranked:
    """An unlabeled scan and why it stands where it does.

    Args:
        subject: Key such as "sub-01" or "sub-01_ses-6mo".
        score: Expected gain: the share of the pool's uncertainty that a label of this scan covers beyond the
            labeled scans and those above it, in [0, 1].
        reason: Plain words.
        slices: The three slices to look at first, through the most uncertain place.
        voxel: That place in the array as it is stored.
        entropy: See `Measures`.
        disagreement: See `Measures`.
        uncertainty: Mean of the two as ranks in the pool, in (0, 1): the weight of this scan.
        distance: To the nearest labeled scan, in standard deviations; None without labeled scans.
        nearest: Key of that scan, or "".
    """

    subject: str
    score: float
    reason: str
    slices: tuple[Slice, ...]
    voxel: tuple[int, int, int]
    entropy: float
    disagreement: float | None
    uncertainty: float
    distance: float | None
    nearest: str


@dataclass(frozen=True)
class RankOptions:
    """How scans are measured.

    Args:
        previous: Model to disagree with, such as the run before; None compares with the mirrored scan.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        mask: "none" for scans without a mask, whose background is a class.
        resample: Bring other contrasts to the first one's grid by their headers.
        memory_limit: Bytes the network may use; None for a share of what is free.
        backend: See `Predictor`.
        precision: See `Predictor`.
    """

    previous: Path | str | None = None
    device: str = "auto"
    mask: str | None = None
    resample: bool = False
    memory_limit: int | None = None
    backend: str = "torch"
    precision: str = "float32"


class RankingWatcher:
    """Told about the progress of a ranking; every method may be left as it is."""

    def measured(self, subject: str, done: int, scans: int) -> None:
        """A scan is measured now, or was before; ``done`` of ``scans`` are finished."""

    def failed(self, subject: str, why: str) -> None:
        """A scan cannot be used and is left out."""


def rank(
    data: Path,
    model: Path | str | None,
    folder: Path,
    *,
    watcher: RankingWatcher | None = None,
    options: RankOptions | None = None,
) -> list[Ranked]:
    """Rank the unlabeled scans of a cohort by what a label of each promises, the best first.

    The network is run on every scan, labeled ones too, and what is measured is kept as a JSON file a scan. A
    second call runs it only on scans whose files are new, or all if the weights are; so an interrupted call
    goes on where it stopped. A scan that cannot be used is told to the watcher and left out.

    Args:
        data: Folder or datalist; the labeled scans are those for training.
        model: None for the packaged bundle, a run folder, a bundle, or a file of weights.
        folder: Where the measures are kept, outside the data.
        watcher: Told about each scan.
        options: See `RankOptions`.

    Raises:
        DatalistError: The cohort has no unlabeled scan, or one twice.
        InputError: Nothing was found, or no unlabeled scan can be used.
        CheckpointError: A model cannot be loaded.
        ConfigError: The previous model works in another space or with other labels, or the device or the
            backend is not there.
        OutputError: The folder cannot be written.
    """
    options, watcher = options or RankOptions(), watcher or RankingWatcher()
    ready = load_model(model, choose_device(options.device))
    cohort = read_cohort(data, ready.contrasts, ready.table, options.mask)
    require_each_once(cohort)
    if not cohort.unlabeled:
        msg = f"No unlabeled scan was found in {data} ({len(cohort.training)} labeled ones were)."
        raise DatalistError(msg, "Put scans without *_dseg.nii.gz there, or list them under 'unlabeled'.")
    require_writable_folder(folder, [data])
    predictor = _predictor(ready, options)
    second, voter = _second_opinion(ready, predictor, options)
    job = _Job(cohort, ready, predictor, second, voter, options, folder)
    found = job.measure_all(watcher)
    labeled = {one.key: found[one.key] for one in cohort.training if one.key in found}
    pool = {one.key: found[one.key] for one in cohort.unlabeled if one.key in found}
    if not pool:
        msg = (
            f"None of the {len(cohort.unlabeled)} unlabeled scans in {data} can be used; {job.first_failure}"
        )
        raise InputError(msg, "See 'medssl check'.")
    return ordered(pool, labeled)


def ordered(pool: Mapping[str, Measures], labeled: Mapping[str, Measures]) -> list[Ranked]:
    """Rank measured scans; see `rank`.

    Each scan of the pool weighs as much as the network is unsure of it (mean of two ranks, `rank_share`), and
    scans are taken one by one by how much of that weight they cover (`greedy_coverage`). How alike two scans
    are is decided by shares of labels, volume, and intensities.

    Args:
        pool: Unlabeled scans by key; at least one.
        labeled: Labeled scans by key; there may be none.
    """
    keys, everyone = [*labeled, *pool], [*labeled.values(), *pool.values()]
    described = [one.descriptor() for one in everyone]
    groups = [len(values) for _, values in described[0]]
    raw = torch.tensor(
        [[value for _, values in one for value in values] for one in described], dtype=torch.float64
    )
    distance = descriptor_distance(standardized(raw), groups)
    is_labeled = torch.arange(len(keys)) < len(labeled)
    uncertainty = _uncertainty(list(pool.values()))
    weight = torch.cat([torch.zeros(len(labeled), dtype=torch.float64), uncertainty])
    order, gains = greedy_coverage(similarity(distance), weight, is_labeled)
    facts = Facts(keys, everyone, distance, len(labeled), order)
    ranked = []
    for place, (at, gain) in enumerate(zip(order, gains, strict=True)):
        one, near = everyone[at], facts.nearest_labeled(at)
        ranked.append(
            Ranked(
                subject=keys[at],
                score=gain,
                reason=reason(facts, place),
                slices=one.slices,
                voxel=one.voxel,
                entropy=one.entropy,
                disagreement=one.disagreement,
                uncertainty=float(weight[at]),
                distance=None if near is None else float(distance[at, near]),
                nearest="" if near is None else keys[near],
            )
        )
    return ranked


def _uncertainty(pool: Sequence[Measures]) -> Tensor:
    """Return the mean rank of entropy and disagreement, ``(N,)``; of entropy alone without the other."""
    parts = [rank_share(torch.tensor([one.entropy for one in pool], dtype=torch.float64))]
    if all(one.disagreement is not None for one in pool):
        parts.append(rank_share(torch.tensor([one.disagreement for one in pool], dtype=torch.float64)))
    return torch.stack(parts).mean(0)


@dataclass
class _Job:
    """Everything that stays the same from scan to scan."""

    cohort: Cohort
    model: Model
    predictor: Predictor
    second: Opinion | None
    voter: str
    options: RankOptions
    folder: Path
    first_failure: str = field(default="", init=False)

    def path(self, subject: Subject) -> Path:
        return self.folder / f"{subject.key}_measures.json"

    def measure_all(self, watcher: RankingWatcher) -> dict[str, Measures]:
        """Return what is known about each scan that can be used; measure those that are not yet."""
        subjects = (*self.cohort.training, *self.cohort.unlabeled)
        found: dict[str, Measures] = {}
        waiting = []
        for subject in subjects:
            known = self.known(subject)
            if known is None:
                waiting.append(subject)
            else:
                found[subject.key] = known
                watcher.measured(subject.key, len(found), len(subjects))

        def write(subject: Subject, made: tuple[Measures, str]) -> None:
            measures, digest = made
            told = {
                "subject": subject.key,
                **self.head(),
                "scan_sha256": digest,
                "measures": measures.as_json(),
            }
            write_json(self.path(subject), told)
            found[subject.key] = measures

        with closing(overlapped(waiting, self.read, self.work, write)) as finished:
            for done, (subject, error) in enumerate(finished, start=len(found) + 1):
                if error is not None:
                    self.note(subject, error, watcher)
                watcher.measured(subject.key, done, len(subjects))
        return found

    def head(self) -> dict[str, object]:
        """Return what measures depend on besides the scan."""
        return {
            "version": VERSION,
            "weights_sha256": self.model.weights_sha256,
            "second": self.voter,
            "mask": self.options.mask,
            "resample": self.options.resample,
        }

    def known(self, subject: Subject) -> Measures | None:
        """Return the measures on disk, None where there are none of these files, weights and options."""
        path = self.path(subject)
        try:
            told = read_json(path) if path.is_file() else {}
            if any(told.get(name, "") != value for name, value in self.head().items()):
                return None
            return measures_of_json(told["measures"]) if told["scan_sha256"] == scan_sha256(subject) else None
        except InputError:  # an unreadable scan fails in its turn, unreadable measures are made anew
            return None

    def read(self, subject: Subject) -> tuple[Prepared, Grid, str]:
        """Read and check a scan, and bring it to the network's space."""
        scan = replace(subject, label=None)
        volumes = require_usable(scan, self.cohort, "unlabeled", self.options.resample)
        prepared = prepare(scan, self.model, self.options.resample, volumes)
        return prepared, volumes[0].grid, scan_sha256(scan)

    def work(self, subject: Subject, scan: tuple[Prepared, Grid, str]) -> tuple[Measures, str]:
        """Run the network on a scan and measure it."""
        prepared, grid, digest = scan
        measures = measure(
            prepared,
            self.predictor,
            second=self.second,
            grid=grid,
            contrasts=self.model.contrasts,
            table=self.model.table,
        )
        return measures, digest

    def note(self, subject: Subject, error: Exception, watcher: RankingWatcher) -> None:
        expected = isinstance(error, MedsslError)
        logger.log(logging.DEBUG if expected else logging.WARNING, "%s failed", subject.key, exc_info=error)
        unexpected = f"{subject.key}: unexpected {type(error).__name__}: {error}"
        why = without_folders(str(error), self.cohort.root) if expected else unexpected
        self.first_failure = self.first_failure or why
        watcher.failed(subject.key, why)


def scan_sha256(subject: Subject) -> str:
    """Return one hash of all that a network sees of a scan: its images and its mask.

    Raises:
        InputError: A file cannot be read.
    """
    mask = subject.mask
    parts = [sha256(path) for path in subject.images]
    parts.append(sha256(mask) if isinstance(mask, Path) else str(mask))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _predictor(model: Model, options: RankOptions) -> Predictor:
    return Predictor(
        network=model.network,
        memory_limit=options.memory_limit,
        device=model.device,
        backend=options.backend,
        precision=options.precision,
    )


def _second_opinion(model: Model, predictor: Predictor, options: RankOptions) -> tuple[Opinion | None, str]:
    """Return what the model is compared with, and what that is called in the measures' files.

    Raises:
        ConfigError: The previous model works in another space or with other labels.
    """
    if options.previous is not None:
        other = load_model(options.previous, model.device)
        for what in ("contrasts", "table", "spacing"):
            if getattr(other, what) != getattr(model, what):
                msg = f"The previous model {options.previous} has another {what}; its answers cannot be compared."
                raise ConfigError(msg, "Name an earlier run with the same data, or leave it out.")
        voter = _predictor(other, options)
        return (lambda prepared: of_another(prepared, voter)), other.weights_sha256
    if model.table.names_sides:
        return None, "none: labels name a side"
    return (lambda prepared: mirrored(prepared, predictor)), "mirrored"
