"""Simulate a cohort: a BIDS folder with scans, true tissue maps and a datalist."""

from __future__ import annotations

import logging
import multiprocessing
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl import __version__
from medssl.cores import cores
from medssl.errors import ConfigError, OutputError
from medssl.io.files import require_writable_folder, write_json, write_tsv
from medssl.io.nifti import save_new
from medssl.labels import BRAIN_TISSUES
from medssl.simulation.acquisition import known_site
from medssl.simulation.cohort import checked_spacing, simulate_subject
from medssl.simulation.contrast import CONTRASTS

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called after each subject with its name, the number done and the number in all."""

_DERIVATIVES = "derivatives/simulation"
_BIDS_VERSION = "1.10.0"
_COLUMNS = {
    "participant_id": "Name of the simulated subject.",
    "age_months": "Age at the scan in months.",
    "site": "Simulated scanner and protocol.",
    "head_x_mm": "Extent of the brain from left to right in mm.",
    "head_y_mm": "Extent of the brain from back to front in mm.",
    "head_z_mm": "Extent of the brain from bottom to top in mm.",
    "brain_ml": "Volume of the brain mask in ml (cerebellum and brain stem are removed).",
    "gm_ml": "True volume of gray matter in ml.",
    "wm_ml": "True volume of white matter in ml.",
    "csf_ml": "True volume of cerebrospinal fluid in ml.",
    "ventricle_odds": "How large the ventricles were drawn: logarithm of odds, 0 as in the template.",
    "sulcus_depth_mm": "How deep the subject's own sulci reach, in mm of the adult template.",
}


@dataclass(frozen=True)
class ScanSettings:
    """How all subjects of a cohort are scanned; the arguments of `simulate_subject`."""

    seed: int
    spacing: tuple[float, float, float]
    site: str
    age_months: float
    motion: float


def simulate_cohort(  # noqa: PLR0913 - the options of the command, one for one
    out: Path | str,
    subjects: int,
    labeled: int,
    unlabeled: int,
    seed: int,
    *,
    validation: int = 0,
    spacing: float | Sequence[float] | None = 1.0,
    site: str = "A",
    age_months: float = 6.0,
    motion: float = 0.0,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Simulate subjects into a new folder; the same seed gives the same files for any number of processes.

    Every subject gets its true label; ``datalist.json`` decides which of them training may see. The folder
    appears under its name only when it is complete.

    Args:
        out: Folder to make; it must not exist or be empty.
        subjects: How many subjects.
        labeled: How many of them are for training with their label.
        unlabeled: How many are for training without.
        seed: Decides everything that is drawn.
        validation: How many labeled subjects are held out to watch training; the rest is for testing.
        spacing: Voxel size in mm, one number or three; None takes the site's own.
        site: "A" or "B".
        age_months: Age at the scan.
        motion: Largest head motion in mm.
        processes: Worker processes; None takes one for each CPU.
        progress: Told about each finished subject.

    Returns:
        The folder.

    Raises:
        ConfigError: A number is out of range, or the site is unknown.
        OutputError: The folder exists and holds something, or cannot be written to.
    """
    folder = Path(out)
    counts = {"training": labeled, "validation": validation, "unlabeled": unlabeled}
    _check_counts(subjects, counts)
    size = checked_spacing(spacing, known_site(site))
    settings = ScanSettings(seed, size, site, age_months, motion)
    _require_new(folder)
    partial = folder.resolve().with_name(f".partial-{secrets.token_hex(4)}-{folder.name}")
    try:
        partial.mkdir(parents=True)
        rows = _simulate_all(partial, settings, subjects, processes or cores(), progress)
        _describe(partial, rows)
        write_json(partial / "datalist.json", _datalist(subjects, counts, seed))
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    logger.debug("Simulated %d subjects at %s mm into %s", subjects, size, folder)
    return folder


def split(subjects: int, counts: dict[str, int], seed: int) -> dict[str, list[int]]:
    """Deal the subject numbers 1..N by a seeded permutation; who is left over is for testing.

    Args:
        subjects: How many.
        counts: Section -> how many, in dealing order.
        seed: Seed of the cohort.

    Returns:
        Section ("test" too) -> sorted subject numbers.
    """
    order = iter(np.random.default_rng(np.random.SeedSequence((seed, 0))).permutation(subjects) + 1)
    sections = {name: sorted(int(next(order)) for _ in range(count)) for name, count in counts.items()}
    return {**sections, "test": sorted(int(number) for number in order)}


