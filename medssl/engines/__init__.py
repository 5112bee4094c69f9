"""What MONAI's trainers lack: checkpoints that survive a kill, a clean Ctrl-C, a metrics table."""

from medssl.engines.checkpoints import BestModelSaver, RandomState, ResumePoint
from medssl.engines.interruption import Interruption, TrainingInterrupted
from medssl.engines.metrics_table import MetricsTable
from medssl.engines.optimization import GradientClipping, linear_decay
from medssl.engines.validation import EarlyStopping, Validation

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
    "linear_decay",
]
