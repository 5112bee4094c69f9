"""Running the bundle that a run folder is: through MONAI's workflow, watched, its failures put into words."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, ConfigWorkflow

from medssl.engines import TrainingInterrupted, give_back_memory
from medssl.errors import ConfigError, MedsslError
from medssl.io.files import OWN_FILES, read_json, require_writable_folder, write_json
from medssl.io.lock import locked
from medssl.workflows.anatomy import SURROUNDINGS, Surroundings
from medssl.workflows.models import read_config
from medssl.workflows.watching import Watcher

CANDIDATES = "candidates"
"""Folder of a run that holds the runs it was chosen from."""

CACHE = "cache"
"""Folder of a run for prepared images that do not fit into memory; only an unfinished run needs it."""

_LOCK = f"{OWN_FILES}train-lock"


@dataclass(frozen=True)
class Training:
    """What a training did.

    Args:
        run: The run folder.
        steps: Optimizer steps taken.
        best: Best score on the held-out labeled data (mean Dice of scans, macro F1 of images), None without any.
        seconds: Wall time of this call.
    """

    run: Path
    steps: int
    best: float | None
    seconds: float


def finished_training(run: Path) -> Training | None:
    """Return what the training in a folder did, None where none was finished there."""
    record = read_json(run / "run.json") if (run / "run.json").is_file() else {}
    if not record.get("finished"):
        return None
    return Training(run, record["steps"], record["best_validation_score"], record["seconds"])


def promote_parts(source: Path, out: Path, parts: Iterable[str]) -> None:
    """Copy files and folders of one run to another, in place of those that are there."""
    for name in parts:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        if (source / name).is_dir():
            shutil.copytree(source / name, out / name)
        elif (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def require_parts(out: Path, parts: Iterable[str] = ("loss", "train#sampler", "optimizer")) -> None:
    """Build those parts of a prepared run that need no data, so that bad values show before hours have passed.

    Args:
        out: Folder with ``configs/train.yaml``.
        parts: Ids of the configuration.

    Raises:
        ConfigError: A value of the configuration does not work.
    """
    parser = read_config(out / "configs" / "train.yaml", {"bundle_root": str(out)})
    try:
        for part in parts:
            parser.get_parsed_content(part)
    except Exception as error:
        raise _in_words(error) from error


def run_training(
    out: Path,
    watcher: Watcher,
    resume: bool,
    *,
    finish: Callable[[ConfigParser], object] | None = None,
    registrations: Path | None = None,
) -> Training:
    """Train in a prepared run folder, and record in it that this is done.

    Args:
        out: Folder with ``configs/train.yaml`` and ``run.json``.
        watcher: Told about the progress.
        resume: Go on from the resume point.
        finish: What belongs to the training after its last step, done before it is recorded as finished, so that
            a run that is killed in between is resumed; it gets the configuration, all parts built.
        registrations: Folder that keeps registrations for several runs; None for the run's own.

    Raises:
        ConfigError: A value of the configuration does not work.
        TrainingInterrupted: The user stopped it; everything is saved.
    """
    with stoppable():
        try:
            return _run_training(out, watcher, resume, finish, registrations)
        finally:
            give_back_memory()


def _run_training(
    out: Path,
    watcher: Watcher,
    resume: bool,
    finish: Callable[[ConfigParser], object] | None,
    registrations: Path | None,
) -> Training:
    started = time.time()
    workflow = ConfigWorkflow(
        config_file=str(out / "configs" / "train.yaml"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(out),
        resume=resume,
    )
    with _own_errors(), _events_without_host(out / "events"):
        prepared = "Training was stopped while the scans were prepared; registrations that are done are kept."
        with stoppable(prepared), _removed_on_failure(out, keep=resume), _surrounded(watcher, registrations):
            workflow.initialize()
            trainer = workflow.parser.get_parsed_content("train#trainer")
            evaluator = workflow.parser.get_parsed_content("validate#evaluator")
        _watch(trainer, evaluator, watcher)
        best_model = workflow.parser.get_parsed_content("train#best_model")
        finished = trainer.state.epoch >= trainer.state.max_epochs  # stopped after its last step
        if not finished or "rounds" in workflow.parser["train"]:  # rounds have their own end to record
            workflow.run()
        if finished:
            best_model.finish()
        best = best_model.best
    if finish is not None:
        finish(workflow.parser)
    shutil.rmtree(out / CACHE, ignore_errors=True)
    training = Training(out, trainer.state.iteration, best, time.time() - started)
    record = read_json(out / "run.json")
    record |= {"steps": training.steps, "best_validation_score": best, "finished": True}
    record["precision"] = trainer.precision
    record |= _seen_at_the_end(workflow.parser)
    record["seconds"] = round(record.get("seconds", 0) + training.seconds, 1)
    write_json(out / "run.json", record)
    return training


def _seen_at_the_end(parser: ConfigParser) -> dict[str, Any]:
    """Return what a run has to tell beside its score: the step it kept, classes lost there, skips, registrations."""
    trainer, saver = parser.get_parsed_content("train#trainer"), parser.get_parsed_content("train#best_model")
    told = {"skipped_steps": trainer.skipped_steps, "kept_step": saver.step, "vanished": saver.vanished}
    registered = parser["train"]["dataset"].get("registered")
    if isinstance(registered, Mapping):
        laid = parser.get_parsed_content("train#dataset#registered")
        told |= {"registered_pairs": laid.pairs, "registered_scans": list(laid.reached)}
    return told


@contextmanager
def only_trainer(out: Path, inputs: Iterable[Path] = ()) -> Iterator[None]:
    """Keep other processes from training in a folder while the block runs, also while it is being made.

    The lock file lies beside the folder, which may be removed meanwhile; inside it where nothing can be written beside.

    Args:
        out: The folder.
        inputs: What is only read: the folder must not lie in it.

    Raises:
        OutputError: Another process does, or the folder cannot be written to.
    """
    require_writable_folder(out, inputs)
    place = out.resolve()
    inside = not place.name or (place.exists() and not os.access(place.parent, os.W_OK | os.X_OK))
    name = f"{_LOCK}" if inside else f"{_LOCK}-{place.name}"
    with locked(place / name if inside else place.with_name(name), f"The run in {out}"):
        yield


@contextmanager
def stoppable(
    said: str = "Training was stopped between two steps; it goes on from where it was last saved.",
) -> Iterator[None]:
    """Let a Ctrl-C between steps, as while whole scans are predicted, end with a word on how to go on.

    Args:
        said: What was stopped, and what is kept.

    Raises:
        TrainingInterrupted: The user stopped it.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise TrainingInterrupted(said) from error


