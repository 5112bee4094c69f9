"""What a request may say: known names, known types, nothing that a configuration would evaluate."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.errors import MedsslError
from medssl.workflows.budgets import BUDGETS
from medssl.workflows.labeling.workspace import TAGS

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
SESSION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+ ()-]{0,200}")
EVALUATED = ("$", "@", "%")
"""First characters by which a MONAI configuration knows an expression, a reference and a macro."""

NEWEST = "newest"
"""Choice of a viewer that means the last model that was trained, whatever it is when the request comes."""

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd")
RESULT_ENDINGS = (".nrrd", ".nii.gz", ".nii")
MOST_EPOCHS = 100_000
DEEPEST = 8


class RequestError(MedsslError):
    """A request that is not answered; HTTP status 400."""


class NotThere(MedsslError):
    """A request for something that does not exist; HTTP status 404."""


@dataclass(frozen=True)
class InferRequest:
    """What a viewer may choose for a segmentation.

    Args:
        model: Name of the weights; None for the newest.
        extension: Of the file that is sent back.
    """

    model: str | None = None
    extension: str = ".nrrd"


@dataclass(frozen=True)
class TrainRequest:
    """What a viewer may choose for a training.

    Args:
        budget: A key of `budgets.BUDGETS`.
        max_epochs: Of 25 steps; 0 for those of the budget.
        pretrained: Start from a model.
        model: Which one; None for the newest.
        resume: Go on with a training that was stopped.
        seed: Of crops and dropout.
        device: One of those offered.
    """

    budget: str = "quick"
    max_epochs: int = 0
    pretrained: bool = True
    model: str | None = None
    resume: bool = True
    seed: int = 0
    device: str = "auto"

    def as_params(self) -> dict[str, Any]:
        """Return what is handed to the process that trains: nothing else of a request reaches it."""
        told = vars(self) | {"model_filename": self.model or ""}
        return {name: value for name, value in told.items() if name != "model"}


def identifier(text: object, what: str = "image") -> str:
    """Return the id of a scan, a model or a strategy.

    Raises:
        RequestError: It is no plain name.
    """
    if not isinstance(text, str) or not IDENTIFIER.fullmatch(text) or ".." in text:
        msg = f"{_shown(text)} is no {what} id; expected letters, digits and . _ + -."
        raise RequestError(msg, "Take it from GET /info/ or /datastore/?output=all.")
    return text


def tag(text: object) -> str:
    """Return the kind of a label.

    Raises:
        RequestError: It is none of `TAGS`.
    """
    if text not in TAGS:
        msg = f"{_shown(text)} is no label tag; expected {' or '.join(TAGS)}."
        raise RequestError(msg)
    return str(text)


def session_id(text: object) -> str:
    """Return the id of a session.

    Raises:
        RequestError: It is none.
    """
    if not isinstance(text, str) or not SESSION.fullmatch(text):
        msg = f"{_shown(text)} is no session id."
        raise RequestError(msg, "Take the one that PUT /session/ returned.")
    return text


def file_name(text: object) -> str:
    """Return the name of an uploaded file, without the folders that some clients send along.

    Raises:
        RequestError: It is no plain name, or of a kind that is not read here.
    """
    name = re.split(r"[/\\]", str(text or ""))[-1]
    if not FILE_NAME.fullmatch(name) or ending(name) is None:
        msg = f"{_shown(name)} cannot be read here; expected a name with {', '.join(IMAGE_ENDINGS)}."
        raise RequestError(msg, "Save the volume as NIfTI or NRRD and send it again.")
    return name


def ending(name: str) -> str | None:
    """Return the file ending that is read here, or None."""
    return next((one for one in IMAGE_ENDINGS if name.lower().endswith(one)), None)


def json_object(text: str | None) -> dict[str, Any]:
    """Read the ``params`` of a form.

    Raises:
        RequestError: It is no JSON object, or holds an expression.
    """
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        msg = "params is no valid JSON."
        raise RequestError(msg) from error
    return plain_object(found)


def plain_object(value: object) -> dict[str, Any]:
    """Return a JSON object none of whose texts a configuration would evaluate.

    Raises:
        RequestError: It is no object, is nested too deeply, or holds such a text.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        msg = f"The request holds a {type(value).__name__}; expected an object."
        raise RequestError(msg)
    _require_plain(value, DEEPEST)
    return value


