"""The card of a classifier: its classes in order, its network, and how an image becomes its input."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medssl.errors import CheckpointError, ConfigError
from medssl.io.cards import carried, carrying, require_same_facts
from medssl.labels import UNKNOWN

if TYPE_CHECKING:
    from torch import Tensor

_CARD = "medssl.classifier"
_FORMAT = 2
_READABLE = (1, 2)


@dataclass
class ClassifierCard:
    """Everything beside the weights that a prediction needs; class names are never derived again.

    Args:
        classes: Names in the order of the network's outputs.
        network: What builds it: ``name``, ``in_channels`` and whatever else `build_classifier` takes.
        size: Pixels of each side of the input.
        channels: 1 for gray, 3 for color.
        interpolation: How images are brought to that size.
        temperature: Scores are divided by it before the softmax.
        fit: How images that are not square become so, see `transforms.classification.image_preprocessing`.
        white: Value of 16-bit images that becomes white; None: each image's own depth.
        extra: What else the run wants to tell: seed, versions, validation scores. JSON values; not compared.
    """

    classes: Sequence[str]
    network: Mapping[str, Any]
    size: int
    channels: int
    interpolation: str
    temperature: float = 1.0
    fit: str = "crop"
    white: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.classes = [str(name) for name in self.classes]
        self.network, self.extra = _plain(self.network, "network"), _plain(self.extra, "extra")
        self.size, self.channels = int(self.size), int(self.channels)
        self.temperature = float(self.temperature)
        if not 2 <= len(set(self.classes)) == len(self.classes) <= UNKNOWN:
            msg = f"The classes of a classifier are {self.classes}; expected 2 to {UNKNOWN} different names."
            raise ConfigError(msg, "Name each class once.")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            msg = f"The temperature of a classifier is {self.temperature}; expected a number above 0."
            raise ConfigError(msg, "Write 1 for scores as they are.")

    @property
    def inputs(self) -> str:
        """What the first layer must fit."""
        return f"{self.channels} channels"

    @property
    def outputs(self) -> Sequence[str]:
        """What the last layer must fit."""
        return self.classes

    def state_dict(self) -> dict[str, str]:
        """Return the card as JSON text, which a weights-only checkpoint may hold."""
        return {"json": json.dumps({"format": _FORMAT, **vars(self)})}

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Check that a saved card fits this one.

        Raises:
            CheckpointError: It describes another classifier.
        """
        self.require_same(_of_state(state), "the checkpoint")

    def attached_to(self, weights: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
        """Return weights on the CPU that carry this card; the file stays a flat state dict."""
        return carrying(weights, _CARD, self.state_dict())

    def require_same(self, other: ClassifierCard, where: str) -> None:
        """Compare another card with this one; temperature and extra may differ.

        Raises:
            CheckpointError: Classes, their order, network or input differ.
        """
        facts = (
            ("list of classes, in this order,", other.classes, self.classes),
            ("network", other.network, self.network),
            ("input size in pixels", other.size, self.size),
            ("number of channels", other.channels, self.channels),
            ("interpolation", other.interpolation, self.interpolation),
            ("way to make images square", other.fit, self.fit),
            ("white of 16-bit images", other.white, self.white),
        )
        require_same_facts(facts, where)


def classifier_card_of(content: Mapping[str, Any]) -> ClassifierCard | None:
    """Return the card that a checkpoint carries, or None where it is no classifier's.

    Raises:
        CheckpointError: The card was written by a newer version.
    """
    state = carried(content, _CARD)
    return None if state is None else _of_state(state)


def _of_state(state: Mapping[str, str]) -> ClassifierCard:
    facts = json.loads(state["json"])
    version = facts.pop("format")
    if version not in _READABLE:
        msg = f"The card of these weights has format {version}; this version of medssl reads {_FORMAT}."
        raise CheckpointError(msg, "Install the version that wrote them, or a newer one.")
    return ClassifierCard(**facts)


def _plain(facts: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return facts as JSON gives them back, so that a card equals the one that was saved."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(facts), allow_nan=False))
    except (TypeError, ValueError) as error:
        msg = f"The {what} of a classifier's card holds what JSON has no name for ({error})."
        raise ConfigError(msg, "Use texts, finite numbers, lists and dictionaries.") from error
    return plain
