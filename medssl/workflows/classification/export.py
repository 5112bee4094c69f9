"""A classifier as files for phones and edge devices: ONNX in float32 and int8, each held to the network."""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medssl.errors import ConfigError, DatalistError, InputError, MedsslError, OutputError
from medssl.evaluation.classification import scores
from medssl.inference.int8 import quantize_within
from medssl.inference.int8_ladder import MOST_LOSS, Outcome
from medssl.inference.latency import Forms, SpeedGate, benchmark, speed_gate
from medssl.inference.onnx_classifier import Parity, export_classifier, parity
from medssl.inference.onnx_model import change_card
from medssl.inference.onnx_runner import FILES as ONNX_FILES
from medssl.inference.onnx_runner import FINDING, OnnxClassifier
from medssl.io.files import require_writable_folder, sha256_once, write_json
from medssl.io.image_cohort import ImageCohort, read_image_cohort
from medssl.io.image_items import ImageItem
from medssl.networks.compact import network_facts
from medssl.workflows.classification.evaluate import image_folders, images_of_run
from medssl.workflows.classification.models import ImageModel, load_classifier
from medssl.workflows.classification.predict import numbers_of, prepared, preprocessings
from medssl.workflows.classification.seen_images import never_learned
from medssl.workflows.classification.standalone_archive import write_standalone
from medssl.workflows.classification.thresholds import Promise, require_promise, thresholds_of

logger = logging.getLogger(__name__)

PARITY_IMAGES = 64
"""Images on which an exported file is compared with its network, at most."""

LEAST_PARITY_IMAGES = 32
"""Fewer are compared too, and it is said."""

CALIBRATION_IMAGES = 200
"""Unlabeled images that say how far the numbers inside the network reach."""

FILES = (*ONNX_FILES.values(), "predict.pyz", "export.json")
"""Of an export; the second only where it was asked for and good enough."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        folder: With ``model.onnx``, perhaps ``model.int8.onnx``, ``export.json``, and ``predict.pyz``, which runs them
            where neither medssl nor torch is.
        parity: Of the float32 file with the network.
        int8: What came of int8, None where it was not asked for.
        findings: File -> threshold of the finding, and what it reaches on the validation images.
        speed: The int8 file against the float32 one on this machine, one thread and one image; None without one.
    """

    folder: Path
    parity: Parity
    int8: Outcome | None
    findings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    speed: SpeedGate | None = None


