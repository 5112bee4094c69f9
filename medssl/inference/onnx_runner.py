"""OnnxClassifier: an exported classifier, run without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medssl.errors import CheckpointError, ConfigError, InputError
from medssl.inference.backends.quiet_imports import import_onnxruntime

KEY = "medssl"
"""Under which an ONNX file's metadata hold the card, as JSON."""

FILES = {"float32": "model.onnx", "int8": "model.int8.onnx"}
"""Precision -> file of an export."""

FINDING = "finding"
"""Under which a card's `extra` holds the class that was exported for, its threshold and what that reaches."""

FORM = 2
"""Number of the card's form; 1 lacked fit and white."""


@dataclass(frozen=True)
class OnnxCard:
    """What an exported file says about itself; enough to prepare images and to name the answer.

    Attributes:
        network: Name in the registry.
        classes: In the order of the scores.
        size: Side of the images in pixels.
        channels: 1 gray, 3 color.
        interpolation: With which images are brought to that size.
        mean: A channel; subtracted inside the graph from images in [0, 1].
        std: Likewise.
        temperature: What scores are divided by before the softmax.
        softmax: Whether temperature and softmax are in the graph already.
        precision: "float32" or "int8".
        fit: How images that are not square become so.
        white: Value of 16-bit images that becomes white; None: each image's own depth.
        extra: Whatever else was written at export, as plain values.
    """

    network: str
    classes: tuple[str, ...]
    size: int
    channels: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    temperature: float = 1.0
    softmax: bool = False
    precision: str = "float32"
    fit: str = "crop"
    white: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the card as text."""
        return json.dumps({"form": FORM, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, name: str) -> OnnxCard:
        """Read the card of the file `name`.

        Raises:
            CheckpointError: It is none, or of a later version.
        """
        try:
            values = json.loads(text)
            form = values.pop("form")
            card = cls(
                **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            msg = f"{name} does not say what it classifies: its metadata '{KEY}' are damaged ({error})."
            raise CheckpointError(msg, "Export the classifier again.") from error
        if form not in (1, FORM):
            msg = f"{name} was exported by another version of medssl: form {form}, expected {FORM}."
            raise CheckpointError(msg, "Export the classifier again.")
        return card


class OnnxClassifier:
    """Run an exported classifier with onnxruntime on the CPU.

    Args:
        path: File that `export_classifier` or the int8 quantization wrote.
        threads: None: as many as onnxruntime takes by itself.

    Attributes:
        card: See `OnnxCard`; its fields `classes`, `size`, `channels` and `interpolation` are attributes here too.

    Raises:
        ConfigError: onnxruntime is not installed.
        InputError: There is no such file.
        CheckpointError: It is no ONNX file, or none that was exported here.
    """

    def __init__(self, path: Path | str, *, threads: int | None = None) -> None:
        self.path = Path(path)
        self._session = session(self.path, threads)
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY, "")
        self.card = OnnxCard.from_json(text, self.path.name)
        self._input = self._session.get_inputs()[0].name
        self.classes = self.card.classes
        self.size = self.card.size
        self.channels = self.card.channels
        self.interpolation = self.card.interpolation

    def probabilities(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Return the probabilities of the classes.

        Args:
            images: Prepared: right size, right channels.
            batch_size: Images a pass.

        Shapes:
            `(N, channels, size, size)` uint8 or float in [0, 1] to `(N, K)` float32

        Raises:
            InputError: Images of another shape.
        """
        found = self.scores(images, batch_size)
        return found if self.card.softmax else softmax(found / self.card.temperature)

    def scores(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Return what the graph itself answers: scores, or probabilities where the softmax is in it."""
        expected = (self.channels, self.size, self.size)
        if images.ndim != 4 or images.shape[1:] != expected:
            msg = (
                f"{self.path.name} expects images (N, {', '.join(map(str, expected))}): found {images.shape}."
            )
            raise InputError(msg, "Prepare them with the size, channels and interpolation of its card.")
        found = [
            self._answer(as_float(images[first : first + batch_size]))
            for first in range(0, len(images), batch_size)
        ]
        return np.concatenate(found) if found else np.zeros((0, len(self.classes)), np.float32)

    def _answer(self, images: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._session.run(None, {self._input: images})[0]
        return found


def session(path: Path, threads: int | None = None) -> Any:
    """Open an ONNX file with onnxruntime on the CPU.

    Raises:
        ConfigError: onnxruntime is not installed.
        InputError: There is no such file.
        CheckpointError: It is no ONNX file.
    """
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        msg = "Exported classifiers need onnxruntime, which is not installed."
        raise ConfigError(msg, "Install it with: pip install onnxruntime.") from error
    if not path.is_file():
        msg = f"There is no exported classifier at {path}."
        raise InputError(msg, "Check the path.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        msg = f"{path.name} cannot be run as ONNX ({type(error).__name__})."
        raise CheckpointError(msg, "Export the classifier again.") from error


def as_float(images: np.ndarray) -> np.ndarray:
    """Return images as float32 in [0, 1]."""
    values = np.ascontiguousarray(images, dtype=np.float32)
    return values / 255 if images.dtype == np.uint8 else values


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return probabilities over the last axis, float32."""
    exponent = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    return (exponent / exponent.sum(axis=-1, keepdims=True)).astype(np.float32)
