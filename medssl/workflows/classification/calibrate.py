"""Temperature of a trained classifier: probabilities that mean what they say, fitted on the validation images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl.engines.checkpoints import save_atomically
from medssl.evaluation.classification import scores
from medssl.evaluation.temperature import BOUNDS, fit_temperature
from medssl.io.image_items import ImageItem
from medssl.workflows.classification.card_facts import card_facts, finite
from medssl.workflows.classification.models import ImageModel, load_classifier, weights_file
from medssl.workflows.classification.predict import numbers_of, predict_items

LEAST_IMAGES = 20
"""With fewer validation images the temperature stays 1."""


def calibrate(
    run: Path, validation: Sequence[ImageItem], record: Mapping[str, Any], device: str = "cpu"
) -> float:
    """Write the temperature, and what made the weights, into their card; return the former. No answer changes by it.

    Targets and pseudo-labels are made without it: they shall know nothing of the validation labels, unless that is
    asked for (`calibrated`).

    Args:
        run: Trained run folder.
        validation: Labeled images. With fewer than `LEAST_IMAGES`, or where the likelihood has no maximum within
            bounds (no answer is wrong, say), the temperature stays 1.
        record: What ``run.json`` holds.
        device: Where the network runs.
    """
    model = load_classifier(run, device)
    told = card_facts(run, record, model.network)
    temperature = 1.0
    if validation:
        q = predict_items(validation, [model.uncalibrated()]).probabilities
        labels = numbers_of(validation, model.card.classes)
        told["validation"] = {
            "images": len(labels),
            **scores(labels, q, model.card.classes, draws=0).measures,
        }
        temperature = _temperature(labels, q)
    card = replace(model.card, temperature=temperature, extra=finite(told))
    save_atomically(card.attached_to(model.network.state_dict()), weights_file(run))
    return temperature


def calibrated(model: ImageModel, validation: Sequence[ImageItem]) -> ImageModel:
    """Return a model at the temperature that `calibrate` would write into its card; nothing is written."""
    q = predict_items(validation, [model.uncalibrated()]).probabilities
    return model.at_temperature(_temperature(numbers_of(validation, model.card.classes), q))


def _temperature(labels: NDArray[np.int64], q: NDArray[np.float64]) -> float:
    if len(labels) < LEAST_IMAGES:
        return 1.0
    temperature = fit_temperature(labels, np.log(q.clip(1e-12)))
    return temperature if 1.5 * BOUNDS[0] < temperature < BOUNDS[1] / 1.5 else 1.0
