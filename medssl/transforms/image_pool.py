"""Images read and prepared once: 8 bits a value, in memory or in a file that is mapped into it."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medssl.cores import cores
from medssl.errors import ConfigError, InputError, MedsslError, OutputError
from medssl.labels import UNKNOWN

logger = logging.getLogger(__name__)

MEMORY_LIMIT = 4 * 1024**3
"""Bytes of images that are kept in memory; more go into a file."""

_SHOWN = 10
"""Unusable images that an error names."""


class ImagePool:
    """Read and prepare every image once and keep them as 8-bit tensors.

    Args:
        data: One mapping an image: ``image`` path, ``label`` class number?, ``weight``?.
        read: Turns a path into an array ``(H, W, C)`` (`io.images.read_image`).
        preprocessing: Turns that into a uint8 tensor ``(C, S, S)``, always of one shape.
        cache: Folder for the file that holds more images than fit into memory. It is named after the paths,
            sizes and times of the images and the preprocessing, and used again where it is found.
        prepared: Called with (done, all) after each image, for progress.
        memory_limit: Bytes of images from which on they go into the file.
        workers: Threads that read.
        targets: ``(N, K)`` target distributions that were stored before.

    Attributes:
        images: ``(N, C, S, S)`` uint8.
        label: ``(N,)`` int64; 255 where unknown.
        weight: ``(N,)`` float32; 1 where none is given.
        targets: ``(N, K)`` target distributions of a round, or None.

    Raises:
        InputError: Images cannot be read or prepared, all of them named; or their shapes differ.
        ConfigError: They need a file and there is no folder for it.
        OutputError: The file cannot be written.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        read: Callable[[Path], NDArray[Any]],
        preprocessing: Callable[[NDArray[Any]], Tensor],
        *,
        cache: str | None = None,
        prepared: Callable[[int, int], None] | None = None,
        memory_limit: int = MEMORY_LIMIT,
        workers: int | None = None,
        targets: Tensor | None = None,
    ) -> None:
        self.data = list(data)
        self.label = torch.tensor([int(item.get("label", UNKNOWN)) for item in self.data], dtype=torch.int64)
        self.weight = torch.tensor([float(item.get("weight", 1)) for item in self.data], dtype=torch.float32)
        self.targets = targets
        paths = [Path(item["image"]) for item in self.data]
        stored = None if cache is None else Path(cache) / f"images-{_key(paths, preprocessing)}.npy"
        if stored is not None and stored.is_file():
            self.images = _mapped(stored)
            logger.debug("%d images found prepared in %s", len(paths), stored)
            if prepared is not None:
                prepared(len(paths), len(paths))
            return
        with ThreadPoolExecutor(workers or min(8, cores())) as threads:
            results = threads.map(lambda path: _result(path, read, preprocessing), paths)
            try:
                self.images = _kept(_usable(results, paths, prepared), len(paths), stored, memory_limit)
            finally:
                threads.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return len(self.data)

    def digest(self) -> str:
        """Return the sha256 of all pixels and labels in their order: what a training that goes on has to find again."""
        found = hashlib.sha256(self.label.numpy().tobytes())
        for some in self.images.split(1024):
            found.update(some.contiguous().numpy().tobytes())
        return found.hexdigest()

    def at(self, place: Tensor, device: str | torch.device = "cpu") -> Tensor:
        """Return some images, float32 in [0, 1].

        Args:
            place: Their numbers in the pool.
            device: Where they go; they are moved as 8 bits.

        Shapes:
            place: ``(B,)`` int64; return: ``(B, C, S, S)``
        """
        return self.images.index_select(0, place).to(device).float().div_(255)


