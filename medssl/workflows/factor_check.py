"""Whether registered labels help at inference too, asked of the held-out labeled scans of a checked training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medssl.evaluation.verdict import MARGIN
from medssl.io.subjects import Subject
from medssl.workflows.anatomical_factor import AnatomicalFactor
from medssl.workflows.models import load_model
from medssl.workflows.study import dice_of_run, mean_over_labels


def check_factor(
    run: Path,
    held_out: tuple[Subject, ...],
    without: Mapping[str, float],
    folder: Path,
    *,
    resample: bool = False,
    processes: int | None = None,
) -> dict[str, Any]:
    """Score a network on held-out scans with the registered labels of its own labeled scans as a factor.

    Args:
        run: A finished run that did not see the held-out scans; its labeled scans are the atlases.
        held_out: Labeled scans.
        without: Scan -> mean Dice of the network alone.
        folder: ``registrations/`` in it keeps every pair.
        resample: Bring other contrasts to the first one's grid by their headers.
        processes: That register at a time; None: as many as there are cores.

    Returns:
        For the run's record: ``weight``, ``difference`` in mean Dice (None where no scan could be scored), ``dice`` of
        each scan with and without, ``sentence``.

    Raises:
        InputError: The labeled scans are gone or changed.
    """
    model = load_model(run)
    factor = AnatomicalFactor(
        run,
        contrasts=model.contrasts,
        table=model.table,
        spacing=model.spacing,
        folder=folder,
        processes=processes,
    )
    found = mean_over_labels(dice_of_run(run, held_out, factor, resample=resample), held_out)
    differences = np.array([found[scan] - without[scan] for scan in found])
    differences = differences[~np.isnan(differences)]
    return {
        "weight": factor.weight,
        "difference": float(differences.mean()) if len(differences) else None,
        "dice": {scan: {"without": without[scan], "with": dice} for scan, dice in found.items()},
        "sentence": _sentence(differences),
    }


def _sentence(differences: np.ndarray) -> str:
    """Say what it is worth."""
    how = "Registered labels as a factor at inference, too (medssl segment --anatomy RUN)"
    if not len(differences):
        return f"{how}: no held-out labeled scan could be scored."
    scans = f"{len(differences)} held-out labeled scan{'s' if len(differences) > 1 else ''}"
    mean = round(float(differences.mean()), 9)
    points = f"{100 * mean:+.1f} Dice points in the mean of {scans}, better on {int((differences > 0).sum())}"
    advice = "worth the time of registering" if mean >= MARGIN else "leave it out"
    return f"{how}: {points}; {advice}."
