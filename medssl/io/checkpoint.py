"""Weights with a card: what they segment, from which contrasts, at which spacing."""

from __future__ import annotations

import json
import logging
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medssl.errors import CheckpointError
from medssl.io.cards import carried, carrying, require_same_facts, weights_of
from medssl.io.classifier_card import ClassifierCard, classifier_card_of
from medssl.labels import LabelTable

__all__ = [
    "ModelCard",
    "card_of",
    "load_weights",
    "read_checkpoint",
    "start_from",
    "temperature_of",
    "weights_of",
]

logger = logging.getLogger(__name__)

_CARD = "medssl.card"

_BACKBONE, _CENTERS, _ALPHA = "backbone.", "head.centers", "head.alpha"


@dataclass
class ModelCard:
    """What must fit before weights are used.

    Args:
        contrasts: BIDS suffixes in channel order.
        labels: Rows of the label table (`LabelTable.rows`), in channel order.
        spacing: Voxel size in mm of the network's space.
        crop_size: Sides in voxels of the crops it was trained on; None where nobody wrote them down. Any may be loaded.
    """

    contrasts: Sequence[str]
    labels: Sequence[Mapping[str, object]]
    spacing: Sequence[float]
    crop_size: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self.contrasts = [str(name) for name in self.contrasts]
        self.labels = [dict(row) for row in self.labels]
        self.spacing = [float(size) for size in self.spacing]
        self.crop_size = None if self.crop_size is None else [int(side) for side in self.crop_size]

    @property
    def table(self) -> LabelTable:
        """The label table of the outputs."""
        return LabelTable.from_rows(self.labels)

    @property
    def inputs(self) -> Sequence[str]:
        """What the first layer must fit."""
        return self.contrasts

    @property
    def outputs(self) -> list[tuple[object, object]]:
        """What the last layer must fit."""
        return _values_and_names(self.labels)

    def state_dict(self) -> dict[str, str]:
        """Return the card as JSON text, which a weights-only checkpoint may hold."""
        return {"json": json.dumps(vars(self))}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Check that a saved card fits this one.

        Raises:
            CheckpointError: It describes another model.
        """
        self.require_same(ModelCard(**json.loads(state["json"])), "the checkpoint")

    def attached_to(self, weights: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
        """Return weights on the CPU that carry this card.

        The file stays a flat state dict, as MONAI's exports and MONAI Label want it: the card travels in
        the metadata that torch keeps beside the entries of every state dict.
        """
        return carrying(weights, _CARD, self.state_dict())

    def require_same(self, other: ModelCard, where: str) -> None:
        """Compare another card with this one.

        Raises:
            CheckpointError: Contrasts, labels or spacing differ.
        """
        facts = (
            ("contrasts", other.contrasts, self.contrasts),
            ("label table", other.outputs, self.outputs),
            ("spacing in mm", other.spacing, self.spacing),
        )
        require_same_facts(facts, where)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that holds plain weights and nothing that runs code.

    Raises:
        CheckpointError: The file is missing, damaged, or a pickle of arbitrary objects.
    """
    if not path.is_file():
        msg = f"{path.name}: no such checkpoint file. Train first, or give a run folder, a bundle or a .pt file."
        raise CheckpointError(msg)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        msg = (
            f"{path.name} is not a file of plain weights: it holds objects that would run code when loaded. "
            f"Expected tensors only (torch.save of a state_dict); export the weights again that way."
        )
        raise CheckpointError(msg) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        msg = f"{path.name} cannot be read as a checkpoint ({_first_line(error)}). It may be cut off; copy it again."
        raise CheckpointError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path.name} holds a {type(content).__name__}; expected a dictionary of weights."
        raise CheckpointError(msg)
    return content


def card_of(content: Mapping[str, Any]) -> ModelCard | None:
    """Return the card that a checkpoint carries, or None where it has none."""
    card = carried(content, _CARD)
    return None if card is None else ModelCard(**json.loads(card["json"]))


def temperature_of(path: Path | str) -> float:
    """Return what the scores of a classifier are divided by before the softmax; 1 where no file or card says so."""
    if not Path(path).is_file():
        return 1.0
    card = classifier_card_of(read_checkpoint(Path(path)))
    return 1.0 if card is None else card.temperature


