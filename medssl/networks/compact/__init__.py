"""Compact networks for images: `(B, C, H, W)` in [0, 1] in, scores `(B, out_channels)` out."""

from medssl.networks.compact.building import build_classifier
from medssl.networks.compact.classifier import Classifier, classifier_of, freeze_backbone
from medssl.networks.compact.cost import multiply_adds, parameter_count
from medssl.networks.compact.depth_groups import depth_groups
from medssl.networks.compact.facts import NetworkFacts
from medssl.networks.compact.registry import ALIASES, NETWORKS, network_facts
from medssl.networks.compact.reparameterization import reparameterized
from medssl.networks.compact.small_vgg import SmallVGG
from medssl.networks.compact.weights import WeightSource, weights_to_fetch

__all__ = [
    "ALIASES",
    "NETWORKS",
    "Classifier",
    "NetworkFacts",
    "SmallVGG",
    "WeightSource",
    "build_classifier",
    "classifier_of",
    "depth_groups",
    "freeze_backbone",
    "multiply_adds",
    "network_facts",
    "parameter_count",
    "reparameterized",
    "weights_to_fetch",
]
