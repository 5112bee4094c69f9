"""Objectives: ``objective(network, batch)`` gives the loss of a step. One algorithm a file."""

from medssl.objectives.defixmatch import DeFixMatch
from medssl.objectives.fixmatch import FixMatch
from medssl.objectives.labeled_only import LabeledOnly
from medssl.objectives.mean_teacher import MeanTeacher
from medssl.objectives.mixmatch import MixMatch
from medssl.objectives.online_pseudo_label import OnlinePseudoLabel
from medssl.objectives.online_ssldec import OnlineSSLDEC
from medssl.objectives.semi_supervised import SemiSupervisedObjective
from medssl.objectives.soft_distillation import SoftDistillation
from medssl.objectives.stored_targets import StoredTargets
from medssl.objectives.supervised import SupervisedLoss

__all__ = [
    "DeFixMatch",
    "FixMatch",
    "LabeledOnly",
    "MeanTeacher",
    "MixMatch",
    "OnlinePseudoLabel",
    "OnlineSSLDEC",
    "SemiSupervisedObjective",
    "SoftDistillation",
    "StoredTargets",
    "SupervisedLoss",
]
