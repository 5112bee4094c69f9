"""Training for a viewer: `medssl train` on the labels so far, in a process of its own, into a new run folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.engines import TrainingInterrupted
from medssl.errors import MedsslError
from medssl.io.files import read_json, sha256
from medssl.io.subjects import Cohort
from medssl.label_app import checks
from medssl.label_app.datastore import CohortDatastore
from medssl.label_app.models import next_name
from medssl.label_app.progress import FILE, ProgressFile, progress_of
from medssl.workflows.budgets import budget_named
from medssl.workflows.ending import ended_cleanly
from medssl.workflows.labeling.continued import network_options
from medssl.workflows.models import quiet_libraries
from medssl.workflows.train import TrainOptions, train

if TYPE_CHECKING:
    from medssl.label_app.training import MethodTrainTask

logger = logging.getLogger(__name__)

FINE_TUNING_RATE = 0.0003
"""Learning rate where training goes on from a model: at that of new weights (0.001) it would first forget."""


def train_method(
    task: MethodTrainTask, request: dict[str, Any], datastore: CohortDatastore
) -> dict[str, Any]:
    """Train by one method on all labeled and unlabeled scans, or go on with the training that was stopped.

    Args:
        task: Knows the method, the models to start from, and what the server was told.
        request: What a viewer asked for.
        datastore: The scans and labels so far.

    Raises:
        SystemExit: With 1 and a line in the log where it cannot be done, with 0 where it was stopped.
    """
    quiet_libraries()
    try:
        with ended_cleanly():
            return _train(task, task.check(request), datastore)
    except KeyboardInterrupt:
        logger.info("Stopped before its first step; the next training of this method begins anew.")
        raise SystemExit(0) from None
    except TrainingInterrupted as error:
        logger.info("%s The next training of this method goes on from there.", error)
        raise SystemExit(0) from error
    except MedsslError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        raise SystemExit(1) from error


def _train(task: MethodTrainTask, wanted: checks.TrainRequest, datastore: CohortDatastore) -> dict[str, Any]:
    cohort = datastore.training_cohort()
    datastore.scans.write_lists()
    facts = _facts(wanted, cohort)
    folder = task.models.folder
    run = _stopped_run(folder, task.method, facts) if wanted.resume else None
    resume = run is not None
    if run is None:
        run = folder / next_name([one.name for one in folder.iterdir()], task.method)
    logger.info(
        "%s %s into %s: %d labeled, %d validating, %d unlabeled scans",
        *("Going on with" if resume else "Training", task.method, run.name),
        *(len(cohort.training), len(cohort.validation), len(cohort.unlabeled)),
    )
    options = _options(task, wanted)
    watcher = ProgressFile(run / FILE, _steps_per_epoch(options), facts)
    done = train(datastore.scans.workspace.training_list, run, options, watcher, resume)
    logger.info("%s is ready: %d steps, %.0f s", run.name, done.steps, done.seconds)
    return {"model": run.name, "steps": done.steps, "best_metric": done.best}


def _options(task: MethodTrainTask, wanted: checks.TrainRequest) -> TrainOptions:
    """Return the options of `medssl train` that a request means."""
    chosen: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if wanted.pretrained:
        chosen = network_options(task.models.place(wanted.model))
        settings = chosen.pop("settings") | {"learning_rate": FINE_TUNING_RATE}
    settings |= task.server.training
    if wanted.max_epochs:
        settings["epochs"] = wanted.max_epochs
    return TrainOptions(
        method=task.method,
        budget=wanted.budget,
        seed=wanted.seed,
        device=task.models.device if wanted.device == "auto" else wanted.device,
        contrasts=task.server.contrasts,
        mask=task.server.mask,
        settings=settings,
        **chosen,
    )


def _stopped_run(folder: Path, method: str, facts: Mapping[str, Any]) -> Path | None:
    """Return the last unfinished run of a method that was asked for in the same way, on the same scans."""
    for run in sorted(folder.glob(f"{method}-[0-9]*"), reverse=True):
        told = progress_of(run)
        unfinished = (run / "run.json").is_file() and not read_json(run / "run.json").get("finished")
        if unfinished and all(told.get(name) == value for name, value in facts.items()):
            return run
    return None


def _facts(wanted: checks.TrainRequest, cohort: Cohort) -> dict[str, Any]:
    """Return by what a stopped training is known again: what was asked for, on which scans, with which labels."""
    scans = {
        name: [one.key for one in cohort.section(name)] for name in ("training", "validation", "unlabeled")
    }
    labels = {
        one.key: sha256(one.label) for one in (*cohort.training, *cohort.validation) if one.label is not None
    }
    return {"asked": asdict(wanted) | {"resume": True}, "scans": scans, "labels": labels}


def _steps_per_epoch(options: TrainOptions) -> int:
    """Return how many steps viewers count as an epoch."""
    return int(options.settings.get("steps_per_epoch", budget_named(options.budget).steps_per_epoch))
