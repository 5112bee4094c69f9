"""ONNX files as such: read, marked with a card, written whole or not at all. Needs onnx, not torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medssl.errors import ConfigError
from medssl.inference.onnx_runner import KEY, OnnxCard
from medssl.io.files import atomic_path


def import_onnx() -> Any:
    """Return onnx.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import onnx  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = "Writing ONNX files needs onnx, which is not installed."
        raise ConfigError(msg, 'Install it with: pip install "medssl[export]".') from error
    return onnx


def set_card(model: Any, card: OnnxCard) -> None:
    """Write a card into the metadata of a model, in place of one that is there."""
    others = {entry.key: entry.value for entry in model.metadata_props if entry.key != KEY}
    import_onnx().helper.set_model_props(model, {**others, KEY: card.to_json()})


def change_card(path: Path, extra: Mapping[str, Any]) -> None:
    """Let a file say more about itself: add to the `extra` of its card, in place of what stands there.

    Raises:
        CheckpointError: The file has no card.
        OutputError: The file cannot be written.
    """
    model = import_onnx().load(str(path))
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), "")
    card = OnnxCard.from_json(text, path.name)
    set_card(model, replace(card, extra={**card.extra, **extra}))
    write_model(model, path)


def write_model(model: Any, path: Path | str) -> None:
    """Write an ONNX model atomically.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def layers(model: Any, operators: tuple[str, ...] = ("Conv", "Gemm", "MatMul")) -> list[str]:
    """Return the names of the nodes with weights, in the order of the graph."""
    return [node.name for node in model.graph.node if node.op_type in operators]


def name_nodes(model: Any) -> None:
    """Give every node without a name one of its own."""
    for number, node in enumerate(model.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{number}"
