import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.inference.backends import openvino_backend
from medssl.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from medssl.inference.backends.openvino_backend import OpenVinoBackend
from medssl.inference.backends.torch_backend import PRECISE, Float32, TorchBackend, imprecise
from medssl.inference.machine import has_bfloat16, library_versions, processor
from medssl.inference.rounding import keeping_sums
from medssl.networks import ClusteringNetwork, DenseFCN, FCDenseNet3D

SMALL = {"stem_channels": 8, "growth_rate": 4, "block_layers": 1, "levels": 2}
NETWORKS = {
    "dense_fcn": lambda: DenseFCN(2, 4, **SMALL),
    "deep_windows": lambda: DenseFCN(2, 4, deep_window=(8, 12, 8), **SMALL),
    "one_contrast_instance_norm": lambda: DenseFCN(1, 3, norm="instance", **SMALL),
    "fc_densenet": lambda: FCDenseNet3D(2, 4, **SMALL),
    "clustering": lambda: ClusteringNetwork(DenseFCN(2, 8, **SMALL), 8, 4),
}
BACKENDS = {"openvino": OpenVinoBackend, "onnxruntime": OnnxRuntimeBackend}
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
ALONE = {"OMP_NUM_THREADS": "1"}
"""Environment of a process of its own."""
needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(CPU), reason="the processor has no bfloat16")