def infer_request(told: Mapping[str, Any], models: Sequence[str]) -> InferRequest:
    """Take what is known out of a request for a segmentation; everything else in it has no effect.

    Raises:
        RequestError: A value has the wrong type, or an ending that cannot be written.
        NotThere: There is no such model.
    """
    extension = _first(told.get("result_extension")) or ".nrrd"
    if extension not in RESULT_ENDINGS:
        msg = f"result_extension is {_shown(extension)}; expected one of {', '.join(RESULT_ENDINGS)}."
        raise RequestError(msg)
    return InferRequest(_model(told, models), extension)


def train_request(told: Mapping[str, Any], models: Sequence[str], devices: Sequence[str]) -> TrainRequest:
    """Take what is known out of a request for a training; everything else in it has no effect.

    Raises:
        RequestError: A value has the wrong type or range.
        NotThere: There is no such model.
    """
    told = plain_object(dict(told))
    return TrainRequest(
        budget=_choice(told, "budget", tuple(BUDGETS), "quick"),
        max_epochs=_whole(told, "max_epochs", 0, MOST_EPOCHS),
        pretrained=_yes_or_no(told, "pretrained", default=True),
        model=_model(told, models),
        resume=_yes_or_no(told, "resume", default=True),
        seed=_whole(told, "seed", 0, 2**31 - 1),
        device=_choice(told, "device", ("auto", *devices), "auto"),
    )


def inside(path: Path | str, *folders: Path) -> Path:
    """Return a path that lies in one of some folders, links followed.

    Raises:
        RequestError: It lies elsewhere.
    """
    real = Path(path).resolve()
    if not any(real.is_relative_to(folder.resolve()) for folder in folders):
        msg = f"{Path(path).name} lies outside the scans of this server."
        raise RequestError(msg, "Give the id of a scan, or upload the file.")
    return real


def _model(told: Mapping[str, Any], models: Sequence[str]) -> str | None:
    name = _first(told.get("model_filename"))
    if name in (None, "", NEWEST):
        return None
    if not isinstance(name, str) or name not in models:
        msg = f"There is no model {_shown(name)}; there are {', '.join(models)}."
        raise NotThere(msg)
    return name


def _choice(told: Mapping[str, Any], name: str, known: Sequence[str], default: str) -> str:
    value = _first(told.get(name))
    if value in (None, ""):
        return default
    if not isinstance(value, str) or value not in known:
        msg = f"{name} is {_shown(value)}; expected one of {', '.join(known)}."
        raise RequestError(msg)
    return value


def _whole(told: Mapping[str, Any], name: str, default: int, most: int) -> int:
    value = _first(told.get(name, default))
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value != int(value) or not 0 <= value <= most:
        msg = f"{name} is {_shown(value)}; expected a whole number from 0 to {most}."
        raise RequestError(msg)
    return int(value)


def _yes_or_no(told: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = _first(told.get(name, default))
    if not isinstance(value, bool):
        msg = f"{name} is {_shown(value)}; expected true or false."
        raise RequestError(msg)
    return value


def _first(value: Any) -> Any:
    """Return the chosen value where a client sent the list of choices."""
    return value[0] if isinstance(value, list) and value else value


def _require_plain(value: object, depth: int) -> None:
    if depth < 0:
        msg = "The request is nested too deeply."
        raise RequestError(msg)
    if isinstance(value, str) and value.lstrip().startswith(EVALUATED):
        msg = f"{_shown(value)} looks like an expression; values are never evaluated here."
        raise RequestError(msg, "Send a plain value.")
    if isinstance(value, Mapping):
        for key, one in value.items():
            _require_plain(key, depth - 1)
            _require_plain(one, depth - 1)
    elif isinstance(value, list):
        for one in value:
            _require_plain(one, depth - 1)


def _shown(value: object) -> str:
    """Return a value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
