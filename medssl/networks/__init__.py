"""Networks: fully convolutional, `(B, C, I, J, K)` in, logits `(B, out_channels, I, J, K)` out."""

from medssl.networks.clustering_head import ClusteringNetwork, parameter_groups
from medssl.networks.dense_fcn import DenseFCN
from medssl.networks.fc_densenet import FCDenseNet3D
from medssl.networks.initialization import reinitialize

__all__ = ["ClusteringNetwork", "DenseFCN", "FCDenseNet3D", "parameter_groups", "reinitialize"]
