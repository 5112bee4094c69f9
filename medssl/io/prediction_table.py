"""The table of predictions: one row an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medssl.io.files import write_csv


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
