"""A quick start for a process that makes label maps: MONAI without optional libraries, imports without collections."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module

UNNEEDED = (
    *("huggingface_hub", "ignite", "itk", "matplotlib", "pandas", "pydicom"),
    *("requests", "scipy.signal", "skimage", "sklearn", "tensorboard", "torchvision"),
)
"""Optional libraries of MONAI that train, measure, draw or read other files. `import monai` loads all of them if they
are there, which is more than half of its time; on the way to a label map none is called."""

READERS = ("itk", "pydicom")
"""Those of them that MONAI looks for again whenever it makes a reader of images."""

MODULES = ("monai", "monai.bundle")
"""What looks for them; `import monai` leaves the second one out."""


def import_monai_lean(never: Iterable[str] = ()) -> None:
    """Import MONAI without the libraries that no label map needs.

    MONAI runs without them ("minimal dependencies" in its documentation) and then refuses what needs them, in this
    process for good. So this is for processes of our own, `medssl segment` and the server for 3D Slicer, whose
    trainings have others. Our own imports of these libraries work as ever. Does nothing where MONAI has been imported.

    Args:
        never: Modules that this process shall not import at all, such as `READERS`.
    """
    if "monai" not in sys.modules:
        with _missing(UNNEEDED):
            for name in MODULES:
                import_module(name)
    for name in never:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None means: not to be imported


@contextmanager
def without_collections() -> Iterator[None]:
    """Look for no garbage inside the block, and never again among what is there at its end.

    For imports, whose hundred thousands of objects stay until the process ends: looking at them again and again
    while torch and MONAI are imported, and at each full collection later, is a fifth of the time of the imports.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def _missing(names: Iterable[str]) -> Iterator[None]:
    """Let imports of these modules fail inside the block; those that are loaded already stay."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
