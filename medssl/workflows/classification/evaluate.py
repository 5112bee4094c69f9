"""Scores of a classifier on labeled images, with everything a reader needs to trust or doubt them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medssl.errors import DatalistError, OutputError
from medssl.evaluation.classification import ClassificationScores, scores
from medssl.evaluation.operating_points import (
    AbstainPoint,
    OperatingPoint,
    choose_abstain_threshold,
    score_abstaining,
)
from medssl.inference.onnx_runner import FINDING
from medssl.io.files import read_json, require_writable_folder, write_json
from medssl.io.image_cohort import ImageCohort, folders_of_images, read_image_cohort
from medssl.workflows.classification.models import ImageModel, open_classifier
from medssl.workflows.classification.predict import (
    Predictions,
    Progress,
    numbers_of,
    predict_items,
    write_predictions,
)
from medssl.workflows.classification.seen_images import remarks_on_seen_images
from medssl.workflows.classification.thresholds import LEAST_ACCURACY, finding_of
from medssl.workflows.classification.train import cohort_of_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What a classifier answers on labeled images.

    Args:
        section: "test", "validation" or "training".
        scores: See `evaluation.classification.scores`.
        abstaining: Coverage and accuracy with the threshold that an exported file holds, else with one chosen on the
            validation images, or None.
        predictions: Of the images, in their order.
        labels: True class numbers.
        model: Which was scored.
        views: Whose probabilities were averaged.
        finding: Sensitivity and specificity with the threshold that an exported file holds, or None.
        warnings: What a reader must know of the images, in sentences.
        backend: What ran an exported file, where one was named.
    """

    section: str
    scores: ClassificationScores
    abstaining: AbstainPoint | None
    predictions: Predictions
    labels: np.ndarray
    model: ImageModel
    views: tuple[str, ...] = ("identity",)
    finding: OperatingPoint | None = None
    warnings: tuple[str, ...] = ()
    backend: str | None = None


def evaluate_classifier(
    data: Path,
    model: Path,
    *,
    section: str = "test",
    views: tuple[str, ...] = ("identity",),
    device: str = "cpu",
    backend: str | None = None,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a classifier on a section of a folder of images.

    Args:
        data: Folder or manifest.
        model: Run folder, bundle, ``.pt`` file, or exported ``.onnx`` file.
        section: Which images. Nothing is chosen on them.
        views: Whose probabilities are averaged.
        device: "cpu", "cuda", ...
        backend: What runs an exported file, see `models.BACKENDS`.
        allow_outside: Accept paths and links that leave the folder of the data.
        progress: See `predict.Progress`.

    Raises:
        DatalistError: The section holds no image.
        InputError: A class that the model does not know, or test images that the run was trained with.
    """
    loaded = open_classifier(model, device, backend)
    cohort = read_image_cohort(data, allow_outside=allow_outside)
    items = cohort.section(section)
    if not items:
        msg = f"{data.name} holds no {section} image."
        raise DatalistError(msg, "Put labeled images into test/, or name another --section.")
    labels = numbers_of(items, loaded.card.classes)
    seen = remarks_on_seen_images(items, section, Path(model))
    for remark in seen:
        logger.warning("%s", remark)
    predictions = predict_items(items, [loaded], views, progress)
    threshold = loaded.card.extra.get("abstain_below")
    validation = cohort.validation or images_of_run(model, loaded.card.classes).validation
    if threshold is None and section == "test" and validation:
        held_out = predict_items(validation, [loaded], views, progress)
        chosen = choose_abstain_threshold(
            numbers_of(validation, loaded.card.classes), held_out.probabilities, LEAST_ACCURACY
        )
        if chosen is not None:  # None: no threshold reaches that accuracy on the validation images
            threshold = chosen.threshold
    abstaining = None
    if threshold is not None:
        abstaining = score_abstaining(labels, predictions.probabilities, float(threshold))
    found = scores(labels, predictions.probabilities, loaded.card.classes)
    finding = finding_of(loaded.card.extra, loaded.card.classes, labels, predictions.probabilities)
    return Evaluation(
        section, found, abstaining, predictions, labels, loaded, tuple(views), finding, seen, backend
    )


def images_of_run(model: Path, classes: Sequence[str]) -> ImageCohort:
    """Return the images that a run used; none where the model is no run, or where they are no longer there.

    Those that were held out of a folder without ``val/``, and those of ``--unlabeled``, stand nowhere else.
    """
    if (Path(model) / "images.csv").is_file():
        try:
            return cohort_of_run(Path(model), classes)
        except DatalistError as error:
            logger.info("The images that %s was trained with are not used: %s", Path(model).name, error)
    return ImageCohort(Path(model), tuple(classes))


def image_folders(model: Path, data: Path | None = None) -> list[Path]:
    """Return where the images lie that are given or else those of a run, as far as that is known.

    Nothing is ever written there, see `folders_of_images`.
    """
    if data is not None:
        return folders_of_images(data)
    record = model / "run.json"
    places = [model / read_json(record)["data"], model / "images.csv"] if record.is_file() else []
    return [folder for place in places for folder in folders_of_images(place)]


def require_new_evaluation(out: Path, data: Path, overwrite: bool = False) -> None:
    """Refuse a folder for an evaluation, before anything is scored for it; write nothing.

    Raises:
        OutputError: The folder holds an evaluation already, lies inside the data, or cannot be written.
    """
    require_writable_folder(out, folders_of_images(data))
    if (out / "scores.json").exists() and not overwrite:
        msg = f"{out} holds an evaluation already."
        raise OutputError(msg, "Give another --out, or --overwrite.")


def write_evaluation(out: Path, result: Evaluation, data: Path, overwrite: bool = False) -> Path:
    """Write ``scores.json``, ``predictions.csv`` and return the folder.

    Raises:
        OutputError: See `require_new_evaluation`.
    """
    require_new_evaluation(out, data, overwrite)
    finding = result.model.card.extra.get(FINDING)
    write_predictions(out / "predictions.csv", result.predictions, finding=finding)
    found = result.scores
    write_json(
        out / "scores.json",
        {
            "section": result.section,
            "model": result.model.name,
            "weights_sha256": result.model.weights_sha256,
            **({} if result.backend is None else {"backend": result.backend}),
            **found.record(),
            "abstaining": None if result.abstaining is None else asdict(result.abstaining),
            "finding": None if result.finding is None else asdict(result.finding),
            "warnings": list(result.warnings),
        },
    )
    return out
