"""`medssl classify networks`."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from medssl.cli.common import example

_WIDE = 1000
"""Characters of a line: a narrow terminal may break it, but no name is cut."""


@example("medssl classify networks")
@click.command()
def networks() -> None:
    """List the networks: parameters, input, where they come from, the license of their weights."""
    from medssl.networks.compact import NETWORKS

    table = Table(box=None, pad_edge=False)
    for name in ("network", "family", "M parameters", "input", "weights", "source"):
        table.add_column(name, justify="right" if name in ("M parameters", "input") else "left")
    for facts in NETWORKS.values():
        table.add_row(
            facts.name,
            facts.family,
            f"{facts.parameters_m:.2f}",
            str(facts.input_size),
            facts.license,
            f"{facts.source} {facts.id}".strip(),
        )
    Console(width=_WIDE, highlight=False).print(table)
