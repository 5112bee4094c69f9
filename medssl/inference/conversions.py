"""Networks converted for OpenVINO, remembered in a folder of the user's: converting takes a tenth of a call."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import medssl
from medssl.errors import MedsslError
from medssl.inference.machine import version_of
from medssl.io.files import atomic_path

logger = logging.getLogger(__name__)

Converted = tuple[bytes, bytes]
"""OpenVINO's XML and weights."""

FORM = 1
"""Number of the file's form; files of another one are not looked at."""

KEPT, LARGEST = 16, 2**26
"""Networks that are kept, the newest; those of more bytes are converted every time."""

SEAL = 32
"""Bytes of the SHA-256 with which a file begins."""

LIBRARIES = ("torch", "monai", "openvino")
CODE = ("networks", "functional", "inference")
"""Packages of medssl that decide what a conversion is."""

_USUAL = frozenset(vars(nn.Module())) | {"training"}
"""What every module has; weights and parts are hashed as such."""


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
        if sum(map(len, found)) <= LARGEST:
            _write(path, found)
            _let_the_oldest_go(path)
    return found


def fingerprint(network: nn.Module) -> str | None:
    """Return the SHA-256 of all that decides what a network's conversion is; None where that cannot be known.

    That is its weights, its modules and their settings, the code of medssl that runs or converts networks, and the
    versions of the libraries. Known are modules of medssl, MONAI and torch whose settings are numbers, texts and
    collections of them, without hooks: not TorchScript, traced graphs or classes from elsewhere.
    """
    parts = list(network.named_modules(remove_duplicate=False))
    if not all(_is_known(module) for _, module in parts):
        return None
    digest = hashlib.sha256(repr([FORM, medssl.__version__, *map(version_of, LIBRARIES)]).encode())
    home = Path(medssl.__file__).parent
    try:
        for file in sorted(file for name in CODE for file in (home / name).rglob("*.py")):
            digest.update(file.read_bytes())
    except OSError:
        return None
    for name, module in parts:
        digest.update(repr((name, type(module).__qualname__, sorted(_settings(module).items()))).encode())
    tensors: Iterable[tuple[str, torch.Tensor]] = [
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ]
    for name, values in tensors:
        digest.update(repr((name, values.dtype, tuple(values.shape))).encode())
        digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _is_known(module: nn.Module) -> bool:
    if isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)):
        return False
    ancestors = {ancestor.__module__.partition(".")[0] for ancestor in type(module).__mro__}
    hooked = any(getattr(module, name) for name in _USUAL if name.startswith("_forward"))
    return (
        ancestors <= {"medssl", "monai", "torch", "builtins"}
        and not hooked
        and all(map(_is_plain, _settings(module).values()))
    )


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return what was set on a module, beside its weights and parts."""
    return {name: value for name, value in vars(module).items() if name not in _USUAL}


def _is_plain(value: object) -> bool:
    """Tell whether a value's `repr` says all there is to it, and the same in every process."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype))


def _read(path: Path) -> Converted | None:
    """Return what a file holds; None where it is missing, or damaged, which is said."""
    try:
        whole = memoryview(path.read_bytes())
    except OSError:
        return None
    body = whole[SEAL:]
    if hashlib.sha256(body).digest() != whole[:SEAL]:
        logger.warning("%s in the cache of backends is damaged; converting anew.", path.name)
        return None
    length = int.from_bytes(body[:8], "big")
    return bytes(body[8 : 8 + length]), bytes(body[8 + length :])


def _write(path: Path, converted: Converted) -> None:
    """Remember a conversion, atomically."""
    xml, weights = converted
    body = b"".join((len(xml).to_bytes(8, "big"), xml, weights))
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(hashlib.sha256(body).digest() + body)
    except (MedsslError, OSError) as error:
        logger.warning("The converted network is not remembered: %s", error)


def _let_the_oldest_go(newest: Path) -> None:
    """Keep as many files as are kept, the newest of them in any case; another process may do the same."""
    ages = []
    for file in newest.parent.glob("[!.]*.openvino"):
        try:
            ages.append((file == newest, file.stat().st_mtime, file))
        except OSError:
            continue
    for _, _, file in sorted(ages, reverse=True)[KEPT:]:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            logger.debug("%s stays: %s", file.name, error)
