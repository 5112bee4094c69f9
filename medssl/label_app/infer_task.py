"""MONAI Label's class of an inference task, imported without libraries that nothing here calls.

Its module takes functions from torchvision and scikit-image that draw outlines and save pictures of predictions.
Importing them takes seconds, and torchvision cannot be imported where its compiled operators do not fit torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

UNNEEDED = {
    "torchvision": (),
    "torchvision.utils": ("make_grid", "save_image"),
    "skimage": (),
    "skimage.measure": ("approximate_polygon", "find_contours"),
}
"""Module -> the functions of it that are imported."""


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Put modules whose functions only complain in the place of those that are not loaded yet."""
    placed = [name for name in UNNEEDED if name.partition(".")[0] not in sys.modules]
    for name in placed:
        sys.modules[name] = module = ModuleType(name)
        for function in UNNEEDED[name]:
            setattr(module, function, _unavailable)
    try:
        yield
    finally:
        for name in placed:
            del sys.modules[name]


def _unavailable(*_: Any, **__: Any) -> None:
    msg = "medssl imports MONAI Label without the libraries that draw outlines and save pictures."
    raise NotImplementedError(msg)


with _stand_ins():
    from monailabel.tasks.infer.bundle import BundleInferTask

__all__ = ["BundleInferTask"]
