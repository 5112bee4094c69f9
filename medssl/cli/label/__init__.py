"""`medssl label`: correct label maps in 3D Slicer and train from there."""

from __future__ import annotations

import click

from medssl.cli import Verbs
from medssl.cli.common import example

VERBS = {
    "serve": "Start the server that 3D Slicer talks to.",
    "doctor": "Say what keeps the server from working, and the command that cures it.",
}
"""Verb -> one line; each is a module of this package with a command of the same name."""


@example("medssl label serve cohort")
@click.group(cls=Verbs, verbs=VERBS, package=__name__)
def label() -> None:
    """Label scans in 3D Slicer: segment, correct, train again.

    \b
    Start here (once: make label):
      medssl label serve SCANS      connect 3D Slicer to http://127.0.0.1:8000
      medssl label doctor           if the server does not start
    """  # noqa: D301 (\b is the character by which click keeps lines)
