"""In fresh interpreters, since what is imported first is what matters."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from medssl.errors import ConfigError
from medssl.networks.torchvision_compat import ensure_torchvision, import_timm

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    find_spec("timm") is None or find_spec("torchvision") is None,
    reason="timm or torchvision is not installed",
)

WORKS = """
import sys, torch
from medssl.networks.torchvision_compat import ensure_torchvision, import_timm
ensure_torchvision()
torchvision = sys.modules["torchvision"]
ensure_torchvision()
assert sys.modules["torchvision"] is torchvision
import timm
assert import_timm() is timm
for name in [name for name in sys.modules if name.startswith("torchvision.") and name.count(".") == 1]:
    assert getattr(torchvision, name.partition(".")[2]) is sys.modules[name], name  # nothing half-imported is left
timm.create_model("test_resnet").eval()(torch.zeros(1, 3, 32, 32))
torchvision.models.get_model("squeezenet1_0", weights=None)
from torchvision.transforms import v2
v2.RandAugment()(torch.zeros(3, 8, 8, dtype=torch.uint8))
"""

FAKE = """
import torch
torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


def run(code: str, *paths: Path) -> None:
    code = f"import sys; sys.path[:0] = {[str(path) for path in (*paths, ROOT)]}\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_timm_and_torchvision_work_in_a_fresh_interpreter_and_a_second_call_does_nothing():
    run(WORKS)


def test_what_monai_left_half_imported_is_repaired():
    run(f"import monai.transforms\n{WORKS}")


def test_nothing_is_declared_where_the_extension_loads(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(FAKE)
    run(
        """
import torch
from medssl.networks.torchvision_compat import ensure_torchvision
ensure_torchvision()  # a second definition of an operator would raise
torchvision = sys.modules["torchvision"]
def refuse(*args, **kwargs):
    raise AssertionError("declared although it loads")
torch.library.define = refuse
ensure_torchvision()
assert sys.modules["torchvision"] is torchvision
""",
        tmp_path,
    )


def test_another_failure_is_not_hidden(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('disk on fire')")
    run(
        """
import torch
from medssl.networks.torchvision_compat import ensure_torchvision
try:
    ensure_torchvision()
except RuntimeError as error:
    assert "disk on fire" in str(error)
    assert not hasattr(torch.ops.torchvision, "nms")
else:
    raise AssertionError
""",
        tmp_path,
    )


def test_the_networks_are_imported_without_timm_and_torchvision():
    run(
        """
import medssl.networks, medssl.networks.compact
medssl.networks.compact.build_classifier("vgg-small-28", 2, 1)
medssl.networks.compact.network_facts("ResNet18")
assert not {"timm", "torchvision", "huggingface_hub", "monai"} & set(sys.modules)
"""
    )


@pytest.mark.parametrize(
    ("library", "function"), [("torchvision", ensure_torchvision), ("timm", import_timm)]
)
def test_a_missing_library_is_named_with_its_cure(library, function, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        ConfigError, match=rf'{library}, which is not installed.*pip install "medssl\[classify\]"'
    ):
        function()
