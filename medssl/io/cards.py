"""What cards of every kind share: they travel in the metadata of the weights, and compare fact by fact."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from medssl.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


def carrying(weights: Mapping[str, Tensor], key: str, card: Mapping[str, str]) -> OrderedDict[str, Tensor]:
    """Return weights on the CPU that carry a card.

    Args:
        weights: State dict.
        key: Name of the card's kind in the metadata that torch keeps beside the entries.
        card: Texts.
    """
    carrier = OrderedDict((name, value.detach().cpu()) for name, value in weights.items())
    metadata = dict(getattr(weights, "_metadata", {}))
    metadata[key] = dict(card)
    carrier._metadata = metadata  # type: ignore[attr-defined]  # noqa: SLF001 (torch's own name)
    return carrier


def carried(content: Mapping[str, Any], key: str) -> Mapping[str, str] | None:
    """Return the card of a kind that the weights in a checkpoint carry, or None where they have none."""
    card: Mapping[str, str] | None = getattr(weights_of(content), "_metadata", {}).get(key)
    return card


def weights_of(content: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return the state dict inside a checkpoint, whether it is flat or under ``model``."""
    weights: Mapping[str, Tensor] = content.get("model", content)
    return weights


def require_same_facts(facts: Iterable[tuple[str, object, object]], where: str) -> None:
    """Refuse weights whose card tells another fact than expected.

    Args:
        facts: What, found, expected.
        where: The file.

    Raises:
        CheckpointError: A fact differs.
    """
    for what, found, expected in facts:
        if found != expected:
            msg = (
                f"{where} belongs to another model: its {what} is {found}, expected {expected}. "
                f"Give the run or bundle that the weights came from."
            )
            raise CheckpointError(msg)