class EvenSamples:
    """Some images of a pool one by one and unchanged, spread evenly over it: a pool may be sorted by class.

    Args:
        pool: Images.
        samples: How many; all where there are fewer.

    Yields:
        ``image (C, H, W)`` in [0, 1], ``label (1,)`` int64, ``mask (1,)`` of ones.

    Attributes:
        cache: Empty where the pool is.
    """

    def __init__(self, pool: ImagePool, samples: int) -> None:
        self.pool, self.cache = pool, pool.data
        self.samples = min(samples, len(pool))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for number in range(self.samples):
            place = torch.tensor([number * len(self.pool) // self.samples])
            yield {"image": self.pool.at(place)[0], "label": self.pool.label[place], "mask": torch.ones(1)}


def _result(
    path: Path, read: Callable[[Path], NDArray[Any]], preprocessing: Callable[[NDArray[Any]], Tensor]
) -> Tensor | str:
    """Return a prepared image, or the reason why there is none."""
    try:
        return preprocessing(read(path))
    except MedsslError as error:
        return str(error.finding or error)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def _usable(
    results: Iterable[Tensor | str], paths: Sequence[Path], prepared: Callable[[int, int], None] | None
) -> Iterator[Tensor]:
    """Yield the images that are usable; raise for all the others once every one was looked at."""
    reasons: list[str] = []
    shape: torch.Size | None = None
    for done, (path, result) in enumerate(zip(paths, results, strict=True), start=1):
        if isinstance(result, str):
            reasons.append(result if str(path) in result else f"{path}: {result}")
        elif result.dtype != torch.uint8 or result.shape != (shape or result.shape):
            found = f"{tuple(result.shape)} {result.dtype}"
            reasons.append(f"{path}: prepared as {found}, expected {tuple(shape or result.shape)} uint8")
        else:
            shape = result.shape
            yield result
        if prepared is not None:
            prepared(done, len(paths))
    if reasons:
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        msg = f"{len(reasons)} of {len(paths)} images cannot be used: {'; '.join(reasons[:_SHOWN])}{more}."
        raise InputError(msg, "Repair them, or leave them out.")


def _kept(images: Iterator[Tensor], count: int, stored: Path | None, memory_limit: int) -> Tensor:
    """Put images into memory, or into a file where they are too many."""
    first = next(images, None)
    if first is None:
        return torch.empty(0, dtype=torch.uint8)
    images, shape = chain([first], images), (count, *first.shape)
    size = f"{count} images of {tuple(first.shape)} ({count * first.numel() / 2**20:.0f} MiB)"
    if count * first.numel() <= memory_limit:
        kept = torch.empty(shape, dtype=torch.uint8)
        for place, image in enumerate(images):
            kept[place] = image
        logger.debug("%s prepared in memory", size)
        return kept
    if stored is None:
        msg = f"{size} are more than the {memory_limit / 2**20:.0f} MiB that are kept in memory."
        raise ConfigError(msg, "Name a folder for the cache, or raise the memory limit.")
    _write(images, shape, stored)
    logger.debug("%s prepared in %s", size, stored)
    return _mapped(stored)


def _write(images: Iterable[Tensor], shape: tuple[int, ...], path: Path) -> None:
    """Write images one after the other into an NPY file that has its name only when it is whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                for image in images:
                    stream.write(image.contiguous().numpy().tobytes())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        msg = f"Cannot write the prepared images to {path.parent}: {error.strerror or error}."
        raise OutputError(msg, "Choose another folder for the cache, or free some space.") from error


def _mapped(path: Path) -> Tensor:
    """Map a file into memory; what is written to the tensor does not reach it."""
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _key(paths: Sequence[Path], preprocessing: object) -> str:
    """Return what names the prepared images of some files: another file or step, another name."""
    step = repr(preprocessing)
    if " at 0x" in step:
        msg = f"Prepared images cannot be named after {step}: its text does not say what it does."
        raise ConfigError(msg, "Use image_preprocessing, or give no cache.")
    content = json.dumps([step, [_fingerprint(path) for path in paths]])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _fingerprint(path: Path) -> list[object]:
    try:
        status = path.stat()
    except OSError:
        return [str(path)]
    return [str(path), status.st_size, status.st_mtime_ns]
