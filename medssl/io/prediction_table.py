"""The table of predictions: one row an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medssl.errors import ConfigError
from medssl.io.files import write_csv

CHOSEN = "chosen"
"""Instead of a number: the confidence that was chosen on a model's validation images."""


def abstain_threshold(asked: float | str, extra: Mapping[str, Any], model: str) -> float:
    """Return from which confidence on an image gets a label.

    Args:
        asked: 0 to 1, a number or its text, or `CHOSEN`: what was chosen on the validation images of the model.
        extra: What its card says beside its classes.
        model: Name of the file, for the message.

    Raises:
        ConfigError: No number, out of range, or nothing was chosen.
    """
    least = extra.get("abstain_below") if asked == CHOSEN else asked
    threshold = math.nan
    with suppress(TypeError, ValueError):
        threshold = float(least)
    if not 0 <= threshold <= 1:
        found = f"{model} says {'none' if least is None else least}"
        said = found if asked == CHOSEN else f"--abstain-below is {asked}"
        msg = f"{said}; expected 0 to 1, or '{CHOSEN}' with a file that says which confidence was chosen."
        raise ConfigError(msg)
    return threshold


def write_prediction_table(
    path: Path,
    names: Sequence[str],
    classes: Sequence[str],
    probabilities: NDArray[Any],
    abstain_below: float = 0.0,
    finding: Mapping[str, Any] | None = None,
) -> None:
    """Write ``path,label,confidence,p_<class>...``, one row an image.

    Args:
        path: CSV to write, to a temporary name first.
        names: Of the images.
        classes: In the order of the columns.
        probabilities: Of the classes.
        abstain_below: An image whose largest probability is less gets no label.
        finding: ``class`` and ``threshold`` of a class that has a column of its own, ``found_<class>``: 1 from that
            probability on, else 0.

    Shapes:
        probabilities: ``(N, K)``

    Raises:
        OutputError: The folder cannot be written to.
    """
    columns = ["path", "label", "confidence", *[f"p_{name}" for name in classes]]
    found = None if finding is None else f"found_{finding['class']}"
    rows = []
    for name, q in zip(names, probabilities, strict=True):
        shares = {one: float(value) for one, value in zip(classes, q, strict=True)}  # compared in float64
        row: dict[str, Any] = {
            "path": name,
            "label": classes[int(q.argmax())] if float(q.max()) >= abstain_below else "",
            "confidence": float(q.max()),
            **{f"p_{one}": value for one, value in shares.items()},
        }
        if finding is not None and found is not None:
            row[found] = int(shares[finding["class"]] >= finding["threshold"])
        rows.append(row)
    write_csv(path, rows, [*columns, found] if found else columns)
