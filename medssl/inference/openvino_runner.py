"""An exported file run by OpenVINO, without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medssl.errors import ConfigError
from medssl.inference.backends.quiet_imports import import_openvino, openvino_core


def require_openvino() -> Any:
    """Return the library.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_openvino()
    except ImportError as error:
        msg = "OpenVINO is not installed."
        raise ConfigError(msg, 'Install it with: pip install "medssl[fast]".') from error


def openvino_runner(
    path: Path, shape: tuple[int, ...], threads: int | None
) -> Callable[[np.ndarray], object]:
    """Return a function that runs a file on images of one shape, in float32 where the file says no int8.

    Args:
        path: ONNX file.
        shape: `(N, C, H, W)` of the images.
        threads: To run with; None: as many as OpenVINO takes by itself.

    Raises:
        ConfigError: OpenVINO is not installed.

    Notes:
        OpenVINO 2026.4 ends the whole process while it compiles some int8 files (MixNet-L): have `peak_memory` try a
        file in a process of its own first.
    """
    require_openvino()
    core = openvino_core()
    model = core.read_model(path)
    model.reshape(list(shape))
    settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda images: request.infer([images], share_inputs=True)
