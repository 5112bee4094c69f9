"""The labeled scans of a run as one more witness at inference: their registered labels multiply the probabilities."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from medssl.errors import InputError
from medssl.evaluation.verdict import is_gain
from medssl.functional.anatomy import log_anatomical_factor
from medssl.functional.clustering import fused_assignment
from medssl.io.cohort import read_cohort
from medssl.io.files import read_json
from medssl.labels import LabelTable
from medssl.workflows.atlases import Progress
from medssl.workflows.provenance import file_hashes
from medssl.workflows.registered_prior import (
    LaidOver,
    RegisteredPrior,
    anatomy_defaults,
    prepared_with_labels,
)

logger = logging.getLogger(__name__)


Factor = Callable[[Tensor, Any, Progress | None], Tensor]
"""Maps probabilities and a preprocessed scan to probabilities; the last argument is told about registrations."""


class AnatomicalFactor:
    r"""Multiply a network's probabilities with where the registered labels of a run expect each class.

    .. math:: p_j \propto q_j \, a_j^w

    Args:
        run: Training run whose labeled scans serve as atlases. They are read from where they lie.
        contrasts: BIDS suffixes in channel order.
        table: The labels of the network.
        spacing: Of the network's space, in mm.
        folder: ``registrations/`` in it keeps every pair.
        weight: w; None for the one that training starts from.
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
        weight: float | None = None,
        processes: int | None = None,
    ) -> None:
        self.weight = float(anatomy_defaults()["anatomy_weight"]) if weight is None else weight
        if not (run / "run.json").is_file() or not (run / "datalist.json").is_file():
            msg = f"--anatomy {run} is no training run: found no run.json and datalist.json there."
            raise InputError(
                msg, "Give the folder that 'medssl train' wrote; the packaged weights have no atlases."
            )
        record = read_json(run / "run.json")
        _tell_if_useless(record, run, self.weight)
        lacking = [name for name in contrasts if name not in record.get("contrasts", contrasts)]
        if lacking:
            msg = f"--anatomy {run}: its labeled scans were used with {', '.join(record['contrasts'])}; the model "
            msg += f"looks at {', '.join(contrasts)}, so {', '.join(lacking)} cannot be compared."
            raise InputError(msg, "Give the run that the model comes from, or leave --anatomy out.")
        cohort = read_cohort(run, tuple(contrasts))
        if cohort.table.rows() != table.rows():
            msg = f"The labels of {run} are {cohort.table.describe()}; the model's are {table.describe()}."
            raise InputError(msg, "Give the run that the model comes from.")
        told = record["data_sha256"]
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
        config = yaml.safe_load((run / "configs" / "train.yaml").read_text(encoding="utf-8"))
        labeled = prepared_with_labels(cohort.training, table, spacing, bool(config["resample"]))
        self.prior = RegisteredPrior(labeled, len(table), folder, processes)
        self.digest = hashlib.sha256("".join(sorted(hashes.values())).encode()).hexdigest()

    def __call__(self, q: Tensor, sample: Any, progress: Progress | None = None) -> Tensor:
        """Return the probabilities with the factor.

        Args:
            q: The network's.
            sample: Preprocessed scan: ``subject``, ``image`` with its affine, ``mask``.
            progress: Told about each labeled scan that is registered.

        Shapes:
            q, return: ``(K, I, J, K)``
        """
        return self.fused(q, self.prior.laid_over(sample, progress))

    def fused(self, q: Tensor, found: LaidOver) -> Tensor:
        """Return the probabilities with what the registered labels say in a box of the scan.

        Args:
            q: The network's.
            found: What was laid over the scan.

        Shapes:
            q, return: ``(K, I, J, K)``
        """
        inside = (slice(None), *found.bounds)
        fused = q.clone()
        log_q = q[inside].clamp_min(torch.finfo(q.dtype).tiny).log()[None]
        factor = log_anatomical_factor(found.prior[None], self.weight)
        fused[inside] = fused_assignment(log_q, factor)[0].exp()
        return fused

    def noting(self) -> Noted:
        """Return the factor for one scan, to be asked afterwards who had a say."""
        return Noted(self)

    def told(self, found: LaidOver) -> dict[str, Any]:
        """Return what is put on record of one scan; where no labeled scan had a say, the weight is 0.

        Args:
            found: What was laid over the scan.
        """
        return {
            "Weight": self.weight if found.atlases else 0.0,
            "LabeledScans": list(found.atlases),
            "Registered": f"{found.registered} of {found.pairs}",
            "LabeledScansSHA256": self.digest,
            **({"ShortOfMemory": list(found.short_of_memory)} if found.short_of_memory else {}),
        }

    def has_told(self, record: Mapping[str, Any]) -> bool:
        """Tell whether a record is of these labeled scans, none left out for want of memory, and this weight.

        Args:
            record: As `told` returns it.
        """
        weight = self.weight if record["LabeledScans"] else 0.0
        same = record["LabeledScansSHA256"] == self.digest and record["Weight"] == weight
        return bool(same and "ShortOfMemory" not in record)


@dataclass
class Noted:
    """The factor for one scan; it notes what is put on record of it.

    Args:
        factor: What multiplies.
        told: What was noted; empty as long as the factor was not called.
    """

    factor: AnatomicalFactor
    told: dict[str, Any] = field(default_factory=dict)

    def __call__(self, q: Tensor, sample: Any, progress: Progress | None = None) -> Tensor:
        """Return the probabilities with the factor, as `AnatomicalFactor` does."""
        found = self.factor.prior.laid_over(sample, progress)
        self.told = self.factor.told(found)
        return self.factor.fused(q, found)


def _tell_if_useless(record: Mapping[str, Any], run: Path, weight: float) -> None:
    """Say so where the run itself found registered labels to be of no use."""
    if record.get("anatomy_weight", {}).get("weight") == 0:
        logger.warning(
            "In %s registered labels made the truth of held-out scans no likelier (w = 0); here w is %g.",
            run.name,
            weight,
        )
    factor = record.get("anatomy_at_inference", {})
    if factor.get("difference") is not None and not is_gain(factor["difference"]):
        logger.warning("In %s: %s", run.name, factor["sentence"])
