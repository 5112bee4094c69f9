"""Segmentation for a viewer: the same steps, the same predictor and so the same labels as `medssl segment`."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferType

from medssl.io.nifti import read_grid, write_labels
from medssl.io.nrrd import is_nrrd, write_labels_nrrd
from medssl.io.subjects import Subject
from medssl.label_app import checks
from medssl.label_app.infer_task import BundleInferTask
from medssl.label_app.models import ModelStore
from medssl.label_app.scans import Scans
from medssl.labels import LabelTable
from medssl.workflows.prediction import bring_back, predict, prepare


class PairInferTask(BundleInferTask):
    """Segment all contrasts of a scan and answer on the grid of the first.

    Args:
        models: The weights to choose from.
        scans: What may be segmented.
    """

    def __init__(self, models: ModelStore, scans: Scans) -> None:
        super().__init__(str(models.bundle()), {}, type=InferType.SEGMENTATION)
        self.models, self.scans = models, scans
        self.labels = viewer_labels(scans.table)

    def config(self) -> dict[str, Any]:
        """Return what a viewer may choose; models that were trained meanwhile are among it."""
        return {"model_filename": [checks.NEWEST, *self.models.names()]}

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> tuple[str, dict[str, Any]]:
        """Segment.

        Args:
            request: ``image`` is a `Subject`, or the path of a scan of the server; the rest as in
                `checks.infer_request`.
            callbacks: Not used; of MONAI Label's interface.

        Returns:
            A file to send and then to delete, with what a viewer wants to know about it.

        Raises:
            MedsslError: The request, the scan or the model cannot be used.
        """
        wanted = checks.infer_request(request, self.models.names())
        image = request["image"]
        subject = image if isinstance(image, Subject) else self._subject_at(image)
        self.scans.require_usable(subject)
        clock = _Clock()
        with self.models.used(wanted.model) as (name, model, predictor):
            clock.lap("wait")
            prepared = prepare(subject, model)
            clock.lap("read")
            prediction = predict(prepared, predictor)
            clock.lap("infer")
            labels = bring_back(prepared, prediction, model.table)[0]
            clock.lap("restore")
        path = Path(mkdtemp()) / f"{subject.key}_seg{wanted.extension}"
        if is_nrrd(path):
            write_labels_nrrd(path, labels, read_grid(subject.images[0], subject.key))
        else:
            write_labels(path, labels, subject.images[0])
        clock.lap("write")
        return str(path), {
            "label_names": self.labels,
            "latencies": clock.seconds,
            "centroids": {},
            "model": name,
            "backend": ", ".join(prediction.ran),
        }

    def _subject_at(self, path: object) -> Subject:
        """Return the scan whose first contrast a path is."""
        for subject in self.scans.subjects().values():
            if Path(str(path)).resolve() in (subject.images[0].resolve(), self.scans.image_of(subject)):
                return subject
        msg = f"{Path(str(path)).name} is no scan of this server."
        raise checks.RequestError(msg, "Give the id of a scan.")


class _Clock:
    """Seconds of each step, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, what: str) -> None:
        now = time.monotonic()
        self.seconds[what], self._last = round(now - self._last, 3), now


def viewer_labels(table: LabelTable) -> dict[str, int]:
    """Return name -> value of the labels, named as a viewer shows them: "gm", "wm", "csf"."""
    return {label.abbreviation.lower(): label.value for label in table.foreground}
