"""`medssl info`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click
from rich.table import Table

from medssl.cli.common import EXISTING, STDOUT, example


@example("medssl info\nmedssl info run --json")
@click.command()
@click.argument("model", type=EXISTING, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(model: Path | None, as_json: bool) -> None:
    """Show versions, devices, backends, budgets, and the card of MODEL (run, bundle or file of weights).

    Without MODEL the packaged bundle is described.
    """
    from medssl.workflows.budgets import BUDGETS
    from medssl.workflows.classification.budgets import BUDGETS as IMAGE_BUDGETS
    from medssl.workflows.info import info as collect

    facts = collect(model)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    _section("Versions", facts["versions"])
    machine = {
        "devices": ", ".join(facts["devices"]),
        "processor": facts["processor"],
        "cores": facts["cores"],
        "threads": facts["threads"],
        "free memory": f"{facts['free_memory_gib']} GiB",
        "backends": ", ".join(
            f"{name} {version or '(not installed)'}" for name, version in facts["backends"].items()
        ),
    }
    _section("Machine", machine)
    _section("Budgets", {name: budget.describe().split(": ", 1)[1] for name, budget in BUDGETS.items()})
    images = {name: budget.describe().split(": ", 1)[1] for name, budget in IMAGE_BUDGETS.items()}
    _section("Budgets of medssl classify", images)
    _section("Model", facts["model"])


def _section(title: str, rows: Mapping[str, object]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, title=title, title_justify="left")
    table.add_column(style="dim", min_width=16)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name.replace("_", " "), str(value))
    STDOUT.print(table)
