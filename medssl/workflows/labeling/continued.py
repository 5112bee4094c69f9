"""Going on from a model: the options of a training whose network is that of given weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medssl.errors import CheckpointError
from medssl.workflows.models import find_weights, read_config
from medssl.workflows.train import NETWORKS

_CLUSTERED = "medssl.networks.ClusteringNetwork"
_FROM_DATA = ("_target_", "in_channels", "out_channels")
"""Arguments of a network that follow from the contrasts and labels of a run."""


def network_options(model: Path | None) -> dict[str, Any]:
    """Return ``init``, ``network``, ``clustering_head`` and ``settings`` of `TrainOptions` that fit some weights.

    Args:
        model: Run, bundle or file of weights; None for the packaged bundle.

    Raises:
        CheckpointError: The network is none that `medssl train` makes.
        MedsslError: There is no such model.
    """
    bundle, weights = find_weights(model)
    network = dict(read_config(bundle / "configs" / "inference.yaml", {}).config["network_def"])
    clustered = network.get("_target_") == _CLUSTERED
    backbone = dict(network["backbone"]) if clustered else network
    name = next((name for name, one in NETWORKS.items() if one["_target_"] == backbone["_target_"]), None)
    if name is None:
        msg = f"The network of {weights.name} is {backbone['_target_']}, which medssl train does not make."
        raise CheckpointError(
            msg, f"Start from scratch (pretrained off), or from one of {', '.join(NETWORKS)}."
        )
    known = {**NETWORKS[name]}
    settings = {
        f"network_def#{key}": value
        for key, value in backbone.items()
        if key not in _FROM_DATA and known.get(key) != value
    }
    if clustered and "alpha" in network:
        settings["network_def#alpha"] = network["alpha"]
    return {"init": str(weights), "network": name, "clustering_head": clustered, "settings": settings}
