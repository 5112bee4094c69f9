"""The folder beside the scans: where labels, uploads, trained models and the server's own files lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl.errors import InputError
from medssl.io.corrections import FINAL, UPLOADED, corrections_folder
from medssl.io.files import read_json, require_writable_folder, write_json, write_text
from medssl.workflows.provenance import relative

ORIGINAL = "original"
"""Subfolder of labels that a model made and a viewer sent back as such; nothing trains on them."""

TAGS = (FINAL, ORIGINAL)
"""Kinds of labels that a viewer may save, each in a folder of its own."""

MAIN = '''\
"""What MONAI Label starts. Written by medssl."""

from medssl.label_app.main import LabelApp  # noqa: F401
'''


@dataclass(frozen=True)
class Workspace:
    """The places in the folder beside the scans.

    Args:
        folder: The folder itself.
    """

    folder: Path

    @property
    def uploads(self) -> Path:
        """Scans that came from a viewer."""
        return self.folder / UPLOADED

    @property
    def converted(self) -> Path:
        """Scans and labels that a viewer cannot read as they are, as NIfTI."""
        return self.folder / "converted"

    @property
    def models(self) -> Path:
        """A run folder for each training."""
        return self.folder / "models"

    @property
    def ranking(self) -> Path:
        """What is known about the unlabeled scans."""
        return self.folder / "ranking"

    @property
    def training_list(self) -> Path:
        """The scans of the next training."""
        return self.folder / "training" / "datalist.json"

    @property
    def cohort_list(self) -> Path:
        """All scans with their labels so far: this folder is a cohort like any other."""
        return self.folder / "datalist.json"

    @property
    def validation(self) -> Path:
        """Names of the subjects that validate, once and for all."""
        return self.folder / "validation.json"

    @property
    def app(self) -> Path:
        """What MONAI Label calls the app folder; its logs are there."""
        return self.folder / "app"

    @property
    def sessions(self) -> Path:
        """Scans that were sent for one answer."""
        return self.folder / "sessions"

    @property
    def lock(self) -> Path:
        """Held by the server."""
        return self.folder / ".server.lock"


@dataclass(frozen=True)
class ServerSettings:
    """What the server and its trainings are told.

    Args:
        studies: Folder or datalist of the scans.
        labels: The folder beside it.
        model: Run, bundle or file of weights to begin with; None for the packaged bundle.
        cache: Remembers which backend is fastest.
        contrasts: BIDS suffixes; None for those of the model.
        mask: "none" where scans have no brain mask.
        device: "auto", "cpu", "cuda", ...
        hosts: Names under which the server may be called.
        training: Values of the training configuration to change, as with ``medssl train --set``.
    """

    studies: Path
    labels: Path
    model: Path | None = None
    cache: Path | None = None
    contrasts: tuple[str, ...] | None = None
    mask: str | None = None
    device: str = "auto"
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def workspace(self) -> Workspace:
        """The places in the folder beside the scans."""
        return Workspace(self.labels)


def default_labels_folder(studies: Path) -> Path:
    """Return the folder beside the scans that `read_cohort` finds again by itself."""
    return corrections_folder(studies)


def lay_out(settings: ServerSettings) -> Workspace:
    """Make the folder beside the scans; what is in it already stays.

    Raises:
        OutputError: It lies in the folder of the scans, or cannot be written.
    """
    require_writable_folder(settings.labels, [settings.studies])
    workspace = settings.workspace
    for folder in (
        *(workspace.folder / tag for tag in TAGS),
        workspace.models,
        workspace.sessions,
        workspace.app,
    ):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(workspace.app / "main.py", MAIN)
    start = workspace.app
    write_json(
        start / "settings.json",
        {
            "studies": relative(settings.studies, start),
            "model": None if settings.model is None else relative(settings.model, start),
            "cache": None if settings.cache is None else relative(settings.cache, start),
            "contrasts": settings.contrasts,
            "mask": settings.mask,
            "device": settings.device,
            "hosts": settings.hosts,
            "training": settings.training,
        },
    )
    return workspace


def read_settings(app: Path) -> ServerSettings:
    """Read what `lay_out` wrote.

    Raises:
        InputError: The folder is not one that it made.
    """
    told = read_json(app / "settings.json")
    try:
        return ServerSettings(
            studies=_absolute(app, told["studies"]),
            labels=app.resolve().parent,
            model=None if told["model"] is None else _absolute(app, told["model"]),
            cache=None if told["cache"] is None else _absolute(app, told["cache"]),
            contrasts=tuple(told["contrasts"]) if told["contrasts"] else None,
            mask=told["mask"],
            device=told["device"],
            hosts=tuple(told["hosts"]),
            training=told["training"],
        )
    except (KeyError, TypeError) as error:
        msg = f"{app / 'settings.json'} lacks {error}."
        raise InputError(msg, "Start the server again with 'medssl label serve STUDIES'.") from error


def _absolute(app: Path, place: str) -> Path:
    return Path((app / place).resolve())