def load_weights(network: nn.Module, path: Path, card: ModelCard | ClassifierCard | None = None) -> nn.Module:
    """Load weights into a network and return it.

    Args:
        network: Network the weights are for.
        path: Checkpoint, flat or with ``model`` and ``card``.
        card: What the weights must fit; compared where the checkpoint has a card too.

    Raises:
        CheckpointError: Unreadable, of another network, or with another card.
    """
    content = read_checkpoint(path)
    found = None if card is None else _card_of_kind(content, card, path.name)
    if found is not None:
        card.require_same(found, path.name)
    _require_same_parameters(network.state_dict(), weights_of(content), path)
    network.load_state_dict(dict(weights_of(content)))
    return network


def start_from(network: nn.Module, path: str | None, card: ModelCard | ClassifierCard) -> list[str]:
    """Start from given weights, leaving out what does not fit the head of a new label table or list of classes.

    Args:
        network: Network to start; changed in place.
        path: Checkpoint, or None for a random start. A network that ends in a clustering head starts from one
            without, and the other way round; degrees of freedom stay those of the run.
        card: Card of the run that starts.

    Returns:
        Names of the parameters that keep their random start (the head, where it or the label table differs).

    Raises:
        CheckpointError: Another kind of network or other inputs: more than the head would be left out.
    """
    if path is None:
        return []
    network = getattr(network, "module", network)
    content = read_checkpoint(Path(path))
    own = network.state_dict()
    given = _named_as(own, weights_of(content))
    found = _card_of_kind(content, card, Path(path).name)
    other_labels = found is not None and found.outputs != card.outputs
    head = list(own)[-2:] if other_labels else []
    left_out = [
        name
        for name in own
        if name != _ALPHA and (name in head or name not in given or given[name].shape != own[name].shape)
    ]
    if found is not None and found.inputs != card.inputs:
        msg = f"{Path(path).name} was trained on {found.inputs}; this run has {card.inputs}."
        raise CheckpointError(msg)
    other_head = (_CENTERS in own) != (_CENTERS in weights_of(content))
    if len({*left_out} - ({_CENTERS} if other_head else set())) > 2 or len({*own} - {*left_out, _ALPHA}) == 0:
        _require_same_parameters(own, given, Path(path))
    network.load_state_dict(
        {name: given[name] for name in own if name not in (*left_out, _ALPHA)}, strict=False
    )
    if _ALPHA in own and _ALPHA in given and float(own[_ALPHA]) != float(given[_ALPHA]):
        logger.warning("alpha is %g; %s had %g", float(own[_ALPHA]), Path(path).name, float(given[_ALPHA]))
    if left_out:
        logger.warning(
            "Another label table or head: %s start anew, everything else from %s", left_out, Path(path).name
        )
    return left_out


def _named_as(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Give the weights of a backbone with a clustering head the names of one without, or the other way round."""
    if (_CENTERS in own) == (_CENTERS in given):
        return given
    if _CENTERS in own:
        return {_BACKBONE + name: value for name, value in given.items()}
    return {
        name.removeprefix(_BACKBONE): value for name, value in given.items() if name.startswith(_BACKBONE)
    }


def _card_of_kind(content: Mapping[str, Any], card: ModelCard | ClassifierCard, where: str) -> Any:
    """Return the card in a checkpoint, or None; refuse one of another kind than the run's."""
    found = card_of(content) or classifier_card_of(content)
    if found is not None and type(found) is not type(card):
        msg = f"{where} carries a {type(found).__name__}; expected a {type(card).__name__}."
        raise CheckpointError(msg, "Give weights that were trained for the same task.")
    return found


def _require_same_parameters(own: Mapping[str, Tensor], given: Mapping[str, Any], path: Path) -> None:
    missing = [name for name in own if name not in given]
    extra = [name for name in given if name not in own]
    shapes = [
        name for name in own if name in given and getattr(given[name], "shape", None) != own[name].shape
    ]
    if not (missing or extra or shapes):
        return
    first = (missing + shapes + extra)[0]
    detail = (
        f"shape {tuple(given[first].shape)} against {tuple(own[first].shape)}"
        if first in shapes
        else ("missing" if first in missing else "not expected")
    )
    msg = (
        f"{path.name} belongs to another network: {len(missing)} parameters missing, {len(extra)} not expected, "
        f"{len(shapes)} of another shape (first: {first}, {detail}). Give the run or bundle the weights came from."
    )
    raise CheckpointError(msg)


def _values_and_names(rows: Sequence[Mapping[str, object]]) -> list[tuple[object, object]]:
    return [(row["index"], row["name"]) for row in rows]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
