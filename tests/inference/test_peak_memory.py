import subprocess
import sys

import pytest

from medssl.errors import ConfigError, InputError
from medssl.inference.onnx_classifier import export_classifier
from medssl.inference.peak_memory import Subject, peak_memory, resident_mb
from medssl.networks.compact import build_classifier


def test_a_file_takes_more_than_its_libraries_and_less_than_torch(tmp_path, monkeypatch):
    export_classifier(build_classifier("vgg-small-28", 2, 1), tmp_path / "model.onnx", ["a", "b"])
    monkeypatch.chdir(tmp_path)  # relative paths have to hold in the other process
    found = peak_memory(Subject("onnxruntime", "model.onnx", (1, 28, 28)))
    assert 5 < found.libraries_mb < found.peak_mb < 200


def test_a_network_of_the_registry_can_be_measured_with_torch():
    found = peak_memory(Subject("torch", "vgg-small-28", (1, 28, 28)))
    assert found.libraries_mb < found.peak_mb


def test_what_failed_in_the_process_is_said(tmp_path):
    with pytest.raises(
        InputError, match=r"onnxruntime could not run missing\.onnx: .*no exported classifier"
    ):
        peak_memory(Subject("onnxruntime", str(tmp_path / "missing.onnx"), (1, 28, 28)))


def test_an_unknown_backend_is_refused():
    with pytest.raises(ConfigError, match="'abacus'"):
        peak_memory(Subject("abacus", "x", (1, 2, 2)))


def test_the_process_status_is_read_in_megabytes(tmp_path):
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  2000 kB\n")
    assert resident_mb("VmHWM", tmp_path / "status") == 2.048
    assert resident_mb("VmHWM", tmp_path / "missing") > 1


def test_a_library_that_ends_its_process_is_told_by_its_signal(monkeypatch):
    crash = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"]
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: real(crash, **options))
    with pytest.raises(InputError, match=r"openvino could not run m\.onnx: the process was ended by SIGSEGV"):
        peak_memory(Subject("openvino", "m.onnx", (1, 2, 2)))


def test_openvino_can_be_measured(tmp_path, needs):
    needs("openvino")
    export_classifier(build_classifier("vgg-small-28", 2, 1), tmp_path / "model.onnx", ["a", "b"])
    found = peak_memory(Subject("openvino", str(tmp_path / "model.onnx"), (1, 28, 28)))
    assert found.libraries_mb < found.peak_mb
