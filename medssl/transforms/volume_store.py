"""Prepared scans that do not fit into memory: their volumes are mapped from files, and read as crops need them."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

logger = logging.getLogger(__name__)

SMALL = 2**16
"""Bytes below which a tensor stays in memory."""


class VolumeStore:
    """Keep prepared scans in memory up to a limit, and the volumes of all further ones in files.

    A mapped tensor is used like any other; what is written to it stays in memory. The files lie in a folder of the
    place for temporary files (``TMPDIR``, which has to be on a disk) and are deleted with the store.

    Args:
        limit: Bytes that the scans in memory may take together; None for no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.held = 0
        self.folder: Path | None = None
        self._files = 0

    def keep(self, sample: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return a scan whose volumes are in memory, or in files where the limit is reached.

        Args:
            sample: Tensors and anything else; only CPU tensors move.
        """
        size = sum(value.nbytes for value in sample.values() if _moves(value))
        if self.limit is None or self.held + size <= self.limit:
            self.held += size
            return dict(sample)
        return {key: self._mapped(value) if _moves(value) else value for key, value in sample.items()}

    def _mapped(self, value: Tensor) -> Tensor:
        if self.folder is None:
            self.folder = _temporary_folder(self)
            logger.info(
                "Further scans are read from temporary files: %d MiB are in memory.", self.held // 2**20
            )
        path = self.folder / f"{self._files}.npy"
        self._files += 1
        np.save(path, value.numpy(force=True))
        mapped = torch.from_numpy(np.load(path, mmap_mode="c"))
        if isinstance(value, MetaTensor):
            return MetaTensor(mapped, meta=value.meta, applied_operations=value.applied_operations)
        return mapped


def _moves(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.nbytes >= SMALL


def _temporary_folder(owner: object) -> Path:
    """Make a folder that is deleted with its owner, or with the process; not by processes forked from it."""
    folder, process = tempfile.mkdtemp(prefix="medssl-volumes-"), os.getpid()

    def remove() -> None:
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)

    weakref.finalize(owner, remove)
    return Path(folder)
