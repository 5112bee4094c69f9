"""The model card of a run of images, written when its training ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medssl.evaluation.classification import scores
from medssl.io.files import write_text
from medssl.io.image_items import ImageItem
from medssl.networks.compact import network_facts
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import numbers_of, predict_items

FILE_NAME = "MODEL_CARD.md"


def write_model_card(
    run: Path,
    record: Mapping[str, Any],
    validation: Sequence[ImageItem],
    *,
    sentence: str = "",
    taught: int = 0,
    device: str = "cpu",
) -> None:
    """Write ``MODEL_CARD.md`` into a run folder.

    Args:
        run: Folder with the weights.
        record: What ``run.json`` holds.
        validation: Labeled images that are scored; with none the card says that nothing is known.
        sentence: Whether the unlabeled images helped.
        taught: How many of the training images were labeled by teachers.
        device: Where the network runs.
    """
    from medssl.reporting.model_card import model_card  # noqa: PLC0415 (brings matplotlib along)

    model = load_classifier(run, device)
    found = None
    if validation:
        probabilities = predict_items(validation, [model]).probabilities
        labels = numbers_of(validation, model.card.classes)
        found = scores(labels, probabilities, model.card.classes).record()
    text = model_card(
        record,
        asdict(network_facts(str(record["network"]))),
        parameters=sum(weight.numel() for weight in model.network.parameters()),
        temperature=model.card.temperature,
        scores=found,
        sentence=sentence,
        taught=taught,
    )
    write_text(run / FILE_NAME, text)