def make(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return NETWORKS[name]().eval()


def tile(network: nn.Module, *shape: int) -> torch.Tensor:
    channels = next(weight.shape[1] for weight in network.parameters() if weight.ndim == 5)
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("library", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_float32_equals_torch_at_any_size(name, library, needs):
    needs(library, *["onnx"] * (library == "onnxruntime"))
    network = make(name)
    with torch.inference_mode():
        backend = BACKENDS[library](network)
        for shape in ((24, 16, 20), (16, 32, 16)):
            x = tile(network, *shape)
            torch.testing.assert_close(backend(x), network(x), rtol=1e-4, atol=1e-4)
    assert (backend.name, backend.precision, backend.device.type) == (library, "float32", "cpu")


@needs_bfloat16
@pytest.mark.parametrize("name", ["dense_fcn", "clustering"])
def test_bfloat16_of_openvino_is_near_and_as_near_as_that_of_torch(name, needs):
    needs("openvino")
    network = make(name)
    x = tile(network, 32, 32, 32)
    exact = TorchBackend(network)(x)
    errors = [
        float((backend(x) - exact).square().mean().sqrt())
        for backend in (
            OpenVinoBackend(network, precision="bfloat16"),
            TorchBackend(network, precision="bfloat16"),
        )
    ]
    assert 0 < errors[0] < 0.05
    assert errors[0] == pytest.approx(errors[1], rel=0.3)


def test_some_convolutions_in_float32_bring_bfloat16_nearer(shallow):
    x = torch.randn(1, 2, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    exact, backend = TorchBackend(shallow)(x), TorchBackend(shallow, precision="bfloat16")
    error = float((backend(x) - exact).abs().mean())
    assert sum(isinstance(module, Float32) for module in backend.network.modules()) == 2
    for parent in list(backend.network.modules()):
        for name, module in parent.named_children():
            if isinstance(module, Float32):
                setattr(parent, name, module.module)
    assert error < 0.9 * float((backend(x) - exact).abs().mean())


def test_other_kernels_are_rounded_with_their_sums_kept(shallow):
    source = TorchBackend(shallow).source
    names = imprecise(source, PRECISE)
    assert len(names) == sum(isinstance(module, nn.Conv3d) for module in source.modules()) - len(PRECISE)
    network = TorchBackend(shallow, precision="bfloat16").network
    for name in names:
        expected = keeping_sums(source.get_submodule(name).weight, torch.bfloat16)
        assert torch.equal(network.get_submodule(name).weight, expected)


@needs_bfloat16
def test_openvino_converts_the_rounded_kernels_of_the_folded_network(shallow, monkeypatch, needs):
    needs("openvino")
    given = []

    def remember(folder, network, convert):
        given.append(network)
        return convert()

    monkeypatch.setattr(openvino_backend, "remembered", remember)
    for network in (shallow, TorchBackend(shallow).source):
        OpenVinoBackend(network, precision="bfloat16")
    source = TorchBackend(shallow).source
    for name in imprecise(source, PRECISE):
        expected = keeping_sums(source.get_submodule(name).weight, torch.bfloat16)
        assert all(torch.equal(network.get_submodule(name).weight, expected) for network in given)
    OpenVinoBackend(shallow)
    assert given[-1] is shallow


def test_a_scripted_network_runs_in_bfloat16_too(shallow):
    scripted = torch.jit.trace(shallow.eval(), tile(shallow, 16, 16, 16))
    x = tile(shallow, 16, 16, 16)
    answers = [TorchBackend(scripted, precision=precision)(x) for precision in ("float32", "bfloat16")]
    assert 0 < float((answers[0] - answers[1]).abs().mean()) < 0.05


def test_onnxruntime_has_no_bfloat16():
    with pytest.raises(ConfigError, match="float32 only"):
        OnnxRuntimeBackend(make("dense_fcn"), precision="bfloat16")


@pytest.mark.parametrize("library", BACKENDS)
def test_a_missing_library_is_an_import_error(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError):
        BACKENDS[library](make("dense_fcn"))


def test_libraries_are_imported_only_where_they_are_used_and_leave_nothing_behind(
    tmp_path, tmp_path_factory, needs
):
    other = tmp_path_factory.mktemp("matplotlib")  # MONAI imports it
    needs("openvino", "onnxruntime", "onnx")
    code = """
import sys
import medssl.inference.predictor, torch
assert not {"openvino", "onnxruntime", "onnx"} & set(sys.modules)
from medssl.inference.choice import build
from medssl.inference.backends.torch_backend import TorchBackend
from medssl.networks import DenseFCN
reference = TorchBackend(DenseFCN(2, 4, stem_channels=8, growth_rate=4, block_layers=1, levels=1))
for name in ("openvino", "onnxruntime"):
    build(name, "float32", reference)(torch.zeros(1, 2, 8, 8, 8))
assert sys.modules["openvino_telemetry"] is None
"""
    (tmp_path / "tmp").mkdir()
    environment = {
        **ALONE,
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "tmp"),
        "MPLCONFIGDIR": str(other),
    }
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


MEMORY = """
import torch
from pathlib import Path
from medssl.inference.choice import build
from medssl.inference.backends.torch_backend import TorchBackend
from medssl.inference.plan import bytes_per_voxel
from medssl.networks import DenseFCN

def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

network = DenseFCN(2, 4)
backend = build("{}", "{}", TorchBackend(network))
x = torch.zeros(1, 2, 128, 112, 96)
backend(x[..., :16, :16, :16])
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
backend(x)
print((resident("VmHWM") - before) / (bytes_per_voxel(network.peak_maps) * backend.memory_factor * x[0, 0].numel()))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("library", "precision", "threads"),
    [
        ("torch", "float32", 1),
        ("torch", "float32", 2),
        ("torch", "bfloat16", 1),
        ("openvino", "float32", 1),
        pytest.param("openvino", "bfloat16", 1, marks=needs_bfloat16),
    ],
)
def test_memory_forecast_is_within_a_fifth_of_the_peak(library, precision, threads, needs):
    needs(library)
    environment = {**ALONE, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", "-c", MEMORY.format(library, precision)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(1, abs=0.2)


def test_machine_says_what_it_is(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: sse avx512_bf16 x\n")
    assert processor(cpuinfo) == "Some CPU"
    assert has_bfloat16(CPU, cpuinfo)
    assert not has_bfloat16(CPU, tmp_path / "none")
    assert processor(tmp_path / "none")
    assert library_versions()["torch"].startswith(torch.__version__.split("+")[0])
