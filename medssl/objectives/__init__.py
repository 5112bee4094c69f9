"""Objectives: ``objective(network, batch)`` gives the loss of a step. One algorithm a file."""

from medssl.objectives.labeled_only import LabeledOnly
from medssl.objectives.mean_teacher import MeanTeacher
from medssl.objectives.online_pseudo_label import OnlinePseudoLabel
from medssl.objectives.online_ssldec import OnlineSSLDEC
from medssl.objectives.semi_supervised import SemiSupervisedObjective
from medssl.objectives.stored_targets import StoredTargets
from medssl.objectives.supervised import SupervisedLoss

__all__ = [
    "LabeledOnly",
    "MeanTeacher",
    "OnlinePseudoLabel",
    "OnlineSSLDEC",
    "SemiSupervisedObjective",
    "StoredTargets",
    "SupervisedLoss",
]
