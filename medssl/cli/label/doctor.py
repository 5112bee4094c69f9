"""`medssl label doctor`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from medssl.cli.common import EXISTING, STDOUT, example


@example("medssl label doctor")
@click.command()
@click.option(
    "--python", type=EXISTING, help="Python, or environment, that has monailabel.  [default: .venv-label]"
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(python: Path | None, as_json: bool) -> None:
    """Examine the environment of MONAI Label: every known problem, what was found, and the cure.

    Exit code 1 when the server cannot work.
    """
    from medssl.workflows.labeling.doctor import examine, healthy
    from medssl.workflows.labeling.launch import find_python

    found = examine(find_python(python), os.environ)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        table = Table(box=None, pad_edge=False)
        for name in ("", "check", "found", "cure"):
            table.add_column(name, overflow="fold")
        for one in found:
            table.add_row("[green]ok[/]" if one.ok else "[red]no[/]", one.check, one.found, one.cure)
        STDOUT.print(table)
    if not healthy(found):
        raise SystemExit(1)
