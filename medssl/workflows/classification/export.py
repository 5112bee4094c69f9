"""A classifier as files for phones and edge devices: ONNX in float32 and int8, each held to the network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from medssl.errors import DatalistError, InputError, MedsslError, OutputError
from medssl.evaluation.classification import scores
from medssl.evaluation.operating_points import choose_abstain_threshold
from medssl.inference.int8 import quantize_within
from medssl.inference.int8_ladder import Outcome
from medssl.inference.onnx_classifier import Parity, export_classifier, parity
from medssl.inference.onnx_runner import OnnxClassifier
from medssl.io.files import require_writable_folder, write_json
from medssl.io.image_cohort import ImageCohort, read_image_cohort
from medssl.io.image_items import ImageItem
from medssl.networks.compact import network_facts
from medssl.workflows.classification.evaluate import LEAST_ACCURACY
from medssl.workflows.classification.models import ImageModel, load_classifier
from medssl.workflows.classification.predict import numbers_of, predict_items, prepared

logger = logging.getLogger(__name__)

PARITY_IMAGES = 64
"""Images on which an exported file is compared with its network."""

CALIBRATION_IMAGES = 200
"""Unlabeled images that say how far the numbers inside the network reach."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        folder: With ``model.onnx``, perhaps ``model.int8.onnx``, and ``export.json``.
        parity: Of the float32 file with the network.
        int8: What came of int8, None where it was not asked for.
    """

    folder: Path
    parity: Parity
    int8: Outcome | None


def export_run(
    model: Path,
    out: Path,
    data: Path | None = None,
    *,
    int8: bool = False,
    overwrite: bool = False,
    allow_outside: bool = False,
) -> Exported:
    """Write a classifier as ONNX, in float32 and if asked for in int8.

    The int8 file is calibrated on unlabeled images (labeled training images where there are none) and accepted
    if macro F1 on the validation images falls by a point at most; test images are not looked at.

    Args:
        model: Run folder, bundle or ``.pt`` file.
        out: Folder to write.
        data: Folder or manifest with images; None for those that the run was trained with.
        int8: Whether to quantize; networks that are quantized by name, such as resnet18-int8, are wherever there are
            validation images.
        overwrite: Replace files of an earlier export.
        allow_outside: Accept paths and links that leave the folder of the data.

    Raises:
        DatalistError: No images to compare or calibrate with, or none to validate the int8 file.
        MedsslError: The exported file answers otherwise than the network.
        OutputError: The folder holds an export, or cannot be written.
    """
    loaded = load_classifier(model)
    require_writable_folder(out, [model])
    if (out / "model.onnx").exists() and not overwrite:
        msg = f"{out} holds an export already."
        raise OutputError(msg, "Give another --out, or --overwrite.")
    cohort = _images(Path(model), data, allow_outside)
    if int8 and not cohort.validation:
        msg = "There are no validation images to see what int8 costs."
        raise DatalistError(msg, "Give data with val/ images: --data IMAGES.")
    if network_facts(str(loaded.card.network["name"])).int8 and not int8:
        int8 = bool(cohort.validation)
        if not int8:
            logger.warning("No 8-bit file is written: there are no validation images to see what it costs.")
    pool = cohort.unlabeled or cohort.training
    card = loaded.card
    path = out / "model.onnx"
    abstain = _abstain_below(loaded, cohort.validation)
    export_classifier(
        loaded.network,
        path,
        card.classes,
        size=card.size,
        interpolation=card.interpolation,
        fit=card.fit,
        white=card.white,
        temperature=card.temperature,
        extra=abstain,
    )
    found = parity(loaded.network, path, torch.cat(list(prepared(pool[:PARITY_IMAGES], card))).float() / 255)
    if not found.passed:
        path.unlink()
        msg = f"The exported file does not answer as the network does: {found}."
        raise MedsslError(msg, "Please report this network; the checkpoint itself is unharmed.")
    (out / "model.int8.onnx").unlink(missing_ok=True)  # of an export that is overwritten
    outcome = _quantized(path, out / "model.int8.onnx", pool, cohort.validation, loaded) if int8 else None
    write_json(
        out / "export.json",
        {
            "model": loaded.name,
            "weights_sha256": loaded.weights_sha256,
            "classes": list(card.classes),
            "input": {
                name: getattr(card, name) for name in ("size", "channels", "interpolation", "fit", "white")
            },
            "temperature": card.temperature,
            **abstain,
            "parity": {**asdict(found), "passed": found.passed},
            "int8": None if outcome is None else {"sentence": str(outcome), **asdict(outcome)},
        },
    )
    return Exported(out, found, outcome)


def _abstain_below(model: ImageModel, validation: Sequence[ImageItem]) -> dict[str, float]:
    """Return the confidence from which enough answers on the validation images are right; nothing where none is."""
    if not validation:
        return {}
    q = predict_items(validation, [model]).probabilities
    chosen = choose_abstain_threshold(numbers_of(validation, model.card.classes), q, LEAST_ACCURACY)
    return {} if chosen is None else {"abstain_below": chosen.threshold, "accuracy_above": LEAST_ACCURACY}


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


def _quantized(
    path: Path, out: Path, pool: Sequence[ImageItem], validation: Sequence[ImageItem], model: ImageModel
) -> Outcome:
    labels = numbers_of(validation, model.card.classes)
    held_out = torch.cat(list(prepared(validation, model.card))).numpy()
    order = np.random.default_rng(0).permutation(len(pool))[: 2 * CALIBRATION_IMAGES]
    images = torch.cat(list(prepared([pool[place] for place in order], model.card))).numpy()

    def macro_f1(runner: OnnxClassifier) -> float:
        found = scores(labels, runner.probabilities(held_out), model.card.classes, draws=0)
        return float(found.measures["macro_f1"])

    return quantize_within(path, out, images, macro_f1, calibrated_on=CALIBRATION_IMAGES)
