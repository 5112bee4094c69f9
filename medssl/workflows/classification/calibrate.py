"""Temperature of a trained classifier: probabilities that mean what they say, fitted on the validation images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medssl.engines.checkpoints import save_atomically
from medssl.evaluation.temperature import fit_temperature
from medssl.io.image_cohort import ImageCohort
from medssl.workflows.classification.models import load_classifier, weights_file
from medssl.workflows.classification.predict import numbers_of, predict_passes

LEAST_IMAGES = 20
"""With fewer validation images the temperature stays 1."""


def calibrate(run: Path, cohort: ImageCohort) -> float:
    """Write the temperature into the card of a run's weights and return it; no answer changes by it.

    Args:
        run: Finished run folder.
        cohort: With the validation images; without `LEAST_IMAGES` of them nothing is done.
    """
    if len(cohort.validation) < LEAST_IMAGES:
        return 1.0
    model = load_classifier(run)
    raw = replace(model, card=replace(model.card, temperature=1.0))
    q = predict_passes(cohort.validation, [raw], ["identity"], each=False).double().clamp_min(1e-12)
    temperature = fit_temperature(numbers_of(cohort.validation, model.card.classes), q.log().numpy())
    card = replace(model.card, temperature=temperature)
    save_atomically(card.attached_to(model.network.state_dict()), weights_file(run))
    return temperature