def export_run(  # noqa: PLR0913 (one argument an option)
    model: Path,
    out: Path,
    data: Path | None = None,
    *,
    int8: bool = False,
    most_loss: float | None = None,
    softmax: bool = False,
    promise: Promise | None = None,
    overwrite: bool = False,
    allow_outside: bool = False,
) -> Exported:
    """Write a classifier as ONNX, in float32 and if asked for in int8.

    The float32 file is compared with the network on `PARITY_IMAGES` images, unlabeled ones first; a warning tells of
    fewer than `LEAST_PARITY_IMAGES`. The int8 file is calibrated on unlabeled images (labeled training images where
    there are none) and accepted if macro F1 on the validation images falls by `most_loss` at most. No image that is a
    test or validation image calibrates it, whatever it is called; validation images that the run learned from decide
    nothing; without any, those of the run do.

    Args:
        model: Run folder, bundle or ``.pt`` file.
        out: Folder to write.
        data: Folder or manifest with images; None for those that the run was trained with.
        int8: Whether to quantize; networks that are quantized by name, such as resnet18-int8, are wherever there are
            validation images.
        most_loss: How much lower the int8 file's macro F1 may be; None: `int8_ladder.MOST_LOSS`, a point.
        softmax: Whether the files answer with probabilities, temperature included, instead of scores.
        promise: What is wanted of one class; each file gets the threshold that keeps it on the validation images.
        overwrite: Replace files of an earlier export.
        allow_outside: Accept paths and links that leave the folder of the data.

    Raises:
        ConfigError: The promise names no class of the model, or a loss is allowed to an int8 file that is not to be.
        DatalistError: No images to compare or calibrate with, or none to validate the int8 file or the promise.
        MedsslError: The exported file answers otherwise than the network.
        OutputError: The folder holds an export, lies inside the run or the data, or cannot be written.
    """
    loaded = load_classifier(model)
    if most_loss is not None and not (int8 or _meant_as_int8(loaded)):
        msg = "--most-loss says what an 8-bit file may lose, and none is to be made."
        raise ConfigError(msg, "Add --int8.")
    require_writable_folder(out, [model, *image_folders(model, data)])
    present = [name for name in FILES if (out / name).exists()]
    folders = [name for name in present if (out / name).is_dir()]
    if folders or (present and not overwrite):
        msg = f"{out} holds {', '.join(folders or present)} already{' as a folder' if folders else ''}."
        raise OutputError(msg, "Give another --out." if folders else "Give another --out, or --overwrite.")
    cohort = _images(Path(model), data, allow_outside)
    pool, held_out = cohort.unlabeled or cohort.training, _held_out(Path(model), cohort, loaded)
    int8 = _with_int8(loaded, held_out, int8)
    require_promise(promise, held_out, loaded.card.classes)
    shown = _pixels(held_out, loaded) if held_out else np.zeros(0, np.uint8)
    with _new_files(out) as folder:
        path, small = (folder / name for name in ONNX_FILES.values())
        some = [*cohort.unlabeled, *cohort.training, *held_out][:PARITY_IMAGES]
        found = _exported(path, some, loaded, softmax=softmax)
        chosen = _chosen_for(path, held_out, shown, loaded, promise)
        kept = (*held_out, *cohort.validation, *cohort.test)
        outcome = _quantized(path, small, pool, kept, held_out, shown, loaded, most_loss) if int8 else None
        chosen_int8 = _chosen_for(small, held_out, shown, loaded, promise) if small.is_file() else {}
        speed = _speed(path, small, loaded) if small.is_file() else None
        write_standalone(folder / "predict.pyz")
        card = loaded.card
        write_json(
            folder / "export.json",
            {
                "model": loaded.name,
                "weights_sha256": loaded.weights_sha256,
                "classes": list(card.classes),
                "input": {
                    name: getattr(card, name)
                    for name in ("size", "channels", "interpolation", "fit", "white")
                },
                "temperature": card.temperature,
                "output": "probabilities" if softmax else "scores",
                **chosen,
                "parity": {**asdict(found), "passed": found.passed},
                "int8": None
                if outcome is None
                else {"sentence": str(outcome), **asdict(outcome), **chosen_int8},
            },
        )
    findings = {
        name: one[FINDING] for name, one in zip(FILES, (chosen, chosen_int8), strict=False) if FINDING in one
    }
    return Exported(out, found, outcome, findings, speed)


@contextmanager
def _new_files(out: Path) -> Iterator[Path]:
    """Yield a folder inside the new one, whose files take the place of an earlier export's if nothing goes wrong.

    ``export.json`` comes last: what it says holds for all files beside it.

    Raises:
        OutputError: The folder cannot be made, or not be written to.
    """
    was_there = out.exists()
    folder = out / f".partial-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        msg = f"The folder {out} cannot be written to ({error.strerror})."
        raise OutputError(msg, "Choose another --out, or change its permissions.") from error
    try:
        yield folder
        for name in FILES:
            if (folder / name).exists():
                (folder / name).replace(out / name)
            else:
                (out / name).unlink(missing_ok=True)  # of an earlier export
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not was_there and not any(out.iterdir()):
            out.rmdir()


def _exported(path: Path, images: Sequence[ImageItem], model: ImageModel, *, softmax: bool) -> Parity:
    """Write the float32 file and hold it to the network.

    Raises:
        MedsslError: It answers otherwise.
    """
    card = model.card
    export_classifier(
        model.network,
        path,
        card.classes,
        size=card.size,
        interpolation=card.interpolation,
        fit=card.fit,
        white=card.white,
        temperature=card.temperature,
        softmax=softmax,
    )
    found = parity(model.network, path, torch.from_numpy(_pixels(images, model)).float() / 255)
    if not found.passed:
        msg = f"The exported file does not answer as the network does: {found}."
        raise MedsslError(msg, "Please report this network; the checkpoint itself is unharmed.")
    if found.images < LEAST_PARITY_IMAGES:
        logger.warning(
            "The exported file was compared with its network on %d images only: at least %d are asked for. "
            "Give a folder with more: --data IMAGES.",
            found.images,
            LEAST_PARITY_IMAGES,
        )
    return found


