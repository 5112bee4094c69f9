"""`medssl label serve`."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import click

from medssl.cli.common import (
    EXISTING,
    STDERR,
    contrasts_option,
    device_option,
    example,
    mask_option,
    parse_settings,
)


@example("medssl label serve cohort\nmedssl label serve cohort --model run --port 8010")
@click.command()
@click.argument("studies", type=EXISTING)
@click.option(
    "--model", type=EXISTING, help="Run folder, bundle or .pt file.  [default: the packaged bundle]"
)
@click.option(
    "--labels", type=EXISTING, help="Folder for labels and models.  [default: STUDIES-labels, beside it]"
)
@click.option(
    "--port", default=8000, show_default=True, help="Where 3D Slicer finds the server on this computer."
)
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Any other than this computer's own lets others call the server, which has no login.")  # fmt: skip
@click.option(
    "--python", type=EXISTING, help="Python, or environment, that has monailabel.  [default: .venv-label]"
)
@click.option("--set", "training", multiple=True, callback=parse_settings, metavar="KEY=VALUE",
              help="Change a value of the configuration of all trainings, as with medssl train.")  # fmt: skip
@contrasts_option
@mask_option
@device_option
def serve(studies: Path, python: Path | None, host: str, port: int, **options: Any) -> None:
    """Serve the scans of STUDIES (a folder or datalist) to 3D Slicer, until Ctrl-C.

    Nothing is written into STUDIES. Labels from Slicer go to STUDIES-labels beside it, where 'medssl check STUDIES'
    and 'medssl train STUDIES' find them; models that are trained there too. Nothing is downloaded or sent.
    """
    from medssl.cli.segment import cache_folder
    from medssl.workflows.labeling.launch import LOOPBACK, prepare_server, require_port, started_in
    from medssl.workflows.labeling.workspace import ServerSettings, default_labels_folder

    hosts = LOOPBACK if host in LOOPBACK else (*LOOPBACK, host, platform.node())
    labels = options.pop("labels") or default_labels_folder(studies)
    settings = ServerSettings(studies, labels, cache=cache_folder(), hosts=hosts, **options)
    launch = prepare_server(settings, python, host, require_port(port))
    if host not in LOOPBACK:
        STDERR.print(f"[red]Warning[/] {host} can be called by other computers, without a login. Scans and labels "
                     "can be read and written by everybody who reaches it.", soft_wrap=True)  # fmt: skip
    STDERR.print(
        f"{launch.scans} scans, {launch.labeled} of them labeled. Labels and models: {launch.workspace.folder}\n"
        f"In 3D Slicer: module MONAI Label, server [bold]{launch.address}[/], press the button beside it.\n"
        "Then: Next Sample, Run, correct, Submit Label, Train. Ctrl-C ends the server.",
        soft_wrap=True,
    )
    environment = started_in(os.environ, launch)
    if os.name == "nt":
        raise SystemExit(subprocess.call(launch.command, env=environment, cwd=launch.folder))
    os.chdir(launch.folder)
    os.execve(launch.command[0], launch.command, environment)
