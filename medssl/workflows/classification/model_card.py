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
from medssl.reporting.model_card import Origin, model_card
from medssl.workflows.classification.card_facts import command_without_folders
from medssl.workflows.classification.given_weights import INIT_FILE
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import numbers_of, predict_items

FILE_NAME = "MODEL_CARD.md"


def write_model_card(
    run: Path,
    record: Mapping[str, Any],
    origin: Origin,
    validation: Sequence[ImageItem],
    *,
    sentence: str = "",
    device: str = "cpu",
) -> None:
    """Write ``MODEL_CARD.md`` into a run folder.

    Args:
        run: Folder with the weights.
        record: What ``run.json`` holds.
        origin: What the network was made with.
        validation: Labeled images that are scored; with none the card says that nothing is known.
        sentence: Whether the unlabeled images helped.
        device: Where the network runs.
    """
    model = load_classifier(run, device)
    found = None
    if validation:
        probabilities = predict_items(validation, [model]).probabilities
        labels = numbers_of(validation, model.card.classes)
        found = scores(labels, probabilities, model.card.classes).record()
    text = model_card(
        {
            **record,
            "method": _spoken_method(record),
            "command": command_without_folders(str(record["command"])),
        },
        asdict(network_facts(str(record["network"]))),
        origin,
        parameters=sum(weight.numel() for weight in model.network.parameters()),
        temperature=model.card.temperature,
        scores=found,
        sentence=sentence,
    )
    write_text(run / FILE_NAME, text)


def _spoken_method(record: Mapping[str, Any]) -> str:
    """Say how a network was trained, of a student and of rounds the rest too."""
    said = [str(record["method"])]
    if rounds := record.get("rounds"):
        said.append(f"{rounds} round{'s' * (rounds > 1)}")
    if "targets" in record:
        said.append(f"{record['targets']} targets")
    return ", ".join(said)


def started_from(network: str, values: Mapping[str, Any]) -> str:
    """Say which weights a training began with.

    Args:
        network: Name in the registry.
        values: ``pretrained`` and ``init_weights``, as in a configuration or in settings.
    """
    if _given_weights(values):
        return "the given weights; their license is not known here"
    pretrained = values.get("pretrained")
    if pretrained == "cached":
        return f"published weights, license {network_facts(network).license}"
    return (
        f"the file {Path(pretrained).name}; its license is not known here" if pretrained else "random weights"
    )


def license_warning(network: str, values: Mapping[str, Any]) -> str:
    """Warn of published weights whose license is no free one; empty where a training does not begin with such.

    Args:
        network: Name in the registry.
        values: As in `started_from`.
    """
    facts = network_facts(network)
    pretrained = values.get("pretrained")
    given = _given_weights(values)
    if facts.license_is_free or not (pretrained or given):
        return ""
    begin = f"The published weights of {facts.name}" + (
        "" if pretrained == "cached" and not given else ", if it began with those,"
    )
    return (
        f"{begin} are under {facts.license}, which allows less than the usual free licenses: read it before this "
        "model is used or passed on."
    )


def _given_weights(values: Mapping[str, Any]) -> bool:
    """Tell whether somebody gave weights to begin with; a round's own network (`INIT_FILE`) is none of them."""
    return bool(values.get("init_weights")) and not str(values["init_weights"]).endswith(f"/{INIT_FILE}'")