def _with_int8(model: ImageModel, validation: Sequence[ImageItem], asked: bool) -> bool:
    """Tell whether an 8-bit file is to be made: where it is asked for, or where the network is meant to be one.

    Raises:
        DatalistError: It is asked for, and nothing shows what it costs.
    """
    if asked and not validation:
        msg = "There are no validation images to see what int8 costs."
        raise DatalistError(msg, "Give data with val/ images: --data IMAGES.")
    meant = _meant_as_int8(model)
    if meant and not validation:
        logger.warning("No 8-bit file is written: there are no validation images to see what it costs.")
    return asked or (meant and bool(validation))


def _meant_as_int8(model: ImageModel) -> bool:
    return network_facts(str(model.card.network["name"])).int8


def _chosen_for(
    path: Path, validation: Sequence[ImageItem], shown: np.ndarray, model: ImageModel, promise: Promise | None
) -> dict[str, Any]:
    """Choose the thresholds of a file on its own probabilities, and let the file say them."""
    if not validation:
        return {}
    q = OnnxClassifier(path).probabilities(shown)
    chosen = thresholds_of(q, validation, model.card.classes, promise)
    change_card(path, chosen)
    return chosen


def _images(model: Path, data: Path | None, allow_outside: bool) -> ImageCohort:
    """Return the images to export with.

    Raises:
        InputError: None are known.
    """
    place = data if data is not None else model / "images.csv"
    if data is None and not place.is_file():
        msg = f"{model.name} does not say which images it was trained with."
        raise InputError(msg, "Give a folder of images: --data IMAGES.")
    cohort = read_image_cohort(place, allow_outside=allow_outside or data is None)
    if not (cohort.unlabeled or cohort.training):
        msg = f"{place.name} holds no image to hold the exported file to."
        raise DatalistError(msg, "Give a folder with unlabelled/ or train/ images: --data IMAGES.")
    return cohort


def _speed(path: Path, small: Path, model: ImageModel) -> SpeedGate:
    """Time both files; which is the faster one depends on the machine, so nothing of it stays with them."""
    shape = (model.card.channels, model.card.size, model.card.size)
    return speed_gate(benchmark(Forms(None, path, small), shape))


def _held_out(run: Path, cohort: ImageCohort, model: ImageModel) -> tuple[ImageItem, ...]:
    """Return the validation images that the model never learned from; those of its run where there are none."""
    found = never_learned(cohort.validation, run)
    if learned := len(cohort.validation) - len(found):
        logger.warning(
            "%d of %d validation images were labeled training images of %s: they decide nothing here.",
            learned,
            len(cohort.validation),
            model.name,
        )
    return found or images_of_run(run, model.card.classes).validation


def _calibrating(pool: Sequence[ImageItem], held_out: Sequence[ImageItem]) -> list[ImageItem]:
    """Draw the images to calibrate with: none whose file is one of the images that are held out."""
    order = np.random.default_rng(0).permutation(len(pool))
    forbidden = {sha256_once(item.path) for item in held_out if item.path.is_file()}
    drawn = (pool[place] for place in order)
    return list(
        islice((item for item in drawn if sha256_once(item.path) not in forbidden), 2 * CALIBRATION_IMAGES)
    )


def _quantized(
    path: Path,
    out: Path,
    pool: Sequence[ImageItem],
    kept: Sequence[ImageItem],
    validation: Sequence[ImageItem],
    shown: np.ndarray,
    model: ImageModel,
    most_loss: float | None,
) -> Outcome:
    labels = numbers_of(validation, model.card.classes)
    calibrating = _calibrating(pool, kept)
    if not calibrating:
        msg = "Every image to calibrate the 8-bit file with is a validation or test image."
        raise DatalistError(msg, "Give a folder with other images in unlabelled/ or train/: --data IMAGES.")
    images = _pixels(calibrating, model)

    def macro_f1(runner: OnnxClassifier) -> float:
        found = scores(labels, runner.probabilities(shown), model.card.classes, draws=0)
        return float(found.measures["macro_f1"])

    allowed = MOST_LOSS if most_loss is None else most_loss
    return quantize_within(path, out, images, macro_f1, most_loss=allowed, calibrated_on=CALIBRATION_IMAGES)


def _pixels(items: Sequence[ImageItem], model: ImageModel) -> np.ndarray:
    """Read and prepare images, ``(N, C, S, S)`` uint8."""
    return torch.cat(list(prepared(items, preprocessings(model.card)))).numpy()
