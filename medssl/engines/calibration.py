"""Whether a network is as sure as it is right, at every validation."""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from monai.utils import convert_to_tensor
from torch import Tensor

from medssl.functional.calibration import calibration_error_of, calibration_gaps
from medssl.labels import UNKNOWN

METRIC = "val_calibration_error"
"""Name under which the evaluator's state holds it."""


class Calibration:
    """Add the calibration error over the known voxels of the held-out scans to an evaluator's metrics.

    Looks at the scores before post-processing makes labels of them. A bin is added up voxel by voxel, so nothing of the
    size of a scan is kept. Every process sees all held-out scans.

    Args:
        first: Number of the first label that counts: 1 where background lies outside the mask and has no score.
    """

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self._gaps: Tensor | None = None
        self._voxels = 0

    def attach(self, engine: Engine) -> None:
        """Register the events of the evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._reset)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._tell)

    def _reset(self, engine: Engine) -> None:
        self._gaps, self._voxels = None, 0

    @torch.no_grad()
    def _collect(self, engine: Engine) -> None:
        scores, label = (_plain(engine.state.output[key]) for key in ("pred", "label"))
        label = label[:, 0]
        known = (label != UNKNOWN) & (label >= self.first)
        if "mask" in engine.state.batch:
            known &= _plain(engine.state.batch["mask"])[:, 0].to(label.device) > 0.5
        confidence, found = scores[:, self.first :].float().softmax(1).max(1)
        correct = (found + self.first == label)[known]
        gaps = calibration_gaps(confidence[known], correct).cpu()
        self._gaps = gaps if self._gaps is None else self._gaps + gaps
        self._voxels += len(correct)

    def _tell(self, engine: Engine) -> None:
        if self._gaps is not None:
            engine.state.metrics[METRIC] = calibration_error_of(self._gaps, self._voxels)


def _plain(values: Tensor) -> Tensor:
    """Return a tensor without MONAI's metadata."""
    found: Tensor = convert_to_tensor(values, track_meta=False)
    return found