@contextmanager
def _removed_on_failure(out: Path, keep: bool) -> Iterator[None]:
    """Remove a run folder whose configuration turns out not to work; nothing was trained in it yet.

    Raises:
        ConfigError: A value of the configuration has the wrong type or range.
    """
    try:
        yield
    except Exception as error:
        if not keep and not any(out.glob("registrations/*/*.npz")):  # they took long, and --resume finds them
            shutil.rmtree(out, ignore_errors=True)
        raise _in_words(error) from error


def _in_words(error: BaseException) -> MedsslError:
    """Return the package's own error inside a failure of the configuration, or one that quotes its root."""
    own = _package_error(error)
    if own is not None:
        return own
    while error.__cause__ is not None:
        error = error.__cause__
    msg = f"The configuration of this run does not work: {type(error).__name__}: {error}."
    return ConfigError(msg, "Correct the values given with --set.")


def _package_error(error: BaseException | None) -> MedsslError | None:
    while error is not None and not isinstance(error, MedsslError):
        error = error.__cause__
    return error


@contextmanager
def _surrounded(watcher: Watcher, registrations: Path | None) -> Iterator[None]:
    token = SURROUNDINGS.set(Surroundings(watcher.registered, watcher.warped, registrations))
    try:
        yield
    finally:
        SURROUNDINGS.reset(token)


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raise the package's own error where MONAI wrapped it into "Failed to evaluate ..."."""
    try:
        yield
    except RuntimeError as error:
        cause = _package_error(error)
        if cause is None:
            raise
        raise cause from error


@contextmanager
def _events_without_host(folder: Path) -> Iterator[None]:
    """Take the computer's name out of the names that TensorBoard gives its files."""
    try:
        yield
    finally:
        for path in folder.glob("events.out.tfevents.*.*.*.*"):
            when, *_, process, number = path.name.removeprefix("events.out.tfevents.").split(".")
            path.rename(path.with_name(f"events.out.tfevents.{when}.{process}.{number}"))


def _watch(trainer: Engine, evaluator: Engine, watcher: Watcher) -> None:
    def started(engine: Engine) -> None:
        watcher.started(engine.state.iteration, trainer.total_steps)

    def stepped(engine: Engine) -> None:
        watcher.step(engine.state.iteration, float(engine.state.output["loss"].detach()))

    def validated(engine: Engine) -> None:
        watcher.validated(trainer.state.iteration, float(engine.state.metrics[engine.state.key_metric_name]))

    trainer.add_event_handler(Events.STARTED, started)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, stepped)
    evaluator.add_event_handler(Events.COMPLETED, validated)
