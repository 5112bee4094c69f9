"""From scans to label maps on the scans' own grid, with volumes and a picture each."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

import medssl
from medssl.errors import DatalistError, MedsslError, OutputError
from medssl.geometry import Grid
from medssl.inference.memory import available_memory
from medssl.inference.predictor import MEMORY_SHARE, Prediction, Predictor
from medssl.inference.trials import TrialStore
from medssl.io.cohort import read_cohort
from medssl.io.files import atomic_path, read_json, require_writable_folder, write_json, write_tsv
from medssl.io.inspection import require_usable
from medssl.io.nifti import Volume, write_labels, write_probabilities
from medssl.io.subjects import TRANSDUCTIVE, Cohort, Subject
from medssl.labels import LabelTable
from medssl.workflows.devices import choose_device
from medssl.workflows.models import Model, load_model
from medssl.workflows.overlap import overlapped
from medssl.workflows.prediction import Prepared, bring_back, predict, prepare
from medssl.workflows.provenance import command_line, relative, versions
from medssl.workflows.shards import Shard, only_writer, only_writer_of_tables

if TYPE_CHECKING:
    from medssl.workflows.anatomical_factor import AnatomicalFactor

logger = logging.getLogger(__name__)

TABLE_COLUMNS = ("index", "name", "abbreviation", "color")
"""Columns of a BIDS label table."""

SPARE = 1.1
"""Free memory as a multiple of what a map needs, from which on it is made again: the scan itself takes some."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, finished subjects, all subjects)."""


@dataclass
class Segmentation:
    """What a call of `segment` did.

    Args:
        out: Folder with the results.
        done: Subjects that were segmented now.
        skipped: Subjects that had been finished before.
        failed: Subject -> why.
        model: Name of the model.
        trained_on: What the model was trained on.
        backend: What ran the network, with its precision; empty if nothing was run.
    """

    out: Path
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    model: str = ""
    trained_on: str = ""
    backend: str = ""


@dataclass(frozen=True)
class Options:
    """How `segment` works and what it writes.

    Args:
        probabilities: Write a 4D probability image a subject as well.
        overwrite: Make results anew that are there.
        resample: Bring other contrasts to the first one's grid by their headers.
        pictures: Draw a PNG a subject.
        memory_limit: Bytes the network may use; None for a share of what is free.
        window: Side of overlapping windows in voxels; None for one pass or the fewest tiles.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        mask: "none" for scans without a mask, whose background is a class.
        backend: What runs the network: "torch", "openvino", "onnxruntime", or "auto" for the fastest.
        precision: "float32", "bfloat16", or "auto" for the faster.
        cache: Folder that remembers which is fastest; None measures in every call.
        anatomy: Training run whose labeled scans are registered to each scan; None for the network alone.
        shard: The part of the subjects to do; other processes do the others.
        local_rank: Number of this process among those on this machine, from 0; each takes its own GPU.
        local_ranks: How many they are; each takes its part of the memory.
    """

    probabilities: bool = False
    overwrite: bool = False
    resample: bool = False
    pictures: bool = True
    memory_limit: int | None = None
    window: int | None = None
    device: str = "auto"
    mask: str | None = None
    backend: str = "torch"
    precision: str = "float32"
    cache: Path | None = None
    anatomy: Path | None = None
    shard: Shard = field(default_factory=Shard)
    local_rank: int = 0
    local_ranks: int = 1


