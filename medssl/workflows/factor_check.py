"""Whether registered labels help at inference too, asked of the held-out labeled scans of a checked training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from medssl.evaluation.verdict import in_points, is_gain
from medssl.io.files import read_json
from medssl.io.subjects import Subject
from medssl.workflows.anatomical_factor import AnatomicalFactor
from medssl.workflows.atlases import Progress
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
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a network on held-out scans with the registered labels of its own labeled scans as a factor.

    Args:
        run: A finished run that did not see the held-out scans; its labeled scans are the atlases.
        held_out: Labeled scans.
        without: Scan -> mean Dice of the network alone.
        folder: ``registrations/`` in it keeps every pair.
        resample: Bring other contrasts to the first one's grid by their headers.
        processes: That register at a time; None: as many as there are cores.
        progress: Told about the registrations of each held-out scan.

    Returns:
        For the run's record: ``network``, the run that was scored; ``weight``; ``difference`` in mean Dice, None where
        no scan could be scored; ``dice`` of each scan with and without; ``sentence``. A scan over which no
        labeled one could be laid is left out, and stands under ``without_registration``.

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
    asked = _Asked(factor, progress)
    found = mean_over_labels(dice_of_run(run, held_out, asked, resample=resample), held_out)
    informed = {
        scan: dice for (scan, dice), known in zip(found.items(), asked.informed, strict=True) if known
    }
    differences = np.array([dice - without[scan] for scan, dice in informed.items()])
    differences = differences[~np.isnan(differences)]
    left_out = [scan for scan in found if scan not in informed]
    return {
        "network": run.name,
        "weight": factor.weight,
        "difference": float(differences.mean()) if len(differences) else None,
        "dice": {scan: {"without": without[scan], "with": dice} for scan, dice in informed.items()},
        **({"without_registration": left_out} if left_out else {}),
        "sentence": _sentence(differences),
    }


def gains_at_inference(run: Path) -> bool:
    """Tell whether a training found registered labels to be worth it at inference."""
    told = read_json(run / "run.json").get("anatomy_at_inference", {})
    return told.get("difference") is not None and is_gain(told["difference"])


@dataclass
class _Asked:
    """The factor, which notes of each scan whether any labeled one had a say."""

    factor: AnatomicalFactor
    progress: Progress | None
    informed: list[bool] = field(default_factory=list)

    def __call__(self, q: Tensor, sample: Any, _: Progress | None = None) -> Tensor:
        """Return the probabilities with the factor."""
        found = self.factor.prior.laid_over(sample, self.progress)
        self.informed.append(bool(found.atlases))
        return self.factor.fused(q, found)


def _sentence(differences: NDArray[np.float64]) -> str:
    """Say what it is worth."""
    how = "Registered labels as a factor at inference, too (medssl segment --anatomy RUN)"
    if not len(differences):
        return f"{how}: no held-out labeled scan could be scored."
    mean, points = in_points(differences)
    return f"{how}: {points}; {'worth registering for' if is_gain(mean) else 'leave it out'}."
