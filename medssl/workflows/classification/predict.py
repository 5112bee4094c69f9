"""Classes and probabilities of images, from a checkpoint or an exported file alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl.cores import cores
from medssl.errors import CheckpointError, ImageError, InputError
from medssl.functional.energy import energy
from medssl.inference.classification import predict_scores
from medssl.inference.onnx_runner import FINDING
from medssl.io.classifier_card import ClassifierCard
from medssl.io.files import require_writable_file
from medssl.io.image_cohort import ImageCohort, find_images
from medssl.io.image_items import ImageItem
from medssl.io.image_leaks import check_images
from medssl.io.images import naming, read_image
from medssl.io.prediction_table import CHOSEN, abstain_threshold, write_prediction_table
from medssl.transforms.classification import ImagePreprocessing
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
    mean = predict_passes(items, models, views, progress).double().mean(0)
    return Predictions(tuple(item.name for item in items), tuple(models[0].card.classes), mean.numpy())


def predict_passes(
    items: Sequence[ImageItem],
    models: Sequence[ImageModel],
    views: Sequence[str],
    progress: Progress | None = None,
) -> Tensor:
    """Return the probabilities of every model for every view, calibrated by the model's temperature.

    Raises:
        MedsslError: See `scores_of`.

    Shapes:
        return: ``(M, N, K)``, M models times views, the views of the first model first
    """
    return passes_of(scores_of(items, models, views, progress), models)


def passes_of(scores: Tensor, models: Sequence[ImageModel]) -> Tensor:
    """Return the probabilities of the scores of models, calibrated by each model's temperature.

    Shapes:
        scores: ``(M, V, N, K)``; return: ``(M * V, N, K)``, the views of the first model first
    """
    tempered = [own / model.card.temperature for own, model in zip(scores, models, strict=True)]
    return torch.cat(tempered).softmax(2)


def scores_of(
    items: Sequence[ImageItem],
    models: Sequence[ImageModel],
    views: Sequence[str],
    progress: Progress | None = None,
) -> Tensor:
    """Return what every model says of every view before the softmax; models of one input share its preparation.

    Raises:
        ConfigError: A view is unknown.
        CheckpointError: The models do not belong together.
        ImageError: An image cannot be read.

    Shapes:
        return: ``(M, V, N, K)``
    """
    _require_same_classes(models)
    image_views(views)
    found: list[list[Tensor]] = [[] for _ in models]
    inputs = [preprocessings(model.card, views) for model in models]
    for steps in dict.fromkeys(inputs):
        for images in prepared(items, steps, progress):
            for own, model, needed in zip(found, models, inputs, strict=True):
                if needed == steps:
                    own.append(predict_scores(model.network, images, batch_size=BATCH))
    shape = (len(items), len(views), len(models[0].card.classes))
    scores = [torch.cat(own).view(shape) if own else torch.zeros(shape) for own in found]
    return torch.stack(scores).movedim(2, 1)


def mean_energies(scores: Tensor) -> Tensor:
    """Return the energy of each image in the first view, the mean over the models, see `functional.energy`.

    Args:
        scores: See `scores_of`.

    Shapes:
        scores: ``(M, V, N, K)``; return: ``(N,)``, float64

    Notes:
        The order of the models changes no bit. Temperatures have no part in it.
    """
    return energy(scores[:, 0]).double().sort(0).values.mean(0)


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
    items: Sequence[ImageItem],
    steps: Sequence[Callable[[np.ndarray], Tensor]],
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Yield images in batches as a model takes them, each read once, by as many threads as there are cores.

    Args:
        items: Images.
        steps: What makes each view of an image as it was read, see `transforms.classification.image_preprocessing`.
        progress: See `Progress`.

    Raises:
        ImageError: Images cannot be read; all of them are named.

    Shapes:
        return: ``(B * V, C, S, S)`` uint8, the views of an image side by side
    """

    def views_of(item: ImageItem) -> Tensor:
        image = read_image(item.path)
        with naming(item.path):
            return torch.stack([prepare(image) for prepare in steps])

    with ThreadPoolExecutor(min(8, cores())) as threads:
        for first in range(0, len(items), BATCH):
            batch = items[first : first + BATCH]
            try:
                images = torch.cat(list(threads.map(views_of, batch)))
            except ImageError:
                check_images(ImageCohort(Path(), (), unlabeled=tuple(items[first:])))
                raise
            yield images
            if progress is not None:
                progress(batch[-1].name, first + len(batch), len(items))


def preprocessings(
    card: ClassifierCard, views: Sequence[str] = ("identity",)
) -> tuple[ImagePreprocessing, ...]:
    """Return what makes the views of an image for a model."""
    return tuple(
        ImagePreprocessing(card.size, card.channels, card.interpolation, card.fit, card.white, view)
        for view in views
    )


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
    abstain_below: float | str = 0.0,
    device: str = "cpu",
    backend: str | None = None,
    skip_unreadable: bool = False,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> Predictions:
    """Classify every image below a folder, or one image, and write a table.

    Args:
        data: Folder or image.
        out: CSV to write.
        model: Run folder, bundle, ``.pt`` file, or exported ``.onnx`` file.
        views: Whose probabilities are averaged.
        abstain_below: Images that are less sure get no label, see `prediction_table.abstain_threshold`.
        device: "cpu", "cuda", ...
        backend: What runs an exported file, see `models.BACKENDS`.
        skip_unreadable: Leave unreadable images out, with a warning that names them; every image is read twice then.
        allow_outside: Follow links that leave the folder.
        progress: See `Progress`.

    Raises:
        InputError: No image is there, or some cannot be read.
        ConfigError: A view is unknown, the confidence is not from 0 to 1, or the model says none.
    """
    place = Path(data)
    require_writable_file(out, [place])
    if abstain_below != CHOSEN:
        abstain_threshold(abstain_below, {}, "")  # before anything is read
    items = (
        [ImageItem(place, place.name, None)]
        if place.is_file()
        else find_images(place, allow_outside=allow_outside)
    )
    loaded = open_classifier(model, device, backend)
    least = abstain_threshold(abstain_below, loaded.card.extra, loaded.name)
    if skip_unreadable:
        items = _readable(items)
    predictions = predict_items(items, [loaded], views, progress)
    write_predictions(Path(out), predictions, least, loaded.card.extra.get(FINDING))
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
