"""Training for a viewer: `medssl train` on the labels so far, in a process of its own, into a new run folder."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from monailabel.tasks.train.bundle import BundleTrainTask

from medssl.engines import TrainingInterrupted
from medssl.errors import MedsslError
from medssl.io.files import read_json
from medssl.io.subjects import Cohort
from medssl.label_app import checks
from medssl.label_app.datastore import CohortDatastore
from medssl.label_app.models import ModelStore, next_name
from medssl.label_app.progress import FILE, ProgressFile, progress_of
from medssl.workflows.budgets import BUDGETS, budget_named
from medssl.workflows.labeling.continued import network_options
from medssl.workflows.labeling.workspace import ServerSettings
from medssl.workflows.methods import METHODS
from medssl.workflows.models import packaged_bundle, quiet_libraries
from medssl.workflows.train import TrainOptions, train

logger = logging.getLogger(__name__)

FINE_TUNING_RATE = 0.0003
"""Learning rate where training goes on from a model: at that of new weights (0.001) it would first forget."""


class MethodTrainTask(BundleTrainTask):
    """Train by one method on all labeled and unlabeled scans; no weights are ever overwritten.

    MONAI Label calls it in a process of its own. The training is that of the command line, see decision 9.

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
            "model_filename": self.models.names(),
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
        quiet_libraries()
        try:
            return self._train(self.check(request), datastore)
        except TrainingInterrupted as error:
            logger.info("%s The next training of this method goes on from there.", error)
            raise SystemExit(0) from error
        except MedsslError as error:
            logger.error("%s", error)  # noqa: TRY400 - the message says it all
            raise SystemExit(1) from error

    def _train(self, wanted: checks.TrainRequest, datastore: CohortDatastore) -> dict[str, Any]:
        cohort = datastore.training_cohort()
        datastore.scans.write_lists()
        facts = _facts(wanted, cohort)
        run = self._stopped_run(facts) if wanted.resume else None
        resume = run is not None
        if run is None:
            run = self.models.folder / next_name(
                [one.name for one in self.models.folder.iterdir()], self.method
            )
        logger.info(
            "%s %s into %s: %d labeled, %d validating, %d unlabeled scans",
            *("Going on with" if resume else "Training", self.method, run.name),
            *(len(cohort.training), len(cohort.validation), len(cohort.unlabeled)),
        )
        options = self._options(wanted)
        watcher = ProgressFile(run / FILE, _steps_per_epoch(options), facts)
        done = train(datastore.scans.workspace.training_list, run, options, watcher, resume)
        logger.info("%s is ready: %d steps, %.0f s", run.name, done.steps, done.seconds)
        return {"model": run.name, "steps": done.steps, "best_metric": done.best}

    def _options(self, wanted: checks.TrainRequest) -> TrainOptions:
        """Return the options of `medssl train` that a request means."""
        chosen: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        if wanted.pretrained:
            chosen = network_options(self.models.place(wanted.model))
            settings = chosen.pop("settings") | {"learning_rate": FINE_TUNING_RATE}
        settings |= self.server.training
        if wanted.max_epochs:
            settings["epochs"] = wanted.max_epochs
        return TrainOptions(
            method=self.method,
            budget=wanted.budget,
            seed=wanted.seed,
            device=self.models.device if wanted.device == "auto" else wanted.device,
            contrasts=self.server.contrasts,
            mask=self.server.mask,
            settings=settings,
            **chosen,
        )

    def _stopped_run(self, facts: dict[str, Any]) -> Path | None:
        """Return the last unfinished run of this method that was asked for in the same way, on the same scans."""
        for run in sorted(self.models.folder.glob(f"{self.method}-[0-9]*"), reverse=True):
            told = progress_of(run)
            unfinished = (run / "run.json").is_file() and not read_json(run / "run.json").get("finished")
            if unfinished and all(told.get(name) == value for name, value in facts.items()):
                return run
        return None


def _facts(wanted: checks.TrainRequest, cohort: Cohort) -> dict[str, Any]:
    """Return by what a stopped training is known again: what was asked for, and on which scans."""
    scans = {
        name: [one.key for one in cohort.section(name)] for name in ("training", "validation", "unlabeled")
    }
    return {"asked": asdict(wanted) | {"resume": True}, "scans": scans}


def _steps_per_epoch(options: TrainOptions) -> int:
    """Return how many steps viewers count as an epoch."""
    return int(options.settings.get("steps_per_epoch", budget_named(options.budget).steps_per_epoch))