def segment(
    data: Path | Sequence[Path],
    out: Path,
    model: Path | str | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
    loaded: Callable[[Model], None] | None = None,
) -> Segmentation:
    """Segment every scan of a folder, a datalist, or one set of files.

    A subject that fails is reported and the others are still done; a finished one is skipped. While the
    network runs on one, the next is read and the last is written. An interruption lets the subject that is
    being written finish.

    Args:
        data: What to segment.
        out: BIDS derivatives folder to write.
        model: None for the packaged bundle, a run folder, a bundle, or a file of weights.
        options: See `Options`.
        progress: Told about each subject when the network starts on it.
        loaded: Told about the model before the first subject.

    Raises:
        InputError: Nothing to segment was found.
        CheckpointError: The model cannot be loaded.
        OutputError: The folder cannot be written, holds the results of another model, or another process
            is writing the same subjects there.
        ConfigError: The device or the backend is not there.
    """
    options = options or Options()
    ready = load_model(model, _device(options))
    if loaded is not None:
        loaded(ready)
    files = [data] if isinstance(data, Path) else list(data)
    cohort = read_cohort(data, ready.contrasts, ready.table, options.mask)
    require_each_once(cohort)
    require_writable_folder(out, files)
    anatomy = _anatomy(ready, options, out)
    _require_results_folder(out, ready, anatomy, options)
    predictor = _predictor(ready, options)
    job = _Job(cohort, ready, predictor, options, out, anatomy)
    result = Segmentation(out, model=ready.name, trained_on=ready.trained_on)
    started = time.monotonic()
    with only_writer(out, options.shard):
        job.segment_all(result, progress)
        result.backend = " and ".join(", ".join(pair) for pair in sorted(job.ran))
        backend, precision = min(job.ran) if len(job.ran) == 1 else (options.backend, options.precision)
        if result.done or result.skipped or (result.failed and options.shard.count > 1):
            chosen = [
                ("model", None if model is None else relative(model, out.parent)),
                ("probabilities", options.probabilities),
                ("resample", options.resample),
                ("mask", options.mask),
                ("window", options.window),
                ("anatomy", None if options.anatomy is None else relative(options.anatomy, out.parent)),
                ("device", None if options.device == "auto" else options.device),
                ("backend", backend),
                ("precision", precision),
            ]
            command = command_line("segment", files, out, chosen)
            job.write_summaries(result, command, time.monotonic() - started)
    return result


def output_file(out: Path, subject: Subject, table: LabelTable, ending: str, folder: str = "anat") -> Path:
    """Return the path of one of a subject's results, named as BIDS derivatives are."""
    place = out / f"sub-{subject.subject}"
    if subject.session:
        place /= f"ses-{subject.session}"
    return place / folder / f"{subject.key}_seg-{table.name}_{ending}"


@dataclass(frozen=True, eq=False)
class _Scan:
    """A subject that has been read: in the network's space, as it is, and whether the network learned from it."""

    prepared: Prepared
    grid: Grid
    volumes: tuple[Volume, ...]
    seen: bool
    seconds: float


@dataclass(frozen=True, eq=False)
class _Answer:
    """What the network says of a scan, what ran it, and the labeled scans that had a say."""

    scan: _Scan
    prediction: Prediction
    backend: dict[str, str]
    anatomy: dict[str, object] | None
    seconds: float


