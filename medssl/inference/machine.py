"""What decides how fast a backend is: the processor, its cores, the versions of the libraries."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import torch

from medssl.cores import cores

LIBRARIES = ("torch", "openvino", "onnxruntime")
"""Each backend is named after the library it runs on."""


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor's model."""
    return _field(cpuinfo, "model name") or platform.processor() or platform.machine()


def has_bfloat16(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether the device multiplies bfloat16 itself (a CPU: AVX512-BF16 or AMX)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_field(cpuinfo, "flags").split())


def library_versions() -> dict[str, str | None]:
    """Return the version of each backend's library, None where it is not installed; imports none of them."""
    return {name: version_of(name) for name in LIBRARIES}


def describe(device: torch.device) -> dict[str, object]:
    """Return everything on this machine that a measured time depends on, as plain values."""
    return {
        "processor": processor() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "versions": library_versions(),
    }


def version_of(name: str) -> str | None:
    """Return the version of an installed package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _field(cpuinfo: Path, name: str) -> str:
    """Return the value of the first line of that name; empty where there is none."""
    if not cpuinfo.is_file():
        return ""
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
