"""Making an exported classifier int8: calibrated on unlabeled images, gated by its accuracy on validation images."""

from __future__ import annotations

import io
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from medssl.errors import ConfigError, InputError, MedsslError
from medssl.inference.backends.quiet_imports import import_quantization
from medssl.inference.int8_ladder import MOST_LOSS, Outcome, Recipe, find_recipe
from medssl.inference.onnx_model import import_onnx, layers, name_nodes, set_card, write_model
from medssl.inference.onnx_runner import FINDING, OnnxCard, OnnxClassifier, as_float, session, softmax
from medssl.io.files import atomic_path

logger = logging.getLogger(__name__)

METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""Our names of the calibrations -> onnxruntime's."""

BATCH = 4
"""Images that are calibrated on at once; the histograms hold every map of a batch in memory."""

PROBED = 16
"""Images on which the sensitivity of a layer is measured."""


FLOAT32_ALONE = ("abstain_below", "accuracy_above", FINDING)
"""What the card of an exported file says that does not hold for its 8-bit form."""


def quantize(path: Path | str, out: Path | str, images: np.ndarray, recipe: Recipe | None = None) -> None:
    """Write an exported classifier in int8: static, per channel, uint8 maps, int8 weights.

    What follows the last layer with weights (distances to centers, softmax) stays in float32.

    Args:
        path: File that `export_classifier` wrote.
        out: The int8 file; written to a temporary name and renamed.
        images: For calibration, prepared: unlabeled ones, or labeled training images where there are none; never
            validation or test images.
        recipe: None: the ranges are the extremes of 200 images, nothing is kept in float32.

    Shapes:
        images `(N, C, H, W)` uint8 or float in [0, 1]; the first `recipe.images` are used.

    Raises:
        ConfigError: onnx or onnxruntime is not installed, or there is no such calibration.
        InputError: There are no images.
        CheckpointError: The file is no exported classifier.
        OutputError: The int8 file cannot be written.

    Notes:
        A processor without VNNI adds up such products in 16 bits, where they may overflow: gate the file on the
        machine that will run it.
    """
    with TemporaryDirectory() as folder:
        card = OnnxClassifier(path).card
        prepared = _prepared(Path(path), Path(folder))
        _quantize_prepared(prepared, Path(out), images, recipe or Recipe(), card)


def quantize_within(
    path: Path | str,
    out: Path | str,
    images: np.ndarray,
    score: Callable[[OnnxClassifier], float],
    *,
    most_loss: float = MOST_LOSS,
    calibrated_on: int = 200,
    seed: int = 0,
) -> Outcome:
    """Write an exported classifier in int8 if a way is found that keeps its accuracy; see `find_recipe`.

    Args:
        path: File that `export_classifier` wrote.
        out: The int8 file; not written where no way is found.
        images: For calibration; twice as many are used where the first ways fail.
        score: Of a runner on the validation images, higher better (macro-F1).
        most_loss: How much lower than in float32 the score may be.
        calibrated_on: Images, drawn with the seed.
        seed: Same seed, same images.

    Returns:
        What was tried; `chosen` is None where float32 is to be kept. `str()` says it in a sentence.

    Raises:
        As `quantize`.
    """
    drawn = images[np.random.default_rng(seed).permutation(len(images))]
    reference = OnnxClassifier(path)
    with TemporaryDirectory() as folder:
        prepared = _prepared(Path(path), Path(folder))
        trial = Path(folder, "trial.onnx")
        weighted = layers(import_onnx().load(prepared, load_external_data=False))

        def score_of(recipe: Recipe) -> float:
            def make() -> OnnxClassifier:
                _quantize_prepared(prepared, trial, drawn, recipe, reference.card)
                return OnnxClassifier(trial)

            return _attempt(recipe, make, score)

        outcome = find_recipe(
            score_of,
            score(reference),
            ends=tuple(dict.fromkeys((weighted[0], weighted[-1]))),
            sensitive=lambda: sensitive_layers(
                prepared, drawn[:PROBED], softmax_inside=reference.card.softmax
            ),
            start=Recipe(images=min(calibrated_on, len(images))),
            more_images=min(2 * calibrated_on, len(images)),
            most_loss=most_loss,
        )
        if outcome.chosen is not None:
            with atomic_path(out) as temporary:
                shutil.copyfile(trial, temporary)
    logger.log(logging.WARNING if outcome.chosen is None else logging.DEBUG, "%s.", outcome)
    return outcome


