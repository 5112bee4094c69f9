"""Importing MONAI as where its optional libraries are not installed, for a process that makes label maps and ends."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module

UNNEEDED = ("ignite", "matplotlib", "pandas", "scipy.signal", "sklearn", "tensorboard")
"""Optional libraries of MONAI that train, measure or draw. `import monai` loads all of them if they are there, which
is more than half of its time; on the way to a label map none is called."""

MODULES = ("monai", "monai.bundle")
"""What looks for them; `import monai` leaves the second one out."""


def import_monai_lean() -> None:
    """Import MONAI without the libraries that no label map needs.

    MONAI runs without them ("minimal dependencies" in its documentation) and then refuses what needs them, in this
    process for good. So this is for the command line alone, whose process does nothing else afterwards; our own
    imports of them work as ever. Does nothing where MONAI has been imported.
    """
    if "monai" not in sys.modules:
        with _missing(UNNEEDED):
            for name in MODULES:
                import_module(name)


@contextmanager
def _missing(names: Iterable[str]) -> Iterator[None]:
    """Let imports of these modules fail inside the block; those that are loaded already stay."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None means: not to be imported
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
