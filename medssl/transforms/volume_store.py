"""Prepared scans that do not fit into memory: their volumes are mapped from files, and read as crops need them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from medssl.errors import OutputError

logger = logging.getLogger(__name__)

SMALL = 2**16
"""Bytes below which a tensor stays in memory."""


class VolumeStore:
    """Keep prepared scans in memory up to a limit, and the volumes of all further ones in temporary files.

    A mapped tensor is used like any other; what is written to it stays in memory. The files have no name (on Windows,
    they are deleted when they are closed), so none is left behind, however the process ends.

    Args:
        limit: Bytes that the scans in memory may take together; None for no limit. What is added to a scan later on,
            such as its prior, is kept by a call of its own.

    Attributes:
        held: Bytes in memory.
        mapped: Tensors in files.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.held = 0
        self.mapped = 0

    def keep(self, sample: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return a scan whose volumes are in memory, or in files where the limit is reached.

        Args:
            sample: Tensors and anything else; only CPU tensors move.

        Raises:
            OutputError: The disk with the temporary files is full.
        """
        size = sum(value.nbytes for value in sample.values() if _moves(value))
        if self.limit is None or self.held + size <= self.limit:
            self.held += size
            return dict(sample)
        return {key: self._in_a_file(value) if _moves(value) else value for key, value in sample.items()}

    def _in_a_file(self, value: Tensor) -> Tensor:
        if not self.mapped:
            logger.debug(
                "%d MiB of scans are in memory; further ones are read from files.", self.held // 2**20
            )
        self.mapped += 1
        array = np.ascontiguousarray(value.numpy(force=True))
        try:
            with tempfile.TemporaryFile(prefix="medssl-") as file:
                array.tofile(file)
                file.flush()
                kept = torch.from_numpy(np.memmap(file, array.dtype, "c", shape=array.shape))
        except OSError as error:
            msg = f"Prepared scans cannot be kept in temporary files ({error.strerror or error})."
            raise OutputError(
                msg, "Set TMPDIR to a folder with room, or keep all in memory with --set cache_bytes=null."
            ) from error
        if isinstance(value, MetaTensor):
            return MetaTensor(kept, meta=value.meta, applied_operations=value.applied_operations)
        return kept


def _moves(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.nbytes >= SMALL
