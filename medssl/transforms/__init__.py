"""Pipelines from files to tensors and back, shared by training, inference and MONAI Label."""

from medssl.transforms.classification import image_preprocessing
from medssl.transforms.crops import CropDataset, PairedLoader, StepSampler, label_counts
from medssl.transforms.image_augmentation import strong_augmentation, weak_augmentation
from medssl.transforms.image_batches import ImageLoader, OrderedLoader
from medssl.transforms.image_pool import ImagePool
from medssl.transforms.image_views import DATA_DISTILLATION, VIEW_PRESETS, VIEWS, image_views
from medssl.transforms.mixture import Mixture, mixture_for, stage_ends, warm_up
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
from medssl.transforms.volume_store import VolumeStore

__all__ = [
    "DATA_DISTILLATION",
    "VIEWS",
    "VIEW_PRESETS",
    "CropDataset",
    "ImageLoader",
    "ImagePool",
    "Mixture",
    "OrderedLoader",
    "PairedLoader",
    "StepSampler",
    "Targets",
    "VolumeStore",
    "augmentation",
    "crop_preparation",
    "image_preprocessing",
    "image_views",
    "label_counts",
    "labels_from_probabilities",
    "mixture_for",
    "postprocessing",
    "preprocessing",
    "stage_ends",
    "strong_augmentation",
    "to_native_grid",
    "unlabeled_augmentation",
    "unlabeled_preparation",
    "validation_postprocessing",
    "warm_up",
    "weak_augmentation",
]
