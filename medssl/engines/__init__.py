"""What MONAI's trainers lack: checkpoints that survive a kill, a clean Ctrl-C, a metrics table."""

from typing import TypeVar

from medssl.engines.calibration import Calibration
from medssl.engines.center_start import CenterStart
from medssl.engines.checkpoints import BestModelSaver, RandomState, ResumePoint, is_distributed, torch_rank
from medssl.engines.freed_memory import KeepFreedMemory, give_back_memory
from medssl.engines.interruption import Interruption, TrainingInterrupted
from medssl.engines.macro_f1 import MacroF1
from medssl.engines.metrics_table import MetricsTable
from medssl.engines.optimization import GradientClipping, linear_decay, one_cycle
from medssl.engines.teacher import Teacher
from medssl.engines.trainer import SemiSupervisedTrainer
from medssl.engines.validation import EarlyStopping, Validation, scores_and_labels
from medssl.engines.watching import PartsToTensorBoard, VanishingClasses

T = TypeVar("T")


def defined_above(handler: T) -> T:
    """Return a handler that a configuration defines elsewhere.

    MONAI and MONAI Label want every entry of ``train#handlers`` to be a mapping, so that a plain reference
    would not do.
    """
    return handler


__all__ = [
    "BestModelSaver",
    "Calibration",
    "CenterStart",
    "EarlyStopping",
    "GradientClipping",
    "Interruption",
    "KeepFreedMemory",
    "MacroF1",
    "MetricsTable",
    "PartsToTensorBoard",
    "RandomState",
    "ResumePoint",
    "SemiSupervisedTrainer",
    "Teacher",
    "TrainingInterrupted",
    "Validation",
    "VanishingClasses",
    "defined_above",
    "give_back_memory",
    "is_distributed",
    "linear_decay",
    "one_cycle",
    "scores_and_labels",
    "torch_rank",
]
