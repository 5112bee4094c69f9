"""What several commands share: how values are parsed, how progress and tables look."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

STDERR = Console(stderr=True, highlight=False)
"""Progress and remarks go here; results go to standard output."""

STDOUT = Console(highlight=False)

EXISTING = click.Path(path_type=Path)
"""A path that a workflow checks itself, with a better message."""


def example(text: str) -> Callable[[click.Command], click.Command]:
    """Add an example to the end of a command's help."""

    def add(command: click.Command) -> click.Command:
        command.epilog = "\b\nExample:\n  " + text.replace("\n", "\n  ")
        return command

    return add


def to_type(command: str, *words: object) -> str:
    """Return a command to be copied, with quotes around what holds spaces."""
    return f"{command} {shlex.join(str(word) for word in words)}"


def parse_contrasts(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Split "T1w,T2w"."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else None


contrasts_option = click.option(
    "--contrasts",
    callback=parse_contrasts,
    help="BIDS suffixes in channel order, such as T1w,T2w (the default) or T1w.",
)

mask_option = click.option(
    "--mask",
    type=click.Choice(["none"]),
    help="'none': scans have no brain mask, background is a class. Otherwise the mask file beside a scan, "
    "or the voxels where the first contrast is not 0.",
)

device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:N."
)


def parse_settings(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
    """Parse KEY=VALUE pairs; the value is YAML."""
    import yaml

    settings: dict[str, Any] = {}
    for pair in value:
        name, sign, text = pair.partition("=")
        if not sign or not name:
            msg = f"'{pair}' is not KEY=VALUE."
            raise click.BadParameter(msg)
        try:
            settings[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            msg = f"the value of '{pair}' is no YAML."
            raise click.BadParameter(msg) from error
    return settings


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback (detail, done, all) that draws a bar on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=STDERR, transient=False) as bar:
        task = bar.add_task(what, total=None, detail="")

        def update(detail: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, detail=detail)

        yield update


def refuse_options(ctx: click.Context) -> None:
    """A resumed run keeps its own options: say so instead of ignoring new ones.

    Raises:
        UsageError: Which ones were given beside --resume.
    """
    if not ctx.params["resume"]:
        return
    given = [
        (option.opts if ctx.params[option.name] else option.secondary_opts or option.opts)[-1]
        for option in ctx.command.params
        if option.name not in ("data", "out", "resume", "help")
        and ctx.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        msg = f"--resume goes on with the options the run began with; drop {', '.join(given)}."
        raise click.UsageError(msg)


@contextmanager
def watched_training(score: str = "Dice", data: str = "scans") -> Iterator[TrainingBar]:
    """Draw a training; SIGTERM ends it as Ctrl-C does, and Slurm's name of the job is known to its lock."""
    from medssl.cli.ranks import job_of_environment
    from medssl.io.lock import JOB
    from medssl.workflows.ending import ended_cleanly

    JOB.set(job_of_environment())
    with ended_cleanly(), TrainingBar(score, data) as bar:
        yield bar


class TrainingBar:
    """A `Watcher` that draws loss, validation score and the time that remains.

    Args:
        score: What the held-out labeled data are scored with.
        data: What is prepared first.
    """

    def __init__(self, score: str = "Dice", data: str = "scans") -> None:
        self._name = score
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=STDERR,
        )
        self._task = self._bar.add_task("Training", total=None, detail=f"preparing {data}")
        self._loss: float | None = None
        self._score: float | None = None

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def registered(self, done: int, pairs: int) -> None:
        """Labeled scans are laid over the unlabeled ones."""
        self._bar.update(self._task, description="Registering", total=pairs, completed=done, detail="pairs")

    def warped(self, done: int, scans: int) -> None:
        """Labeled scans are brought into the shape of the unlabeled ones."""
        self._bar.update(self._task, description="Warping", total=scans, completed=done, detail="scans")

    def started(self, step: int, steps: int) -> None:
        """Training begins or goes on."""
        self._bar.reset(self._task, description="Training", total=steps, completed=step, detail="")

    def step(self, step: int, loss: float) -> None:
        """Move the bar."""
        self._loss = loss if self._loss is None else 0.9 * self._loss + 0.1 * loss
        self._bar.update(self._task, completed=step, detail=self._detail())

    def validated(self, step: int, score: float) -> None:
        """Show the score on the held-out data."""
        self._score = score
        self._bar.update(self._task, detail=self._detail())

    def _detail(self) -> str:
        loss = "" if self._loss is None else f"loss {self._loss:.3f}"
        return loss if self._score is None else f"{loss}  validation {self._name} {self._score:.3f}"
