"""Pipelines from files to tensors and back, shared by training, inference and MONAI Label."""

from medssl.transforms.crops import CropDataset, PairedLoader, StepSampler, label_counts
from medssl.transforms.mixture import Mixture, mixture_for, stage_ends
from medssl.transforms.segmentation import (
    augmentation,
    crop_preparation,
    labels_from_probabilities,
    postprocessing,
    preprocessing,
    to_native_grid,
    unlabeled_augmentation,
    unlabeled_preparation,
    validation_postprocessing,
)
from medssl.transforms.targets import Targets

__all__ = [
    "CropDataset",
    "Mixture",
    "PairedLoader",
    "StepSampler",
    "Targets",
    "augmentation",
    "crop_preparation",
    "label_counts",
    "labels_from_probabilities",
    "mixture_for",
    "postprocessing",
    "preprocessing",
    "stage_ends",
    "to_native_grid",
    "unlabeled_augmentation",
    "unlabeled_preparation",
    "validation_postprocessing",
]