@dataclass(frozen=True)
class _Job:
    """Everything that stays the same from subject to subject, and what ran the network so far."""

    cohort: Cohort
    model: Model
    predictor: Predictor
    options: Options
    out: Path
    anatomy: AnatomicalFactor | None = None
    ran: set[tuple[str, str]] = field(default_factory=set)

    def path(self, subject: Subject, ending: str, folder: str = "anat") -> Path:
        return output_file(self.out, subject, self.model.table, ending, folder)

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """The subjects of this shard."""
        return self.options.shard.of(self.cohort.all())

    def segment_all(self, result: Segmentation, progress: Progress | None) -> None:
        """Segment the subjects that are not finished; note what became of each."""
        waiting = [one for one in self.subjects if self.options.overwrite or not self.is_finished(one)]
        names = {one.key for one in waiting}
        result.skipped += [one.key for one in self.subjects if one.key not in names]
        tell = partial(self.tell, result, progress)
        with closing(overlapped(waiting, self.read, partial(self.run, tell), self.write)) as finished:
            for subject, error in finished:
                self.note(subject, error, result)
        tell("")

    def tell(self, result: Segmentation, progress: Progress | None, what: str) -> None:
        if progress is not None:
            ready = len(result.done) + len(result.skipped) + len(result.failed)
            progress(what, ready, len(self.subjects))

    def note(self, subject: Subject, error: Exception | None, result: Segmentation) -> None:
        """Note a subject as done, or as failed and why."""
        if error is None:
            result.done.append(subject.key)
            return
        expected = isinstance(error, MedsslError)
        logger.log(logging.DEBUG if expected else logging.WARNING, "%s failed", subject.key, exc_info=error)
        reason = f"{subject.key}: unexpected {type(error).__name__}: {error}"
        if expected:
            reason = without_folders(str(error), self.cohort.root)
        elif isinstance(error, MemoryError):
            reason = f"{subject.key}: out of memory. Give a smaller --memory-limit."
        result.failed[subject.key] = reason

    def is_finished(self, subject: Subject) -> bool:
        """Tell whether this model has written everything that is asked for."""
        wanted = ["dseg.nii.gz", "dseg.json"] + ["probseg.nii.gz"] * self.options.probabilities
        if not all(self.path(subject, ending).is_file() for ending in wanted):
            return False
        told = read_json(self.path(subject, "dseg.json"))
        same_model = told["Model"]["WeightsSHA256"] == self.model.weights_sha256
        same_way = self.has_same_anatomy(told.get("Anatomy")) and told.get("Window") == self.options.window
        return bool(same_model and same_way) and not self.has_memory_for(told.get("MovedWindows"))

    def has_memory_for(self, moved: Mapping[str, float] | None) -> bool:
        """Tell whether a map for whose windows memory was short would turn out otherwise now."""
        return moved is not None and self.predictor.memory_now() >= SPARE * moved["EnoughMemory_MiB"] * 2**20

    def has_same_anatomy(self, told: Mapping[str, object] | None) -> bool:
        """Tell whether a map was made with the registered labeled scans that are asked for, or with none as well."""
        if self.anatomy is None or told is None:
            return self.anatomy is None and told is None
        return self.anatomy.has_told(told)

    def read(self, subject: Subject) -> _Scan:
        """Read and check a subject's files, once, and bring the scan to the network's space."""
        started = time.monotonic()
        resample = self.options.resample
        volumes = require_usable(replace(subject, label=None), self.cohort, "unlabeled", resample)
        prepared = prepare(subject, self.model, resample, volumes)
        shown = volumes if self.options.pictures else ()
        seen = self.model.labeled.holds(subject, volumes[0])
        return _Scan(prepared, volumes[0].grid, shown, seen, time.monotonic() - started)

    def run(self, tell: Callable[[str], None], subject: Subject, scan: _Scan) -> _Answer:
        """Run the network."""
        tell(subject.key)
        started = time.monotonic()

        def registered(done: int, pairs: int) -> None:
            tell(f"{subject.key}, labeled scan {done} of {pairs} laid over it")

        noted = None if self.anatomy is None else self.anatomy.noting()
        prediction = predict(scan.prepared, self.predictor, noted, registered)
        self.ran.add(prediction.ran)
        backend = dict(zip(("Name", "Precision"), prediction.ran, strict=True))
        told = None if noted is None else noted.told
        return _Answer(scan, prediction, backend, told, scan.seconds + time.monotonic() - started)

    def write(self, subject: Subject, answer: _Answer) -> None:
        """Write all results of a subject; the JSON comes last and says that they are complete."""
        started = time.monotonic()
        finished, reference = self.path(subject, "dseg.json"), subject.images[0]
        finished.unlink(missing_ok=True)
        table = self.model.table
        labels, probabilities = bring_back(
            answer.scan.prepared, answer.prediction, table, self.options.probabilities
        )
        write_labels(self.path(subject, "dseg.nii.gz"), labels, reference)
        write_tsv(self.path(subject, "dseg.tsv"), table.rows(), TABLE_COLUMNS)
        if probabilities is not None:
            write_probabilities(self.path(subject, "probseg.nii.gz"), probabilities, reference)
            names = [label.abbreviation for label in table]
            write_json(self.path(subject, "probseg.json"), {"LabelMap": names})
        if self.options.pictures:
            self.write_picture(subject, answer.scan.volumes, labels)
        seconds = answer.seconds + time.monotonic() - started
        write_json(finished, self.sidecar(subject, answer, labels, seconds))

    def write_picture(self, subject: Subject, volumes: Sequence[Volume], labels: NDArray[np.uint8]) -> None:
        from medssl.reporting.figures import figure_to_png, plot_subject  # noqa: PLC0415 (matplotlib)

        first = volumes[0].grid
        images = {
            name: volume.data
            for name, volume in zip(self.model.contrasts, volumes, strict=True)
            if first.difference(volume.grid) is None
        }
        figure = plot_subject(images, labels, None, first, self.model.table, title=subject.key)
        with atomic_path(self.path(subject, "dseg.png", folder="figures")) as path:
            path.write_bytes(figure_to_png(figure))

    def sidecar(
        self, subject: Subject, answer: _Answer, labels: NDArray[np.uint8], seconds: float
    ) -> Mapping[str, object]:
        model, enough = self.model, answer.prediction.enough_memory
        return {
            "Type": "Dseg",
            "Manual": False,
            "Sources": [relative(path, self.cohort.root) for path in subject.images],
            "GeneratedBy": {"Name": "medssl", "Version": medssl.__version__},
            "Model": {
                "Name": model.name,
                "WeightsSHA256": model.weights_sha256,
                "TrainedOn": model.trained_on,
                "Transductive": model.transductive,
                **({"SeenWithLabel": answer.scan.seen} if model.labeled.keys else {}),
            },
            "Backend": answer.backend,
            **({"Anatomy": answer.anatomy} if answer.anatomy is not None else {}),
            **({"Window": self.options.window} if self.options.window is not None else {}),
            **({"MovedWindows": {"EnoughMemory_MiB": ceil(enough / 2**20)}} if enough else {}),
            "SpacingOfNetwork_mm": list(model.spacing),
            "Volumes_ml": volumes_ml(labels, answer.scan.grid, model.table),
            "Seconds": round(seconds, 2),
        }

    def write_summaries(self, result: Segmentation, command: str, seconds: float) -> None:
        """Write what covers all subjects, of all shards: volumes.tsv, dataset_description.json, run.json."""
        with only_writer_of_tables(self.out):
            self.write_tables(result, command, seconds)

    def write_tables(self, result: Segmentation, command: str, seconds: float) -> None:
        names = [label.abbreviation for label in self.model.table.foreground]
        ending = f"_seg-{self.model.table.name}_dseg.json"
        stamp = TRANSDUCTIVE if self.model.transductive else {}
        rows = []
        for path in sorted(self.out.rglob(f"sub-*{ending}")):
            volumes = read_json(path)["Volumes_ml"]
            subject = path.name.removesuffix(ending)
            rows.append({"subject": subject, **{f"{name}_ml": volumes[name] for name in names}, **stamp})
        finished = [str(row["subject"]) for row in rows]
        write_tsv(self.out / "volumes.tsv", rows, ["subject", *[f"{name}_ml" for name in names], *stamp])
        description = {
            "Name": f"medssl segmentation ({self.model.table.name})",
            "BIDSVersion": "1.9.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "medssl", "Version": medssl.__version__}],
        }
        write_json(self.out / "dataset_description.json", description)
        record = {
            "command": command,
            "versions": versions(),
            "model": self.model.name,
            "trained_on": self.model.trained_on,
            "weights_sha256": self.model.weights_sha256,
            "anatomy_sha256": None if self.anatomy is None else self.anatomy.digest,
            "window": self.options.window,
            "deep_window": _deep_window(self.model),
            "subjects": finished,
            "failed": self.failed_in_other_shards(finished) | result.failed,
            "seconds": round(seconds, 1),
        }
        write_json(self.out / "run.json", record)

    def failed_in_other_shards(self, finished: Sequence[str]) -> dict[str, str]:
        """Return the subjects that other shards could not finish, as the last one of them wrote it down."""
        record = self.out / "run.json"
        if self.options.shard.count == 1 or not record.is_file():
            return {}
        return {key: why for key, why in read_json(record)["failed"].items() if key not in finished}


