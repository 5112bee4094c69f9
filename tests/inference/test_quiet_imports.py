"""Telemetry is off before either library is loaded, in fresh interpreters."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FAKE = """
import ctypes
assert ctypes.CDLL(None).getenv, "no C library"
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
found = getenv(b"ORT_DISABLE_TELEMETRY")  # what the library itself sees
def disable_telemetry_events():
    print(found.decode())
"""


def run(code: str, *paths: Path) -> str:
    code = f"import sys; sys.path[:0] = {[str(path) for path in (*paths, ROOT)]}\n{code}"
    bare = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=bare)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_variable_is_set_when_onnxruntime_is_imported(tmp_path):
    (tmp_path / "onnxruntime.py").write_text(FAKE)
    code = "from medssl.inference.backends.quiet_imports import import_onnxruntime; import_onnxruntime()"
    assert run(code, tmp_path) == "1"


def test_openvino_cannot_import_its_telemetry(tmp_path):
    (tmp_path / "openvino.py").write_text("import sys; print(sys.modules['openvino_telemetry'])")
    code = "from medssl.inference.backends.quiet_imports import import_openvino; import_openvino()"
    assert run(code, tmp_path) == "None"


TWO_BACKENDS = """
import faulthandler, signal, subprocess, sys
faulthandler.enable()
import torch
from torch import nn
from medssl.inference.backends.openvino_backend import OpenVinoBackend
first, second = (OpenVinoBackend(nn.Conv3d(1, 2, 3, padding=1)) for _ in range(2))
for backend in (first, second):
    backend(torch.zeros(1, 1, 16, 16, 16))
signal.signal(signal.SIGCHLD, lambda *_: print("a child ended"))
del first, backend
del second
subprocess.run([sys.executable, "-c", ""])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_signals_are_handled_after_backends_have_gone(needs):
    """Two Cores of OpenVINO that go in the order of their coming leave signal handlers without a stack."""
    needs("openvino")
    assert run(TWO_BACKENDS) == "a child ended"


def test_neither_is_imported_anywhere_else():
    users = set()
    for path in (ROOT / "medssl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {"onnxruntime", "openvino"} & {name.partition(".")[0] for name in names}:
                users.add(path.relative_to(ROOT / "medssl").as_posix())
    assert users == {"inference/backends/quiet_imports.py"}
