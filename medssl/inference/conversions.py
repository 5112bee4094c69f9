"""Networks converted for OpenVINO, remembered in a folder of the user's: converting takes a tenth of a call."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from sys import modules

import torch
from torch import nn

import medssl
from medssl import networks
from medssl.errors import MedsslError
from medssl.io.files import atomic_path

logger = logging.getLogger(__name__)

Converted = tuple[bytes, bytes]
"""OpenVINO's XML and weights."""

KEPT = 16
"""Networks; those that were written first are removed when one more comes."""

SEAL = 32
"""Bytes of the SHA-256 with which a file begins."""

_PLAIN = (bool, int, float, str, tuple, list, dict, type(None))


def remembered(folder: Path | None, network: nn.Module, convert: Callable[[], Converted]) -> Converted:
    """Return the converted network from the folder, or convert it and remember that.

    A damaged file is made anew; a folder that cannot be written to is said and does no harm.

    Args:
        folder: The user's cache; None remembers nothing.
        network: What is converted.
        convert: Makes it.
    """
    name = fingerprint(network) if folder else None
    if folder is None or name is None:
        return convert()
    path = folder / "converted" / f"{name[:40]}.openvino"
    found = _read(path)
    if found is None:
        found = convert()
        _write(path, found)
    return found


def fingerprint(network: nn.Module) -> str | None:
    """Return the SHA-256 of all that decides what a network's conversion is; None where that cannot be known.

    That is its weights, the settings of its modules, the files that define them, all of `medssl.networks`, and the
    versions of the libraries. TorchScript and networks with hooks have none.
    """
    if any(isinstance(module, torch.jit.ScriptModule) or _hooked(module) for module in network.modules()):
        return None
    digest = hashlib.sha256(
        repr([medssl.__version__, *map(version, ("torch", "openvino", "monai"))]).encode()
    )
    for file in sorted(set(_sources(network))):
        digest.update(file.read_bytes())
    for name, module in network.named_modules():
        settings = {key: value for key, value in vars(module).items() if isinstance(value, _PLAIN)}
        public = {
            key: value for key, value in settings.items() if not key.startswith("_") and key != "training"
        }
        digest.update(repr((name, type(module).__qualname__, module.extra_repr(), public)).encode())
    for name, values in network.state_dict().items():
        digest.update(repr((name, values.dtype, tuple(values.shape))).encode())
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001 (torch has no other word for it)


def _sources(network: nn.Module) -> Iterator[Path]:
    """Yield the files that define a network's modules, torch's own left out: its version says as much."""
    yield from Path(networks.__file__).parent.rglob("*.py")
    for name in {type(module).__module__ for module in network.modules()}:
        file = getattr(modules.get(name), "__file__", None)
        if file and name.partition(".")[0] not in ("torch", "monai"):
            yield Path(file)


def _read(path: Path) -> Converted | None:
    """Return what a file holds; None where it is missing, or damaged, which is said."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    body = whole[SEAL:]
    if hashlib.sha256(body).digest() != whole[:SEAL]:
        logger.warning("%s in the cache of backends is damaged; converting anew.", path.name)
        return None
    length = int.from_bytes(body[:8], "big")
    return body[8 : 8 + length], body[8 + length :]


def _write(path: Path, converted: Converted) -> None:
    """Remember a conversion, atomically, and let the oldest go."""
    xml, weights = converted
    body = len(xml).to_bytes(8, "big") + xml + weights
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(hashlib.sha256(body).digest() + body)
        newest_first = sorted(path.parent.glob("*.openvino"), key=lambda file: -file.stat().st_mtime)
        for file in newest_first[KEPT:]:
            file.unlink(missing_ok=True)
    except (MedsslError, OSError) as error:
        logger.warning("The converted network is not remembered: %s", error)
