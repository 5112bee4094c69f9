"""Networks: fully convolutional, `(B, C, I, J, K)` in, logits `(B, out_channels, I, J, K)` out."""

from medssl.networks.dense_fcn import DenseFCN
from medssl.networks.fc_densenet import FCDenseNet3D

__all__ = ["DenseFCN", "FCDenseNet3D"]
