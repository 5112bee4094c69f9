"""Importing onnxruntime and OpenVINO with their telemetry off; the one place where either is imported."""

from __future__ import annotations

import os
import sys
from functools import cache
from threading import Lock
from typing import Any

_MAKING = Lock()


def import_onnxruntime() -> Any:
    """Import onnxruntime with its telemetry off: the library looks at this variable when it is loaded.

    Raises:
        ImportError: It is not installed.
    """
    os.putenv("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415 (an optional library, imported where it is used)

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def import_quantization() -> Any:
    """Import onnxruntime's tools for int8.

    Raises:
        ImportError: onnxruntime or onnx is not installed.
    """
    import_onnxruntime()
    import onnxruntime.quantization as tools  # noqa: PLC0415

    return tools


def import_openvino() -> Any:
    """Import openvino with its telemetry out of the way.

    OpenVINO reports its own import through the package `openvino_telemetry`, and does without where that cannot
    be imported.

    Raises:
        ImportError: It is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # noqa: PLC0415

    return openvino


def openvino_core() -> Any:
    """Return OpenVINO's `Core`, of which a process has one that lives as long as it does.

    Each one gives signal handlers a stack of its own and, when it goes, restores the one it found; when two do not go
    in the reverse order of their coming, that is memory that is gone, and the next Ctrl-C or the end of a child
    process ends this one (OpenVINO 2026.4).

    Raises:
        ImportError: OpenVINO is not installed.
    """
    with _MAKING:
        return _core()


@cache
def _core() -> Any:
    return import_openvino().Core()
