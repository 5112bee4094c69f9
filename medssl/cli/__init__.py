"""The command line: parse, call a workflow, print. Commands import what they need when they run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from medssl import __version__
from medssl.errors import MedsslError

COMMANDS = {
    "simulate": "Make a cohort of simulated infant brain scans.",
    "check": "Look at a folder of scans and say what is wrong with it.",
    "train": "Train a network on the labeled scans of a folder.",
    "segment": "Make label maps of scans, on the scans' own grid.",
    "rank": "Say which unlabeled scans to label next, and why.",
    "evaluate": "Compare label maps with references.",
    "report": "Write one page about a cohort: training, pictures, volumes, Dice.",
    "classify": "Classify 2D images: train, distill, predict, export, compare.",
    "label": "Label scans in 3D Slicer, and train from there.",
    "info": "Show versions, devices, budgets, and the card of a model.",
    "demo": "Run the whole path on a simulated cohort and write a report.",
}
"""Verb -> one line; each is a module of this package with a command of the same name."""


OWN_PROCESS = "own process"
"""Context object that says: this process ends with the command, so it need not load what other commands use."""


class Verbs(click.Group):
    """Commands that are imported only when they are called, so that --help is instant.

    Args:
        verbs: Verb -> one line, in the order people need them.
        package: Where the modules of the verbs are.
        kwargs: See `click.Group`.
    """

    def __init__(
        self, *, verbs: Mapping[str, str] = COMMANDS, package: str = "medssl.cli", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.verbs, self.package = verbs, package

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order people need them."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.verbs:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"{self.package}.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.verbs.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Turn an error a user can act on into one message and exit code 1."""
        try:
            return super().invoke(ctx)
        except MedsslError as error:
            if ctx.find_root().params.get("debug"):
                raise
            raise click.ClickException(str(error)) from error


class _Remarks(logging.Handler):
    """What the package logs, without level and time, on standard error.

    Args:
        tracebacks: Print those too that belong to a message.
    """

    def __init__(self, tracebacks: bool) -> None:
        super().__init__()
        self.tracebacks = tracebacks

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        try:
            click.echo(self.format(record) if self.tracebacks else record.getMessage(), err=True)
        except Exception:  # noqa: BLE001 (a terminal that is gone ends no training)
            self.handleError(record)


@contextmanager
def _remarks_shown(tracebacks: bool) -> Iterator[None]:
    """Show what the package, and nothing else, logs for people: from INFO on."""
    logger, shown = logging.getLogger("medssl"), _Remarks(tracebacks)
    before = logger.level
    logger.addHandler(shown)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(shown)
        logger.setLevel(before)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="medssl")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Semi-supervised learning on medical images.

    \b
    Start here:
      medssl demo                                  all of it on simulated scans
      medssl check SCANS                           is my folder usable?
      medssl train SCANS --out RUN                 learn from its labeled scans
      medssl segment SCANS --out OUT --model RUN   label maps of all scans
    """  # noqa: D301 (\b is the character by which click keeps lines)
    click.get_current_context().with_resource(_remarks_shown(debug))
