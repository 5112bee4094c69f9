"""The labeled scans of a run as one more witness at inference: their registered labels multiply the probabilities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.data import MetaTensor
from torch import Tensor

from medssl.errors import InputError
from medssl.functional.anatomy import log_anatomical_factor
from medssl.functional.clustering import fused_assignment
from medssl.io.cohort import item, read_cohort
from medssl.io.files import read_json
from medssl.labels import LabelTable
from medssl.transforms import preprocessing
from medssl.workflows.atlases import AtlasOptions, register_atlases
from medssl.workflows.provenance import file_hashes

WEIGHT = 0.5
"""Exponent of the prior beside a network."""

NEAREST = 8
"""So many of the most similar labeled scans are used for each scan."""


class AnatomicalFactor:
    r"""Multiply a network's probabilities with where the registered labels of a run expect each class.

    .. math:: p_j \propto q_j \, a_j^w

    Args:
        run: Training run whose labeled scans serve as atlases. They are read from where they lie.
        contrasts: BIDS suffixes in channel order.
        table: The labels of the network.
        spacing: Of the network's space, in mm.
        folder: ``registrations/`` in it keeps every pair.
        weight: w.
        processes: That register at a time; None: as many as there are cores.

    Raises:
        InputError: There is no run, its labeled scans are gone or changed, or their labels are others.
    """

    def __init__(
        self,
        run: Path,
        *,
        contrasts: Sequence[str],
        table: LabelTable,
        spacing: Sequence[float],
        folder: Path,
        weight: float = WEIGHT,
        processes: int | None = None,
    ) -> None:
        self.options = AtlasOptions(nearest=NEAREST, processes=processes)
        self.folder, self.weight, self.labels = folder, weight, len(table)
        if not (run / "run.json").is_file() or not (run / "datalist.json").is_file():
            msg = f"--anatomy {run} is no training run: found no run.json and datalist.json there."
            raise InputError(
                msg, "Give the folder that 'medssl train' wrote; the packaged weights have no atlases."
            )
        cohort = read_cohort(run, tuple(contrasts))
        if cohort.table.rows() != table.rows():
            msg = f"The labels of {run} are {cohort.table.describe()}; the model's are {table.describe()}."
            raise InputError(msg, "Give the run that the model comes from.")
        told = read_json(run / "run.json")["data_sha256"]
        missing = [
            path
            for one in cohort.training
            for path in (*one.images, one.label)
            if not Path(str(path)).is_file()
        ]
        if missing or not cohort.training:
            what = f"the labeled scan {missing[0]} is not there" if missing else "it lists no labeled scan"
            msg = f"--anatomy {run}: {what}."
            raise InputError(msg, "Put the scans back where the run was trained, or leave --anatomy out.")
        hashes = file_hashes(cohort.training, run)
        changed = [name for name, value in hashes.items() if told.get(name) != value]
        if changed:
            msg = f"--anatomy {run}: {changed[0]} is not the file that the run was trained on."
            raise InputError(msg, "Put the file back as it was, or train again.")
        prepare = preprocessing(table=table, spacing=spacing)
        resample = bool(
            yaml.safe_load((run / "configs" / "train.yaml").read_text(encoding="utf-8"))["resample"]
        )
        self.atlases = [
            prepare({**item(one), "resample": resample and len(one.images) > 1}) for one in cohort.training
        ]
        self.digest = hashlib.sha256("".join(sorted(hashes.values())).encode()).hexdigest()

    def __call__(self, q: Tensor, sample: Any) -> Tensor:
        """Return the probabilities with the factor.

        Args:
            q: The network's.
            sample: Preprocessed scan: ``subject``, ``image`` with its affine, ``mask``.

        Shapes:
            q, return: ``(K, I, J, K)``
        """
        bounds = _bounds(sample["mask"])
        part = {"subject": str(sample["subject"])} | {
            name: _cut(sample[name], bounds) for name in ("image", "mask")
        }
        found = register_atlases(self.atlases, [part], self.folder, classes=self.labels, options=self.options)
        prior = torch.as_tensor(found.prior(part["subject"]))[None]
        inside = (slice(None), *bounds)
        fused = q.clone()
        log_q = q[inside].clamp_min(torch.finfo(q.dtype).tiny).log()[None]
        fused[inside] = fused_assignment(log_q, log_anatomical_factor(prior, self.weight))[0].exp()
        return fused


def _bounds(mask: Tensor) -> tuple[slice, ...]:
    """Return the box of the mask: nothing outside of it is registered."""
    places = np.argwhere(np.asarray(mask)[0] > 0.5)
    return tuple(
        slice(int(low), int(high) + 1) for low, high in zip(places.min(0), places.max(0), strict=True)
    )


def _cut(volume: Any, bounds: tuple[slice, ...]) -> MetaTensor:
    """Cut a box out; the affine goes along."""
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = torch.tensor([float(bound.start) for bound in bounds], dtype=torch.float64)
    affine = torch.as_tensor(volume.affine, dtype=torch.float64) @ shift
    return MetaTensor(volume.as_tensor()[(slice(None), *bounds)], affine=affine)