def volumes_ml(labels: NDArray[np.uint8], grid: Grid, table: LabelTable) -> dict[str, float]:
    """Return the volume in ml of each foreground label."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return {row.abbreviation: round(float(counts[row.value]) * grid.voxel_ml, 4) for row in table.foreground}


def without_folders(text: str, root: Path) -> str:
    """Take the folders of this machine out of a message that goes into a file."""
    for folder in (root, root.resolve(), Path.cwd(), Path.home()):
        if len(folder.parts) > 1:
            text = text.replace(f"{folder}{os.sep}", "")
    return text


def _device(options: Options) -> str:
    """Return where the network runs: on the CPU for a backend that knows no other place."""
    if options.device == "auto" and options.backend not in ("auto", "torch"):
        return "cpu"
    return choose_device(options.device, options.local_rank)


def _anatomy(model: Model, options: Options, out: Path) -> AnatomicalFactor | None:
    """Return the labeled scans that serve as atlases, if any are asked for."""
    if options.anatomy is None:
        return None
    from medssl.workflows.anatomical_factor import AnatomicalFactor  # noqa: PLC0415 (SimpleITK)

    return AnatomicalFactor(
        options.anatomy,
        contrasts=model.contrasts,
        table=model.table,
        spacing=model.spacing,
        folder=out,
        processes=None if options.local_ranks == 1 else torch.get_num_threads(),
    )


def _predictor(model: Model, options: Options) -> Predictor:
    """Return what turns scans into probabilities.

    Raises:
        ConfigError: The backend is unknown, not installed, or does not run on the device.
    """
    store = None if options.cache is None else TrialStore(options.cache, model.weights_sha256)
    limit = options.memory_limit
    if limit is None and options.local_ranks > 1 and torch.device(model.device).type == "cpu":
        limit = int(MEMORY_SHARE * available_memory() / options.local_ranks)
    return Predictor(
        network=model.network,
        memory_limit=limit,
        device=model.device,
        backend=options.backend,
        precision=options.precision,
        store=store,
        window=options.window,
    )


def require_each_once(cohort: Cohort) -> None:
    """Refuse subjects that would write to the same files.

    Raises:
        DatalistError: Two entries have the same subject and session.
    """
    counts = Counter(subject.key for subject in cohort.all())
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        msg = f"{twice[0]} occurs {counts[twice[0]]} times in {cohort.root}; expected each subject and session once."
        raise DatalistError(msg, "Name the scans to use in a datalist.json.")


def _require_results_folder(
    out: Path, model: Model, anatomy: AnatomicalFactor | None, options: Options
) -> None:
    """Refuse a folder that is a training run, or holds the results of another model or another way to run it.

    Raises:
        OutputError: It is.
    """
    if (out / "configs" / "train.yaml").is_file():
        msg = f"{out} is the folder of a training run."
        raise OutputError(msg, "Choose another --out.")
    record = out / "run.json"
    if options.overwrite or not record.is_file():
        return
    told = read_json(record)
    if told.get("anatomy_sha256") != (None if anatomy is None else anatomy.digest):
        msg = f"{out} holds results that were made with another choice of --anatomy."
        raise OutputError(msg, "Choose another --out, or make them anew with --overwrite.")
    if told.get("window") != options.window:
        msg = f"{out} holds results that were made with another choice of --window."
        raise OutputError(msg, "Choose another --out, or make them anew with --overwrite.")
    found = told.get("weights_sha256")
    if found != model.weights_sha256:
        msg = f"{out} holds results of another model (weights {str(found)[:12]}, now {model.weights_sha256[:12]})."
        raise OutputError(msg, "Choose another --out, or make them anew with --overwrite.")
    before, now = told.get("deep_window"), _deep_window(model)
    if before != now:
        msg = f"{out} holds results of the same weights with deep_window {before}, now {now}."
        raise OutputError(msg, "Choose another --out, or make them anew with --overwrite.")


def _deep_window(model: Model) -> list[int] | None:
    """Return the sides of the windows in which the network runs its deepest scale, as JSON holds them."""
    sides = getattr(model.network, "deep_window", None)
    return None if sides is None else list(sides)
