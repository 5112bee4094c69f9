"""OpenVinoClassifier: an exported classifier, run by OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medssl.errors import InputError
from medssl.inference.onnx_runner import OnnxClassifier
from medssl.inference.openvino_runner import openvino_runner, require_openvino
from medssl.inference.peak_memory import Subject, peak_memory


class OpenVinoClassifier(OnnxClassifier):
    """Run an exported classifier with OpenVINO on the CPU; onnxruntime only reads what the file says.

    Args:
        path: See `OnnxClassifier`.
        threads: None: as many as OpenVINO takes by itself.
        tried: Whether it is known that OpenVINO runs the file.

    Raises:
        ConfigError: OpenVINO or onnxruntime is not installed.
        InputError: There is no such file, or OpenVINO cannot run it (tried in another process, which it may end).
        CheckpointError: It is no ONNX file, or none that was exported here.

    Notes:
        The network is compiled for each number of images in a pass.
    """

    def __init__(self, path: Path | str, *, threads: int | None = None, tried: bool = False) -> None:
        super().__init__(path, threads=threads)
        require_openvino()
        if not tried:
            _try(self.path, (self.channels, self.size, self.size))
        self._threads = threads
        self._runners: dict[int, Callable[[np.ndarray], Any]] = {}

    def _answer(self, images: np.ndarray) -> np.ndarray:
        count = len(images)
        if count not in self._runners:
            self._runners[count] = openvino_runner(self.path, images.shape, self._threads)
        return np.array(self._runners[count](images)[0])


def _try(path: Path, shape: tuple[int, int, int]) -> None:
    try:
        peak_memory(Subject("openvino", str(path), shape))
    except InputError as error:
        raise InputError(str(error.finding or error), "Leave --backend out: onnxruntime runs it.") from error
