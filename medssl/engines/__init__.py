"""What MONAI's trainers lack: checkpoints that survive a kill, a clean Ctrl-C, a metrics table."""

from typing import TypeVar

from medssl.engines.checkpoints import BestModelSaver, RandomState, ResumePoint
from medssl.engines.interruption import Interruption, TrainingInterrupted
from medssl.engines.metrics_table import MetricsTable
from medssl.engines.optimization import GradientClipping, linear_decay
from medssl.engines.validation import EarlyStopping, Validation

T = TypeVar("T")


def defined_above(handler: T) -> T:
    """Return a handler that a configuration defines elsewhere.

    MONAI and MONAI Label want every entry of ``train#handlers`` to be a mapping, so that a plain reference
    would not do.
    """
    return handler


__all__ = [
    "BestModelSaver",
    "EarlyStopping",
    "GradientClipping",
    "Interruption",
    "MetricsTable",
    "RandomState",
    "ResumePoint",
    "TrainingInterrupted",
    "Validation",
    "defined_above",
    "linear_decay",
]