def _check_counts(subjects: int, counts: dict[str, int]) -> None:
    for name, count in {"subjects": subjects - 1, **counts}.items():
        if count < 0:
            msg = f"The number of {name} is too small; expected at least {int(name == 'subjects')}."
            raise ConfigError(msg)
    wanted = sum(counts.values())
    if wanted > subjects:
        parts = " + ".join(f"{count} {name}" for name, count in counts.items())
        msg = f"{parts} make {wanted} subjects, but only {subjects} are simulated. Simulate {wanted} or more."
        raise ConfigError(msg)


def _require_new(folder: Path) -> None:
    require_writable_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        msg = f"The folder {folder} is not empty. Give another one, or remove it first."
        raise OutputError(msg)


def _simulate_all(
    root: Path, settings: ScanSettings, subjects: int, processes: int, progress: Progress | None
) -> list[dict[str, object]]:
    """Write all subjects and return their rows of ``participants.tsv``."""
    rows = []
    for done, row in enumerate(_finished(root, settings, subjects, processes), start=1):
        rows.append(row)
        if progress is not None:
            progress(str(row["participant_id"]), done, subjects)
    return sorted(rows, key=lambda row: str(row["participant_id"]))


def _finished(
    root: Path, settings: ScanSettings, subjects: int, processes: int
) -> Iterator[dict[str, object]]:
    """Yield the row of each subject as it is written, in any order."""
    names = {number: _name(number, subjects) for number in range(1, subjects + 1)}
    workers = min(processes, subjects)
    if workers <= 1:
        for number, name in names.items():
            yield _write_subject(root, settings, number, name)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_write_subject, root, settings, number, name) for number, name in names.items()]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write_subject(root: Path, settings: ScanSettings, number: int, name: str) -> dict[str, object]:
    """Simulate one subject and write its three images."""
    subject = simulate_subject(
        settings.seed, number, settings.spacing, settings.site, settings.age_months, settings.motion
    )
    for contrast, image in subject.images.items():
        save_new(root / _image_path(name, contrast), image.astype(np.int16), subject.affine)
    save_new(root / _label_path(name), subject.label, subject.affine)
    return {"participant_id": name, **subject.facts}


def _describe(root: Path, rows: list[dict[str, object]]) -> None:
    """Write what BIDS wants beside the images."""
    generated = {"GeneratedBy": [{"Name": "medssl simulate", "Version": __version__}], "License": "CC0"}
    for place, kind, name in (
        (root, "raw", "Simulated infant brains"),
        (root / _DERIVATIVES, "derivative", "Truth"),
    ):
        description = {"Name": name, "BIDSVersion": _BIDS_VERSION, "DatasetType": kind}
        write_json(place / "dataset_description.json", description | generated)
    write_tsv(root / "participants.tsv", rows, list(_COLUMNS))
    write_json(root / "participants.json", {name: {"Description": text} for name, text in _COLUMNS.items()})
    write_tsv(
        root / _DERIVATIVES / "dseg.tsv", BRAIN_TISSUES.rows(), ["index", "name", "abbreviation", "color"]
    )


def _datalist(subjects: int, counts: dict[str, int], seed: int) -> dict[str, object]:
    datalist: dict[str, object] = {
        "contrasts": list(CONTRASTS),
        "label_table": BRAIN_TISSUES.name,
        "labels": BRAIN_TISSUES.rows(),
    }
    for section, numbers in split(subjects, counts, seed).items():
        datalist[section] = [_entry(_name(number, subjects), section != "unlabeled") for number in numbers]
    return datalist


def _entry(name: str, with_label: bool) -> dict[str, object]:
    entry: dict[str, object] = {
        "subject": name.removeprefix("sub-"),
        "image": [_image_path(name, contrast) for contrast in CONTRASTS],
    }
    return entry | ({"label": _label_path(name)} if with_label else {})


def _name(number: int, subjects: int) -> str:
    return f"sub-{number:0{max(2, len(str(subjects)))}d}"


def _image_path(name: str, contrast: str) -> str:
    return f"{name}/anat/{name}_{contrast}.nii.gz"


def _label_path(name: str) -> str:
    return f"{_DERIVATIVES}/{name}/anat/{name}_seg-{BRAIN_TISSUES.name}_dseg.nii.gz"
