"""The training that runs beside the server: begun, watched and stopped so that it can go on."""

from __future__ import annotations

import logging
import subprocess
import time
from datetime import datetime
from threading import Lock
from typing import Any

from fastapi import HTTPException
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import processes, tasks
from psutil import Process

from medssl.label_app import checks

logger = logging.getLogger(__name__)

METHOD = "train"
_starting = Lock()
PATIENCE_S = 30.0
"""How long a training may take to save itself before it is ended."""

BEGINNING_S = 5.0
"""How long the process of a training may take to appear."""

NOTHING_YET = {"epoch": 0, "total_epochs": 1}
"""Progress of a training that has not come to its first step."""


def start(app: Any, method: str, params: dict[str, Any]) -> Any:
    """Begin a training in a process of its own.

    Raises:
        NotThere: There is no such trainer or model.
        RequestError: A value cannot be used.
        HTTPException: 429, a training runs already.
    """
    trainers = app.trainers
    if method not in trainers:
        msg = f"There is no trainer '{method}'; there are {', '.join(trainers)}."
        raise checks.NotThere(msg)
    checked = trainers[method].check(params).as_params()
    detail = ""
    with _starting:  # two viewers at once
        if not _under_way():
            begun, detail = AsyncTask.run(METHOD, request={"model": method}, params=checked)
            if begun is not None:
                return begun
    raise HTTPException(status_code=429, detail=detail or "++++++++++ Train Task is Already Running")


def status(app: Any, *, everything: bool, check_if_running: bool) -> Any:
    """Return the last training, or all, each with its progress.

    Raises:
        HTTPException: 404, there is none.
    """
    found, detail = AsyncTask.status(METHOD, everything, check_if_running)
    if found is None:
        raise HTTPException(status_code=404, detail=detail)
    several = found if isinstance(found, list) else [found]
    told = [_with_progress(app, task) for task in several]
    return told if isinstance(found, list) else told[0]


def train_stats(app: Any) -> dict[str, Any]:
    """Return method -> progress of its last training, the one that runs or ran last first: viewers show the first."""
    stats = {method: trainer.stats() for method, trainer in app.trainers.items()}
    running = {task["request"].get("model"): task for task in _under_way()}
    for method in running.keys() & stats.keys():
        stats[method] = NOTHING_YET | app.trainers[method].stats(_began(running[method]))
    newest = sorted(
        stats, key=lambda method: (method in running, stats[method].get("updated", 0)), reverse=True
    )
    return {method: stats[method] for method in newest if stats[method]}


def stop() -> Any:
    """End the training that runs; it saves the point to go on from first.

    Returns:
        What was stopped, None where nothing ran.
    """
    stopped = None
    _wait_until_begun()
    for task_id, process in list(processes(METHOD).items()):
        stopped = next(task for task in tasks(METHOD) if task["id"] == task_id)
        stopped["status"] = "STOPPED"
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            logger.warning(
                "The training did not end within %g s; it goes on from its last saved point.", PATIENCE_S
            )
            for child in Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
    return None if stopped is None else {**stopped, "details": list(stopped.get("details", []))}


def _wait_until_begun() -> None:
    """Wait for the process of a training that was just asked for, so that it can be stopped."""
    end = time.monotonic() + BEGINNING_S
    while time.monotonic() < end and not processes(METHOD):
        if not any(task["status"] == "SUBMITTED" for task in tasks(METHOD)):
            return
        time.sleep(0.05)


def _under_way() -> list[dict[str, Any]]:
    return [task for task in tasks(METHOD) if task["status"] in ("SUBMITTED", "RUNNING")]


def _began(task: dict[str, Any]) -> float:
    """Return the seconds of the epoch at which a task was asked for."""
    return datetime.strptime(task["start_ts"], "%Y-%m-%d %H:%M:%S").timestamp()  # local time


def _with_progress(app: Any, task: dict[str, Any]) -> dict[str, Any]:
    trainer = app.trainers.get(task["request"].get("model"))
    progress = {} if trainer is None else trainer.stats(_began(task))
    return {**task, "details": list(task.get("details", [])), "progress": progress}
