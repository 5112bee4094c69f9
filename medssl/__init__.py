"""Semi-supervised learning on medical images: segmentation in 3D, classification in 2D."""

__version__ = "0.1.0"
