"""Merging the branches of networks that are trained wider than they run."""

from __future__ import annotations

import copy

from torch import nn

from medssl.networks.compact.classifier import classifier_of
from medssl.networks.torchvision_compat import import_timm


def reparameterized(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, its branches merged where the backbone has such: the same function.

    Args:
        network: A `Classifier`, or a network that holds one; it is left as it is.
    """
    still = copy.deepcopy(network).eval()
    classifier = classifier_of(still)
    if classifier.facts.reparameterize:
        classifier.backbone = import_timm().utils.reparameterize_model(classifier.backbone)
    return still
