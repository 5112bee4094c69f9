"""Temperature of a trained classifier: probabilities that mean what they say, fitted on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medssl.engines.checkpoints import save_atomically
from medssl.evaluation.temperature import BOUNDS, fit_temperature
from medssl.io.image_items import ImageItem
from medssl.workflows.classification.models import load_classifier, weights_file
from medssl.workflows.classification.predict import numbers_of, predict_passes

LEAST_IMAGES = 20
"""With fewer validation images the temperature stays 1."""


def calibrate(run: Path, validation: Sequence[ImageItem], device: str = "cpu") -> float:
    """Write the temperature into the card of a run's weights and return it; no answer changes by it.

    Targets and pseudo-labels are made without it: they shall know nothing of the validation labels.

    Args:
        run: Finished run folder.
        validation: Labeled images. With fewer than `LEAST_IMAGES`, or where the likelihood has no maximum within
            bounds (no answer is wrong, say), the temperature stays 1.
        device: Where the network runs.
    """
    if len(validation) < LEAST_IMAGES:
        return 1.0
    model = load_classifier(run, device)
    raw = model.uncalibrated()
    q = predict_passes(validation, [raw], ["identity"], each=False).double().clamp_min(1e-12)
    temperature = fit_temperature(numbers_of(validation, model.card.classes), q.log().numpy())
    if not 1.5 * BOUNDS[0] < temperature < BOUNDS[1] / 1.5:
        return 1.0
    card = replace(model.card, temperature=temperature)
    save_atomically(card.attached_to(model.network.state_dict()), weights_file(run))
    return temperature
