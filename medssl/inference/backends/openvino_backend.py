"""The OpenVINO backend: a CPU, float32 or bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree as ET

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.inference.backends.quiet_imports import import_openvino, openvino_core
from medssl.inference.backends.torch_backend import PRECISE, chosen, fold_batch_norm, imprecise
from medssl.inference.backends.tracing import convertible, tracing
from medssl.inference.conversions import Converted, remembered
from medssl.inference.rounding import with_rounded_kernels

HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""Our names of the precisions -> OpenVINO's."""

SLOW_STRIDE = 8
"""Transposed convolutions of this stride or more are slower in bfloat16 than in float32 (OpenVINO 2026.4)."""

MEMORY_FACTORS = {"float32": 0.6, "bfloat16": 0.45}
"""Precision -> memory of a pass over what the plain network's maps take. `DenseFCN` at 128 x 112 x 96: 0.58 and 0.37
to 0.41 (17 processes), at 128^3 to 160 x 192 x 160 in bfloat16 0.42 to 0.43; measured with
`benchmarks/inference.py` on its larger box once 0.71 and 0.54."""


class OpenVinoBackend:
    """Run a converted copy of a network with OpenVINO.

    Args:
        network: Module that maps `(1, C, I, J, K)` to logits; it is left as it is.
        precision: `"float32"` or `"bfloat16"`.
        folder: Where the conversion is remembered, see `medssl.inference.conversions`; None converts every time.
        precise: Places, in the order of the network, of the convolutions that stay in float32 in bfloat16.
        slow_stride: Transposed convolutions of this stride or more stay in float32 too.

    Raises:
        ImportError: openvino is not installed.
        ConfigError: The processor has no bfloat16.

    Notes:
        Compiled anew where the shape changes (0.2 s of processor time for DenseFCN), since a model for tiles of any
        size is no faster and takes 1.6 times the memory; only the last one is kept.
    """

    name = "openvino"

    def __init__(
        self,
        network: nn.Module,
        *,
        precision: str = "float32",
        folder: Path | None = None,
        precise: Sequence[int] = PRECISE,
        slow_stride: int = SLOW_STRIDE,
    ) -> None:
        openvino = import_openvino()
        self._core = core = openvino_core()
        if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            msg = "This processor has no bfloat16, which OpenVINO needs for that precision."
            raise ConfigError(msg, "Use float32.")
        self.precision = precision
        self.memory_factor = MEMORY_FACTORS[precision]
        self.device = torch.device("cpu")
        if precision == "bfloat16":
            network = fold_batch_norm(network)  # before, since folding changes the weights
            network = with_rounded_kernels(network, imprecise(network, precise), torch.bfloat16)
        xml, weights = remembered(folder, network, partial(_converted, openvino, network))
        if precision == "bfloat16":
            xml = _with_precise_convolutions(xml, precise, slow_stride)
        self._model = core.read_model(xml, weights)
        self._shape: tuple[int, ...] = ()
        self._request: Any = None

    def __call__(self, tile: Tensor) -> Tensor:
        """Return float32 logits `(1, L, I, J, K)` of a tile `(1, C, I, J, K)`."""
        if self._shape != tuple(tile.shape):
            self._compile(tuple(tile.shape))
        values = tile.to("cpu", torch.float32).contiguous().numpy()
        self._request.infer([values], share_inputs=True)
        return torch.from_numpy(self._request.get_output_tensor(0).data.copy())

    def _compile(self, shape: tuple[int, ...]) -> None:
        """Give up the memory of the last shape, then compile for another."""
        self._request, self._shape = None, ()
        model = self._model.clone()
        model.reshape(list(shape))
        settings = compile_settings(self.precision)
        self._request = self._core.compile_model(model, "CPU", settings).create_infer_request()
        self._shape = shape


def compile_settings(precision: str) -> dict[str, Any]:
    """Return what OpenVINO is told when it compiles a network for one of our precisions."""
    return {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }


def _converted(openvino: Any, network: nn.Module) -> Converted:
    """Return the network as OpenVINO's XML and weights, for tiles of any size."""
    with tracing():
        still, tile = convertible(network)
        trace = torch.jit.freeze(torch.jit.trace(still, tile, check_trace=False).eval())
        shape = openvino.PartialShape([1, tile.shape[1], -1, -1, -1])
        model = openvino.convert_model(trace, input=[shape])
    with TemporaryDirectory() as folder:
        xml, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        openvino.serialize(model, xml, weights)
        return xml.read_bytes(), weights.read_bytes()


def _with_precise_convolutions(xml: bytes, places: Sequence[int], slow_stride: int) -> bytes:
    """Return the XML of a model some of whose convolutions run in float32.

    The mark exists in OpenVINO's XML only; a version that does not know it ignores it, and the gate decides.

    Args:
        xml: Of the model.
        places: Of convolutions, in the order of the network.
        slow_stride: Transposed convolutions of this stride or more run in float32 too.
    """
    root = ET.fromstring(xml)
    layers = list(root.iter("layer"))
    convolutions = [layer for layer in layers if layer.get("type") == "Convolution"]
    wide = [layer for layer in layers if 0 < slow_stride <= _stride_up(layer)]
    for layer in [*chosen(convolutions, places), *wide]:
        marks = layer.find("rt_info")
        if marks is None:
            marks = ET.Element("rt_info")
            layer.insert(1, marks)  # behind <data>
        ET.SubElement(marks, "attribute", {"name": "precise", "version": "0"})
    return ET.tostring(root)


def _stride_up(layer: ET.Element) -> int:
    """Return the stride of a transposed convolution, 0 of another layer."""
    data = layer.find("data")
    if data is None or not str(layer.get("type")).endswith("ConvolutionBackpropData"):
        return 0
    return int(str(data.get("strides")).partition(",")[0])
