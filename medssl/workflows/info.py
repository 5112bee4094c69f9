"""What is installed, what the machine offers, what a run costs, what a model is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from medssl.cores import cores
from medssl.inference.machine import library_versions, processor
from medssl.inference.memory import available_memory
from medssl.io.checkpoint import card_of, read_checkpoint
from medssl.io.files import read_json, sha256
from medssl.workflows.budgets import BUDGETS
from medssl.workflows.models import find_weights
from medssl.workflows.provenance import versions


def info(model: Path | str | None = None) -> dict[str, Any]:
    """Collect facts about the installation, the machine and one model.

    Args:
        model: As in `medssl.workflows.segment.segment`.

    Raises:
        InputError: There is no such model.
        CheckpointError: It cannot be read.
    """
    bundle, weights = find_weights(model)
    meta = read_json(bundle / "configs" / "metadata.json")
    card = card_of(read_checkpoint(weights))
    devices = ["cpu", *(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))]
    return {
        "versions": versions(),
        "devices": devices,
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "free_memory_gib": round(available_memory() / 2**30, 1),
        "backends": library_versions(),
        "budgets": {name: asdict(budget) for name, budget in BUDGETS.items()},
        "model": {
            "name": meta.get("name"),
            "version": meta.get("version"),
            "trained_on": meta.get("data_source"),
            "intended_use": meta.get("intended_use"),
            "contrasts": card.contrasts if card else None,
            "labels": card.table.describe() if card else None,
            "spacing_mm": card.spacing if card else None,
            "weights_sha256": sha256(weights),
            "weights_mb": round(weights.stat().st_size / 1e6, 1),
        },
    }