def sensitive_layers(path: Path, images: np.ndarray, *, softmax_inside: bool = False) -> list[str]:
    """Return the layers of an ONNX file, first the one that changes the answer most when it alone is int8.

    Args:
        path: In float32.
        images: A few.
        softmax_inside: Whether the file answers with probabilities instead of scores.
    """

    def probabilities(file: Path) -> np.ndarray:
        found = _answers(file, images)
        return found if softmax_inside else softmax(found)

    expected = probabilities(path)
    changes: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        for name in layers(import_onnx().load(path)):
            one = Path(folder, "one.onnx")
            _quantize_prepared(path, one, images, Recipe(images=len(images)), only=[name])
            changes[name] = divergence(expected, probabilities(one))
    return sorted(changes, key=lambda name: -changes[name])


def divergence(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the mean Kullback-Leibler divergence of probabilities `(N, K)` from others."""
    p, q = expected.astype(np.float64), found.astype(np.float64)
    return float((p * np.log((p + 1e-12) / (q + 1e-12))).sum(1).mean())


class _Images:
    """What onnxruntime's calibration reads images from, a few at a time."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self.name = name
        self.batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
        self.left = list(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these batches."""
        self.left = self.batches[start_index:end_index]

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, None after the last."""
        return {self.name: as_float(self.left.pop(0))} if self.left else None


def _prepared(path: Path, folder: Path) -> Path:
    """Return a copy of an exported file, simplified as quantization wants it; as it is where that fails."""
    tools = _tools()
    prepared = folder / "prepared.onnx"
    try:
        with _silence():
            tools.shape_inference.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    except Exception:
        logger.info("%s is quantized as it is, since it cannot be simplified.", path.name, exc_info=True)
        shutil.copyfile(path, prepared)
    model = import_onnx().load(prepared)
    name_nodes(model)
    write_model(model, prepared)
    return prepared


def _quantize_prepared(
    prepared: Path,
    out: Path,
    images: np.ndarray,
    recipe: Recipe,
    card: OnnxCard | None = None,
    only: Sequence[str] = (),
) -> None:
    """Write what a recipe makes of a prepared file, with a card if there is one."""
    used = images[: recipe.images]
    _require(recipe, len(used))
    tools, model = _tools(), import_onnx().load(prepared)
    with atomic_path(out) as temporary, _silence():
        tools.quantize_static(
            str(prepared),
            str(temporary),
            _Images(model.graph.input[0].name, used),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            calibrate_method=tools.CalibrationMethod[METHODS[recipe.calibration]],
            nodes_to_quantize=list(only),
            nodes_to_exclude=[*recipe.keep, *_behind_last_layer(model)],
            extra_options={"CalibStridedMinMax": 1},  # a batch at a time, whatever the calibration
        )
        if card is not None:
            made = import_onnx().load(temporary)
            set_card(made, replace(card, precision="int8", extra={**_kept(card.extra), "int8": str(recipe)}))
            temporary.write_bytes(made.SerializeToString())


def _require(recipe: Recipe, images: int) -> None:
    if recipe.calibration not in METHODS:
        msg = f"Unknown calibration: found {recipe.calibration!r}, expected one of {sorted(METHODS)}."
        raise ConfigError(msg)
    if not images:
        msg = "Making a network int8 needs images to find the ranges of its maps: found none."
        raise InputError(msg, "Give unlabeled images, or labeled ones of the training set.")


def _behind_last_layer(model: Any) -> list[str]:
    names = [node.name for node in model.graph.node]
    return names[names.index(layers(model)[-1]) + 1 :]


def _attempt(
    recipe: Recipe, make: Callable[[], OnnxClassifier], score: Callable[[OnnxClassifier], float]
) -> float:
    """Return the score of what a recipe makes, NaN (and say why) where it cannot be made or run."""
    try:
        return float(score(make()))
    except MedsslError:
        raise
    except Exception as error:
        logger.debug("Traceback of int8 by %s.", recipe, exc_info=True)
        logger.warning("int8 by %s failed: %s: %s.", recipe, type(error).__name__, error)
        return math.nan


@contextmanager
def _silence() -> Iterator[None]:
    """Keep onnxruntime's tools from printing, and from logging under no name; other loggers are not touched."""
    root = logging.getLogger()
    root.addFilter(_nothing)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    """Let no record pass that was logged on this very logger; those of its children do not come by."""
    return False


def _answers(path: Path, images: np.ndarray) -> np.ndarray:
    runner = session(path)
    return runner.run(None, {runner.get_inputs()[0].name: as_float(images)})[0]


def _tools() -> Any:
    import_onnx()
    try:
        tools = import_quantization()
    except ImportError as error:
        msg = "Making a network int8 needs onnxruntime, which is not installed."
        raise ConfigError(msg, 'Install it with: pip install "medssl[export]".') from error
    return tools


def _kept(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return what holds for int8 too: a confidence to abstain below was chosen on the float32 file's."""
    return {name: value for name, value in extra.items() if name not in FLOAT32_ALONE}
