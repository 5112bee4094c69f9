"""Make torchvision and timm importable, also where torchvision's compiled operators do not fit torch."""

from __future__ import annotations

import sys
from types import ModuleType

import torch

from medssl.errors import ConfigError

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
"""What torchvision expects of the two operators that it registers a meta version for."""

OPERATORS = ("nms", "qnms")


def ensure_torchvision() -> None:
    """Import torchvision; where its extension does not load, declare the operators whose absence stops the import.

    Call it before timm is imported and before anything of torchvision is used. A second call does nothing, nor does
    the first where the extension loads. It also repairs the half-imported torchvision that a library leaves behind
    which swallowed the failure (MONAI does).

    Raises:
        ConfigError: torchvision is not installed.

    Notes:
        The declared operators have no implementation: classification networks and transforms work, non-maximum
        suppression raises.
    """
    try:
        import_torchvision()
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_operators()
        _forget_torchvision()
        import_torchvision()


def import_torchvision() -> ModuleType:
    """Return torchvision as it is.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import torchvision  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return torchvision


def import_timm() -> ModuleType:
    """Return timm, with torchvision made importable first.

    Raises:
        ConfigError: timm or torchvision is not installed.
    """
    ensure_torchvision()
    try:
        import timm  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return timm


def _missing(error: ModuleNotFoundError) -> ConfigError:
    msg = f"Compact networks need {error.name}, which is not installed."
    return ConfigError(msg, 'Install it with: pip install "medssl[classify]".')


def _declare_operators() -> None:
    for name in OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", SCHEMA)


def _forget_torchvision() -> None:
    """Drop what a failed import left in the table of modules."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
