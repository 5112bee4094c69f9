"""Pipelines from files to tensors and back, shared by training, inference and MONAI Label."""

from medssl.transforms.crops import CropDataset, StepSampler
from medssl.transforms.segmentation import (
    augmentation,
    crop_preparation,
    labels_from_probabilities,
    postprocessing,
    preprocessing,
    to_native_grid,
    validation_postprocessing,
)

__all__ = [
    "CropDataset",
    "StepSampler",
    "augmentation",
    "crop_preparation",
    "labels_from_probabilities",
    "postprocessing",
    "preprocessing",
    "to_native_grid",
    "validation_postprocessing",
]
