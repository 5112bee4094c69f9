"""The onnxruntime backend: a CPU, float32."""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn

from medssl.errors import ConfigError
from medssl.inference.backends.quiet_imports import import_onnxruntime
from medssl.inference.backends.tracing import convertible, tracing

OPSET = 17


class OnnxRuntimeBackend:
    """Run a copy of a network, exported to ONNX in memory, with onnxruntime.

    Args:
        network: Module that maps `(1, C, I, J, K)` to logits; it is left as it is.
        precision: `"float32"`.

    Raises:
        ImportError: onnxruntime, or onnx for the export, is not installed.
        ConfigError: Another precision was asked for.
    """

    name = "onnxruntime"
    memory_factor = 0.8  # DenseFCN at 96^3: 0.78; FCDenseNet3D at 64 x 80 x 64: 0.71

    def __init__(self, network: nn.Module, *, precision: str = "float32") -> None:
        if precision != "float32":
            msg = f"onnxruntime runs in float32 only: found {precision!r}."
            raise ConfigError(msg, "Choose float32, or another backend.")
        onnxruntime = import_onnxruntime()
        self.precision = precision
        self.device = torch.device("cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # gives the memory back after each tile, for some time
        self._session = onnxruntime.InferenceSession(
            _exported(network), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, tile: Tensor) -> Tensor:
        """Return float32 logits `(1, L, I, J, K)` of a tile `(1, C, I, J, K)`."""
        values = tile.to("cpu", torch.float32).contiguous().numpy()
        return torch.from_numpy(self._session.run(None, {"tile": values})[0])


def _exported(network: nn.Module) -> bytes:
    """Return the network as ONNX.

    Notes:
        With torch's exporter of traces; the one that follows it needs 14 s of processor time for DenseFCN
        instead of 0.4 s (torch 2.13).
    """
    import onnx  # noqa: F401, PLC0415 (so that its absence is said by name)

    axes = {2: "i", 3: "j", 4: "k"}
    content = io.BytesIO()
    with tracing():
        still, tile = convertible(network)
        torch.onnx.export(
            still,
            (tile,),
            content,
            dynamo=False,
            opset_version=OPSET,
            input_names=["tile"],
            output_names=["logits"],
            dynamic_axes={"tile": axes, "logits": axes},
        )
    return content.getvalue()
