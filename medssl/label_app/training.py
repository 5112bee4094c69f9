"""The trainers that a viewer sees: their choices, their progress, and how one is begun."""

from __future__ import annotations

from typing import Any

from monailabel.tasks.train.bundle import BundleTrainTask

from medssl.label_app import checks
from medssl.label_app.datastore import CohortDatastore
from medssl.label_app.models import ModelStore
from medssl.label_app.progress import FILE, progress_of
from medssl.workflows.budgets import BUDGETS
from medssl.workflows.labeling.workspace import ServerSettings
from medssl.workflows.methods import METHODS
from medssl.workflows.models import packaged_bundle


class MethodTrainTask(BundleTrainTask):
    """Train by one method on all labeled and unlabeled scans; no weights are ever overwritten.

    MONAI Label calls it in a process of its own, which alone loads what trains. The training is that of the command
    line, see decision 9.

    Args:
        method: A key of `methods.METHODS`.
        models: Where run folders go, and the weights to start from.
        server: What the server was told.
    """

    def __init__(self, method: str, models: ModelStore, server: ServerSettings) -> None:
        super().__init__(str(packaged_bundle()), {})
        self.method, self.models, self.server = method, models, server
        self.description = f"medssl train --method {method}: {METHODS[method].summary}"

    def config(self) -> dict[str, Any]:
        """Return what a viewer may choose; of a list it sends the first unless told otherwise."""
        return {
            "budget": list(BUDGETS),
            "max_epochs": 0,
            "pretrained": True,
            "model_filename": [checks.NEWEST, *self.models.names()],
            "resume": True,
            "seed": 0,
            "device": [self.models.device],
        }

    def stats(self, since: float = 0.0) -> dict[str, Any]:
        """Return the progress of this method's last training, as viewers show it.

        Args:
            since: Seconds of the epoch; what was written before is that of an earlier training.
        """
        files = {
            path: path.stat().st_mtime for path in self.models.folder.glob(f"{self.method}-[0-9]*/{FILE}")
        }
        last = max(files, key=lambda path: files[path], default=None)
        if last is None or files[last] < since:
            return {}
        return progress_of(last.parent) | {"model": last.parent.name}

    def check(self, request: dict[str, Any]) -> checks.TrainRequest:
        """Return what a request asks for.

        Raises:
            MedsslError: It asks for something else.
        """
        return checks.train_request(request, self.models.names(), [self.models.device])

    def __call__(self, request: dict[str, Any], datastore: CohortDatastore) -> dict[str, Any]:
        """Train.

        Raises:
            SystemExit: With 1 and a line in the log where it cannot be done, with 0 where it was stopped.
        """
        from medssl.label_app.method_training import train_method  # noqa: PLC0415 - the server starts without it

        return train_method(self, request, datastore)
