"""Classes and probabilities of images, from a checkpoint or an exported file alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl.errors import CheckpointError, ImageError, InputError
from medssl.inference.classification import predict_probabilities
from medssl.inference.onnx_runner import FINDING
from medssl.io.classifier_card import ClassifierCard
from medssl.io.files import require_writable_file
from medssl.io.image_cohort import ImageCohort, find_images
from medssl.io.image_items import ImageItem
from medssl.io.image_leaks import check_images
from medssl.io.images import naming, read_image
from medssl.io.prediction_table import write_prediction_table
from medssl.transforms.classification import image_preprocessing
from medssl.transforms.image_views import image_views
from medssl.workflows.classification.models import ImageModel, open_classifier

logger = logging.getLogger(__name__)

BATCH = 64
"""Images that are predicted at once."""

Progress = Callable[[str, int, int], None]
"""Called with (name, done, all)."""


@dataclass(frozen=True)
class Predictions:
    """What a classifier says about some images.

    Args:
        names: Of the images, as they were found.
        classes: In the order of the columns.
        probabilities: ``(N, K)``, calibrated by the model's temperature.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray


def predict_items(
    items: Sequence[ImageItem],
    models: Sequence[ImageModel],
    views: Sequence[str] = ("identity",),
    progress: Progress | None = None,
) -> Predictions:
    """Average the probabilities of classifiers over views.

    Args:
        items: Images.
        models: One or several, all with the same classes and input.
        views: Names of `transforms.image_views.VIEWS`.
        progress: See `Progress`.

    Raises:
        ConfigError: A view is unknown.
        CheckpointError: The models do not belong together.
        ImageError: An image cannot be read.
    """
    mean = predict_passes(items, models, views, progress, each=False)
    return Predictions(
        tuple(item.name for item in items), tuple(models[0].card.classes), mean.double().numpy()
    )


def predict_passes(
    items: Sequence[ImageItem],
    models: Sequence[ImageModel],
    views: Sequence[str],
    progress: Progress | None = None,
    *,
    each: bool = True,
) -> Tensor:
    """Return the probabilities of every model for every view, or their mean.

    Shapes:
        return: ``(M, N, K)``, M models times views, the views of the first model first; ``(N, K)`` as a mean
    """
    _require_same_classes(models)
    if not items:
        shape = (0, len(models[0].card.classes))
        return torch.zeros((len(models) * len(views), *shape) if each else shape)
    passes = [
        predict_probabilities(
            model.network,
            prepared(items, model.card, progress),
            views=image_views(views),
            temperatures=[model.card.temperature],
            batch_size=BATCH,
            each=each,
        )
        for model in models
    ]
    return torch.cat(passes) if each else torch.stack(passes).mean(0)


def _require_same_classes(models: Sequence[ImageModel]) -> None:
    """Refuse to average models of other classes; each prepares images as it needs them.

    Raises:
        CheckpointError: Which one differs.
    """
    for model in models[1:]:
        if list(model.card.classes) != list(models[0].card.classes):
            found, expected = ", ".join(model.card.classes), ", ".join(models[0].card.classes)
            msg = f"{model.name} tells apart {found}; {models[0].name} tells apart {expected}, in this order."
            raise CheckpointError(msg, "Average models of the same classes.")


def prepared(
    items: Sequence[ImageItem], card: ClassifierCard, progress: Progress | None = None
) -> Iterator[Tensor]:
    """Yield images in batches as a model takes them, ``(B, C, S, S)`` uint8.

    Raises:
        ImageError: Images cannot be read; all of them are named.
    """
    prepare = image_preprocessing(
        card.size, card.channels, card.interpolation, fit=card.fit, white=card.white
    )
    for first in range(0, len(items), BATCH):
        batch = items[first : first + BATCH]
        try:
            pixels = [read_image(item.path) for item in batch]
        except ImageError:
            check_images(ImageCohort(Path(), (), unlabeled=tuple(items[first:])))
            raise
        images = []
        for image, item in zip(pixels, batch, strict=True):
            with naming(item.path):
                images.append(prepare(image))
        yield torch.stack(images)
        if progress is not None:
            progress(batch[-1].name, first + len(batch), len(items))


def write_predictions(
    path: Path,
    predictions: Predictions,
    abstain_below: float = 0.0,
    finding: Mapping[str, Any] | None = None,
) -> None:
    """Write predictions as `io.prediction_table.write_prediction_table` does.

    Raises:
        OutputError: The folder cannot be written to.
    """
    names, classes, q = predictions.names, predictions.classes, predictions.probabilities
    write_prediction_table(path, names, classes, q, abstain_below, finding)


def predict_folder(  # noqa: PLR0913 (one argument an option)
    data: Path | str,
    out: Path | str,
    model: Path | str,
    *,
    views: Sequence[str] = ("identity",),
    abstain_below: float = 0.0,
    device: str = "cpu",
    skip_unreadable: bool = False,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> Predictions:
    """Classify every image below a folder, or one image, and write a table.

    Args:
        data: Folder or image.
        out: CSV to write.
        model: Run folder, bundle or ``.pt`` file; an ``.onnx`` file is run by onnxruntime.
        views: Whose probabilities are averaged.
        abstain_below: Images that are less sure get no label.
        device: "cpu", "cuda", ...
        skip_unreadable: Leave unreadable images out, with a warning that names them; every image is read twice then.
        allow_outside: Follow links that leave the folder.
        progress: See `Progress`.

    Raises:
        InputError: No image is there, or some cannot be read.
        ConfigError: A view is unknown.
    """
    place = Path(data)
    require_writable_file(out, [place])
    items = (
        [ImageItem(place, place.name, None)]
        if place.is_file()
        else find_images(place, allow_outside=allow_outside)
    )
    if skip_unreadable:
        items = _readable(items)
    loaded = open_classifier(model, device)
    predictions = predict_items(items, [loaded], views, progress)
    write_predictions(Path(out), predictions, abstain_below, loaded.card.extra.get(FINDING))
    return predictions


def _readable(items: Sequence[ImageItem]) -> list[ImageItem]:
    """Leave out what cannot be read, and name it."""
    findings = check_images(ImageCohort(Path(), (), unlabeled=tuple(items)), "skip")
    for finding in findings:
        logger.warning("Left out: %s", finding.reason)
    bad = {finding.item.path for finding in findings}
    if len(bad) == len(items):
        msg = f"None of {len(items)} images can be read."
        raise ImageError(msg, "Look at the files, or give another folder.")
    return [item for item in items if item.path not in bad]


def numbers_of(items: Sequence[ImageItem], classes: Sequence[str]) -> np.ndarray:
    """Return the class numbers of labeled images in a model's own order.

    Raises:
        InputError: An image has a class that the model does not know.
    """
    order = {name: number for number, name in enumerate(classes)}
    foreign = sorted({str(item.label) for item in items} - set(order))
    if foreign:
        msg = f"The model knows {', '.join(classes)}; the images have {', '.join(foreign)} too."
        raise InputError(msg, "Use a model of these classes, or leave those images out.")
    return np.array([order[str(item.label)] for item in items], dtype=np.int64)
