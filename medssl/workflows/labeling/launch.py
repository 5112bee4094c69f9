"""Starting the server: where its Python is, what is laid out for it, and the command that runs it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medssl.errors import ConfigError, InputError
from medssl.io.cohort import read_cohort
from medssl.workflows.labeling.workspace import ServerSettings, Workspace, lay_out

ENVIRONMENT = ".venv-label"
"""Folder of the environment that `make label` makes."""

LOOPBACK = ("127.0.0.1", "localhost")
"""Hosts that only programs of this computer can reach."""

EVERY_ADDRESS = "0.0.0.0"
"""As a host it means: under each address of this computer."""

UNSET = ("MONAI_LABEL_CORS_ORIGINS", "PYTHONPATH", "PYTHONHOME")
"""Variables that keep MONAI Label from starting, or that belong to another Python."""


@dataclass(frozen=True)
class Launch:
    """A server that is ready to be started.

    Args:
        command: Program and arguments.
        environment: Variables to set.
        folder: Where to start it.
        workspace: The folder beside the scans.
        scans: How many there are.
        labeled: How many of them have a label.
        address: What to type in 3D Slicer.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    workspace: Workspace
    scans: int
    labeled: int
    address: str


def prepare_server(
    settings: ServerSettings, python: Path | None = None, host: str = "127.0.0.1", port: int = 8000
) -> Launch:
    """Check the scans, lay out the folder beside them, and return how the server is started.

    Args:
        settings: What the server is told.
        python: That of the label environment; None looks for it.
        host: Where the server listens.
        port: On which port.

    Raises:
        InputError: There is no Python with MONAI Label, no scan, or no such model.
        ConfigError: The host cannot be used.
        OutputError: The folder beside the scans cannot be written.
    """
    if ":" in host:
        msg = f"--host {host} is an address of IPv6, or has a port in it."
        raise ConfigError(msg, "Give a name or an IPv4 address, and the port with --port.")
    program = find_python(python)
    cohort = read_cohort(
        settings.studies, settings.contrasts, mask=settings.mask, corrections=settings.labels
    )
    if settings.model is not None and not settings.model.exists():
        msg = f"{settings.model}: no such run folder, bundle or file of weights."
        raise InputError(msg, "Check the path given to --model.")
    workspace = lay_out(settings)
    app = workspace.app.resolve()
    command = (
        *(str(program), "-m", "medssl.label_app", "start_server", "--app", str(app)),
        *("--studies", str(workspace.folder.resolve()), "--host", host, "--port", str(port)),
        *("--uvicorn_app", "medssl.label_app.server:app", "--log_level", "warning"),
    )
    return Launch(
        command=command,
        environment=_environment(workspace),
        folder=app,
        workspace=workspace,
        scans=len(cohort.all()) - len(cohort.test),
        labeled=len(cohort.training) + len(cohort.validation),
        address=f"http://{LOOPBACK[0] if host == EVERY_ADDRESS else host}:{port}",
    )


def _environment(workspace: Workspace) -> dict[str, str]:
    """Return the variables that make MONAI Label work offline and keep to the folder."""
    return {
        "MONAI_LABEL_SESSION_PATH": str(workspace.sessions.resolve()),
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "MONAI_LABEL_TASKS_SCORING": "false",
        "MONAI_LABEL_TASKS_BATCH_INFER": "false",
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false",
        "MONAI_ZOO_SOURCE": "ngc",
        "BUNDLE_DOWNLOAD_SRC": "ngc",
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }


def started_in(environment: Mapping[str, str], launch: Launch) -> dict[str, str]:
    """Return all variables of the server's process."""
    return {name: value for name, value in environment.items() if name not in UNSET} | dict(
        launch.environment
    )


def find_python(python: Path | None = None, places: Iterable[Path] | None = None) -> Path:
    """Return a Python that has MONAI Label.

    Args:
        python: The one to take.
        places: Folders in which ``.venv-label`` may be; by default the current one and that of the checkout.

    Raises:
        InputError: There is none.
    """
    if python is not None:
        found = python / _inside() if python.is_dir() else python
        if not found.is_file():
            msg = f"There is no Python at {python}."
            raise InputError(msg, "Give the python program of the environment that has monailabel.")
        return Path(os.path.abspath(found))  # noqa: PTH100 - links kept: they make the environment
    if importlib.util.find_spec("monailabel") is not None:
        return Path(sys.executable)
    checkout = Path(__file__).resolve().parents[3]
    for place in places if places is not None else (Path.cwd(), checkout):
        found = place / ENVIRONMENT / _inside()
        if found.is_file():
            return found.absolute()
    msg = f"MONAI Label is not installed: there is no {ENVIRONMENT} here, and this Python lacks monailabel."
    raise InputError(
        msg, "Run 'make label' in the folder of medssl, or give --python of an environment that has it."
    )


def require_port(port: int) -> int:
    """Return a port that an ordinary user may listen on.

    Raises:
        ConfigError: It is none.
    """
    if not 1024 <= port <= 65535:
        msg = f"--port {port} is none that a user may open; expected 1024 to 65535."
        raise ConfigError(msg)
    return port


def _inside() -> Path:
    return Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
