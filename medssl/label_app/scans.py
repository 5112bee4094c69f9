"""The scans and labels of a server: everything is read from the folders, so nothing is lost with a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from medssl.errors import InputError
from medssl.io.cohort import read_cohort
from medssl.io.corrections import FINAL, correction_file, save_correction
from medssl.io.datalist import write_datalist
from medssl.io.files import read_json, write_json
from medssl.io.inspection import require_usable
from medssl.io.nifti import read_labels, read_volume, save_new, write_labels
from medssl.io.nrrd import is_nrrd, nrrd_to_nifti
from medssl.io.subjects import Cohort, Subject, is_nifti, name_parts, plain_label, stem
from medssl.label_app.checks import NotThere, RequestError
from medssl.labels import LabelTable
from medssl.workflows.labeling.split import with_validation
from medssl.workflows.labeling.workspace import TAGS, Workspace
from medssl.workflows.segment import require_each_once

SECTIONS_SHOWN = ("training", "validation", "unlabeled")
"""Test scans are not for labeling: nothing but the final evaluation may see them."""


class Scans:
    """What a server labels.

    Args:
        studies: Folder or datalist of the scans; nothing is written there.
        workspace: The folder beside it.
        contrasts: BIDS suffixes in channel order.
        table: What stored values mean.
        mask: "none" where scans have no brain mask.
    """

    def __init__(
        self,
        studies: Path,
        workspace: Workspace,
        *,
        contrasts: tuple[str, ...],
        table: LabelTable,
        mask: str | None = None,
    ) -> None:
        self.studies, self.workspace = studies, workspace
        self.contrasts, self.table, self.mask = contrasts, table, mask
        self._writing = threading.RLock()
        require_each_once(self.cohort())

    def cohort(self) -> Cohort:
        """Return the scans with all labels so far.

        Raises:
            MedsslError: The folder cannot be understood.
        """
        return read_cohort(self.studies, self.contrasts, self.table, self.mask, self.workspace.folder)

    def subjects(self) -> dict[str, Subject]:
        """Return the scans that are shown, by id."""
        cohort = self.cohort()
        return {subject.key: subject for name in SECTIONS_SHOWN for subject in cohort.section(name)}

    def subject(self, key: str) -> Subject:
        """Return a scan.

        Raises:
            NotThere: There is none of that id.
        """
        found = self.subjects()
        if key not in found:
            msg = f"There is no scan '{key}' here."
            raise NotThere(
                msg, f"There are {', '.join(list(found)[:5])} and more." if found else "The folder is empty."
            )
        return found[key]

    def image(self, key: str) -> Path:
        """Return the first contrast of a scan as a file that a viewer reads."""
        return self.image_of(self.subject(key))

    def image_of(self, subject: Subject) -> Path:
        """Return the same of a scan that has been found already."""
        path = subject.images[0]
        if is_nifti(path):
            return path.resolve()
        copy = self.workspace.converted / f"{stem(path)}.nii.gz"
        if not copy.is_file():
            volume = read_volume(path, subject.key)
            save_new(copy, volume.data, volume.grid.affine)
        return copy.resolve()

    def label(self, key: str, tag: str = FINAL) -> Path | None:
        """Return a scan's label as a file that a viewer reads, or None."""
        if tag != FINAL:
            drawn = correction_file(self.workspace.folder, key, self.table, tag)
            return drawn.resolve() if drawn.is_file() else None
        subject = self.subjects().get(key)
        if subject is None or subject.label is None:
            return None
        if is_nifti(subject.label) and subject.encoding == "table":
            return subject.label.resolve()
        copy = self.workspace.converted / f"{key}_dseg.nii.gz"
        if not copy.is_file():
            values = read_labels(subject.label, key, self.table, subject.encoding).data
            write_labels(copy, values, subject.images[0])
        return copy.resolve()

    def segments(self, key: str, tag: str) -> list[Any]:
        """Return the segments that a viewer named when it saved a label."""
        path = correction_file(self.workspace.folder, key, self.table, tag)
        told = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
        return list(read_json(told)["Segments"]) if told.is_file() else []

    def save_label(self, key: str, drawn: Path, tag: str, segments: Iterable[Mapping[str, Any]]) -> None:
        """Keep a label that a viewer sent: checked, on the scan's own grid, written whole or not at all.

        Raises:
            NotThere: There is no such scan.
            MedsslError: As in `save_correction`.
        """
        subject = self.subject(key)
        path = correction_file(self.workspace.folder, key, self.table, tag)
        with TemporaryDirectory() as folder, self._writing:
            save_correction(path, _as_nifti(drawn, Path(folder)), subject, self.table, segments)
            self.write_lists()

    def remove_label(self, key: str, tag: str) -> None:
        """Take back a label that was saved here; it is kept under another name.

        Raises:
            NotThere: No such label was saved here.
        """
        path = correction_file(self.workspace.folder, key, self.table, tag)
        if not path.is_file():
            msg = f"There is no label '{tag}' of '{key}' that was saved here."
            raise NotThere(msg)
        with self._writing:
            removed = self.workspace.folder / "removed"
            removed.mkdir(exist_ok=True)
            path.replace(removed / f"{time.strftime('%Y%m%d-%H%M%S')}_{path.name}")
            self.write_lists()

    def add_image(self, key: str, sent: Path) -> str:
        """Keep a scan that a viewer sent.

        Args:
            key: ``<id>_<contrast>``; with a single contrast the id alone will do.
            sent: NIfTI or NRRD file.

        Returns:
            The id of the scan.

        Raises:
            RequestError: The contrast is none of the model's, or the scan is there already.
            InputError: It is no 3D volume.
        """
        name, _, contrast = key.rpartition("_")
        if contrast not in self.contrasts and len(self.contrasts) == 1:
            name, contrast = key, self.contrasts[0]
        if contrast not in self.contrasts or not name:
            wanted = " and ".join(f"{key}_{one}" for one in self.contrasts)
            msg = f"'{key}' does not say which contrast it is; this model needs {', '.join(self.contrasts)}."
            raise RequestError(msg, f"Upload one file a contrast, as {wanted}.")
        path = self.workspace.uploads / f"{name}_{contrast}.nii.gz"
        scan = _key(name)
        with TemporaryDirectory() as folder, self._writing:
            volume = read_volume(_as_nifti(sent, Path(folder)), name)
            if path.exists() or scan in self.subjects():
                msg = f"There is a scan '{name}' with {contrast} already; nothing is overwritten."
                raise RequestError(msg, "Choose another id.")
            save_new(path, volume.data, volume.grid.affine)
            self.write_lists()
        return scan

    def write_lists(self) -> None:
        """Write the datalists that the command line and the next training read."""
        cohort = self.cohort()
        write_datalist(self.workspace.cohort_list, cohort)
        write_datalist(self.workspace.training_list, self._training_cohort(cohort))

    def training_cohort(self) -> Cohort:
        """Return what a training sees; who validates is decided once, by name."""
        with self._writing:
            return self._training_cohort(self.cohort())

    def _training_cohort(self, cohort: Cohort) -> Cohort:
        chosen = read_json(self.workspace.validation) if self.workspace.validation.is_file() else []
        split, names = with_validation(cohort, chosen)
        if set(names) - set(chosen):
            write_json(self.workspace.validation, sorted({*names, *chosen}))
        return split

    def scan_at(self, path: Path) -> Subject:
        """Return the scan that a file or folder holds which was sent for one answer.

        Raises:
            InputError: It is no 3D volume, or a contrast is missing.
        """
        sent = sorted(path.iterdir()) if path.is_dir() else [path]
        volumes = sorted({_as_nifti(one, one.parent) for one in sent})
        for one in volumes:
            read_volume(one, one.name)
        if len(volumes) != len(self.contrasts):
            msg = (
                f"{len(volumes)} volume was sent"
                if len(volumes) == 1
                else f"{len(volumes)} volumes were sent"
            )
            msg += f"; this model needs {len(self.contrasts)}: {', '.join(self.contrasts)}."
            raise RequestError(
                msg, "Put the scans into the folder of the server; 3D Slicer sends one volume alone."
            )
        return read_cohort(volumes, self.contrasts, self.table, self.mask).unlabeled[0]

    def require_usable(self, subject: Subject) -> None:
        """Refuse a scan with a missing, broken or misplaced contrast.

        Raises:
            MedsslError: The first problem.
        """
        require_usable(replace(subject, label=None), self.cohort(), "unlabeled")

    def as_json(self) -> dict[str, Any]:
        """Return all scans with their labels, as MONAI Label's clients know it."""
        objects = {}
        for key, subject in self.subjects().items():
            labels = {tag: self._label_json(key, tag) for tag in TAGS if self._has_label(subject, tag)}
            objects[key] = {
                "image": {"ext": subject.images[0].name.removeprefix(stem(subject.images[0])), "info": {}},
                "labels": labels,
            }
        return {"name": self.studies.name, "description": "", "objects": objects}

    def _has_label(self, subject: Subject, tag: str) -> bool:
        if tag == FINAL:
            return subject.label is not None
        return correction_file(self.workspace.folder, subject.key, self.table, tag).is_file()

    def _label_json(self, key: str, tag: str) -> dict[str, Any]:
        return {"ext": ".nii.gz", "info": {"label_info": self.segments(key, tag)}}


def _key(name: str) -> str:
    """Return the id under which a file ``<name>_T1w.nii.gz`` is found again."""
    entities, _ = name_parts(f"{name}_")
    return Subject(
        plain_label(entities.get("sub", name)), (), session=plain_label(entities.get("ses", "")) or None
    ).key


def _as_nifti(path: Path, folder: Path) -> Path:
    """Return a file as NIfTI; an NRRD file is converted into a folder."""
    if not is_nrrd(path):
        if not is_nifti(path):
            msg = f"{path.name} is neither NIfTI nor NRRD."
            raise InputError(msg, "Save the volume as .nii.gz or .nrrd.")
        return path
    target = folder / f"{path.stem}.nii.gz"
    if not target.is_file():
        nrrd_to_nifti(path, target)
    return target
