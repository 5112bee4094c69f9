"""`medssl check`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.table import Table

from medssl.cli.common import EXISTING, STDERR, STDOUT, contrasts_option, example, mask_option


@example("medssl check cohort\nmedssl check cohort --json > cohort.json")
@click.command()
@click.argument("data", type=EXISTING, nargs=-1, required=True)
@contrasts_option
@mask_option
@click.option("--resample", is_flag=True, help="Accept contrasts on another grid, to be resampled by header.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def check(
    data: tuple[Path, ...], contrasts: tuple[str, ...] | None, mask: str | None, resample: bool, as_json: bool
) -> None:
    """Look at DATA (a folder, a datalist, or the files of one subject) and say what is wrong with it.

    Exit code 1 when a problem would stop training or segmentation.
    """
    from medssl.workflows.check import check as check_data

    result = check_data(list(data) if len(data) > 1 else data[0], contrasts, resample=resample, mask=mask)
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
    else:
        _print(result)
    if not result.ok:
        raise SystemExit(1)


def _print(result: object) -> None:
    facts = result.as_dict()  # type: ignore[attr-defined]
    table = Table(box=None, pad_edge=False)
    for name in (
        "subject",
        "section",
        "files",
        "shape",
        "spacing mm",
        "orient.",
        "labels",
        "mask",
        "problems",
    ):
        table.add_column(name, overflow="fold")
    for report in facts["subjects"]:
        table.add_row(
            report["subject"],
            report["section"],
            " ".join(report["files"]),
            "x".join(str(side) for side in report["shape"] or ()),
            "x".join(f"{size:.3g}" for size in report["spacing_mm"] or ()),
            report["orientation"] or "",
            " ".join(str(value) for value in report["label_values"] or ()),
            report["mask"] or "",
            "" if report["ok"] else "fatal",
        )
    STDOUT.print(table)
    problems = facts["problems"]
    for problem in problems:
        color = "red" if problem["severity"] == "fatal" else "yellow"
        STDERR.print(f"[{color}]{problem['severity']}[/] {problem['message']} {problem['cure']}", markup=True)
    count = len(facts["subjects"])
    STDOUT.print(
        f"{count} subjects, {len(problems)} problems." if problems else f"{count} subjects, no problem."
    )
