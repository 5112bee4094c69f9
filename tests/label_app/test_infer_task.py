"""MONAI Label's class comes without the libraries that draw."""

import subprocess
import sys

import pytest

pytest.importorskip("monailabel")

CODE = """
import sys
from medssl.workflows.lean_start import import_monai_lean
import_monai_lean()
from medssl.label_app.infer_task import BundleInferTask
assert BundleInferTask.__module__ == "monailabel.tasks.infer.bundle"
assert not {"torchvision", "skimage"} & sys.modules.keys()
from monailabel.transform import post
try:
    post.make_grid()
except NotImplementedError as error:
    print(error)
"""
"""As the server begins; whole, MONAI itself would load them."""


def test_torchvision_is_not_loaded_and_its_functions_say_so():
    command = [sys.executable, "-W", "ignore", "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "without the libraries" in done.stdout
