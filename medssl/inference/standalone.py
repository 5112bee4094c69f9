"""Classify images with an exported file: numpy, Pillow and onnxruntime are enough, torch is not asked for.

    pip install numpy pillow onnxruntime
    python predict.pyz IMAGES --out TABLE.csv --model model.onnx

IMAGES is a folder, with all below it, or one image. The file of weights says how images are prepared. The table is that
of `medssl classify predict`. Nothing is sent anywhere. Python 3.10 or later; DICOM needs pydicom.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medssl.errors import ConfigError, ImageError, InputError, MedsslError
from medssl.functional.image_preparation import prepare_image
from medssl.inference.onnx_runner import FILES, FINDING, OnnxCard, OnnxClassifier
from medssl.io.files import require_absent, require_writable_file
from medssl.io.image_cohort import find_images
from medssl.io.image_items import ImageItem
from medssl.io.images import naming, read_image
from medssl.io.prediction_table import abstain_threshold, write_prediction_table

PREFERRED = (FILES["int8"], FILES["float32"])
"""Files in the order in which they are looked for."""

_NAMED = 10  # faults in a message


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 with a sentence where something is wrong."""
    parser = argparse.ArgumentParser(
        prog="predict.pyz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder, or one image")
    parser.add_argument("--out", type=Path, required=True, help="table to write (CSV); not there yet")
    parser.add_argument(
        "--model", type=Path, help=f"ONNX file; else {' or '.join(PREFERRED)} beside this file"
    )
    text = "images that are less sure get no label (default 0); 'chosen': what the file says of its validation images"
    parser.add_argument("--abstain-below", default="0", metavar="0..1|chosen", help=text)
    parser.add_argument("--threads", type=int, help="of onnxruntime (default: its own choice)")
    given = parser.parse_args(arguments)
    try:
        model = given.model or model_beside(Path(sys.argv[0]).resolve().parent)
        said = classify(given.images, given.out, model, given.abstain_below, given.threads)
    except MedsslError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    sys.stdout.write(f"{said}\n")
    return 0


def classify(
    images: Path, out: Path, model: Path, abstain_below: float | str = 0.0, threads: int | None = None
) -> str:
    """Classify images and write the table, whole or not at all.

    Args:
        images: Folder, or one image.
        out: CSV to write; outside the images, not there yet.
        model: Exported file.
        abstain_below: Images that are less sure get no label, see `prediction_table.abstain_threshold`.
        threads: Of onnxruntime; None: its own choice.

    Returns:
        What was done, for people.

    Raises:
        OutputError: The table is there already, would lie among the images, or cannot be written.
        InputError: No image is there, or some cannot be read; all of them are named.
        CheckpointError: The file was not exported by medssl.
        ConfigError: onnxruntime is not installed, or a number is out of range.
    """
    if threads is not None and threads < 1:
        msg = f"--threads is {threads}; expected 1 or more."
        raise ConfigError(msg)
    require_absent(out)
    items = (ImageItem(images, images.name, None),) if images.is_file() else find_images(images)
    require_writable_file(out, [images])
    runner = OnnxClassifier(model, threads=threads)
    card = runner.card
    least = abstain_threshold(abstain_below, card.extra, model.name)
    q = probabilities_of(items, runner)
    names = [item.name for item in items]
    write_prediction_table(out, names, card.classes, q, least, card.extra.get(FINDING))
    return f"{len(items)} images classified by {model.name} ({card.network}, {card.precision}): {out}"


def probabilities_of(items: Sequence[ImageItem], runner: OnnxClassifier) -> np.ndarray:
    """Read, prepare and classify images one by one; after the first that cannot be read, the others are only read.

    Shapes:
        return: ``(N, K)``

    Raises:
        ImageError: Images cannot be read.
    """
    found, faults = [], []
    for item in items:
        try:
            image = prepared(item, runner.card)
        except InputError as error:
            faults.append(str(error))
            continue
        if not faults:
            found.append(runner.probabilities(image[None])[0])
    if faults:
        more = f" And {len(faults) - _NAMED} more." if len(faults) > _NAMED else ""
        msg = f"{len(faults)} of {len(items)} images cannot be used: {' '.join(faults[:_NAMED])}{more}"
        raise ImageError(msg, "Nothing was written.")
    return np.stack(found)


def prepared(item: ImageItem, card: OnnxCard) -> np.ndarray:
    """Read an image and bring it to the form that the network takes; errors name the file."""
    pixels = read_image(item.path)
    with naming(item.path):
        return prepare_image(
            pixels, card.size, card.channels, card.interpolation, fit=card.fit, white=card.white
        )


def model_beside(folder: Path) -> Path:
    """Return the file of weights in the folder of this script.

    Raises:
        InputError: There is none.
    """
    for name in PREFERRED:
        if (folder / name).is_file():
            return folder / name
    msg = f"Neither {' nor '.join(PREFERRED)} lies beside this file."
    raise InputError(msg, "Name one: --model FILE.")
