"""Classify images with an exported file where neither medssl nor torch is: numpy, Pillow and onnxruntime are enough.

    pip install onnxruntime numpy pillow
    python predict.py IMAGES --out TABLE.csv

IMAGES is a folder (with all below it) or one image: PNG, JPEG, BMP, TIFF or NPY. The file of weights lies beside this
script and says how images are prepared; the 8-bit one is taken where it is there. The table is that of
`medssl classify predict`. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FILES = ("model.int8.onnx", "model.onnx")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy")
GRAY_16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]
MOST_PIXELS = 100_000_000
FORMS = (1, 2)
"""Of the card in the file's metadata."""


class Refused(Exception):
    """What cannot be done, and what to do about it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 with a sentence where something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder, or one image")
    parser.add_argument("--out", type=Path, required=True, help="table to write (CSV); not there yet")
    parser.add_argument("--model", type=Path, help=f"ONNX file; else {' or '.join(FILES)} beside this script")
    text = "images that are less sure get no label (default 0); the file says what was chosen on validation images"
    parser.add_argument("--abstain-below", type=float, default=0.0, help=text)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as onnxruntime takes by itself")
    given = parser.parse_args(arguments)
    try:
        written = predict(given.images, given.out, given.model, given.abstain_below, given.threads)
    except Refused as refusal:
        print(f"Error: {refusal}", file=sys.stderr)
        return 1
    print(written)
    return 0


def predict(
    images: Path, out: Path, model: Path | None = None, abstain_below: float = 0.0, threads: int = 0
) -> str:
    """Classify images and write the table, whole or not at all; return what was done."""
    if out.exists():
        raise Refused(f"{out} is there already. Give another name to --out, or remove it.")
    paths = found(images)
    session, card = opened(model or default_model(), threads)
    name = session.get_inputs()[0].name
    rows, faults = [], []
    for path in paths:
        try:
            prepared = prepare(read(path), card)
        except Refused as refusal:
            faults.append(str(refusal))
            continue
        scores = session.run(None, {name: prepared[None].astype(np.float32) / 255})[0][0]
        shown = path.relative_to(images).as_posix() if images.is_dir() else path.name
        rows.append(row_of(shown, probabilities(scores, card), card, abstain_below))
    if faults:
        raise Refused(f"{len(faults)} of {len(paths)} images cannot be read, nothing is written: {faults}")
    temporary = out.with_name(f".partial-{os.getpid()}-{out.name}")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        temporary.rename(out)
    except OSError as error:
        raise Refused(f"{out} cannot be written ({error.strerror}). Give a folder that is there.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return f"{len(rows)} images classified by {card['network']} ({card['precision']}): {out}"


def row_of(name: str, q: np.ndarray, card: Mapping[str, Any], abstain_below: float) -> dict[str, Any]:
    """Return one line of the table; the label is empty where the network is less sure than asked for.

    A file that was exported for a finding has a column for it: 1 from the chosen probability on, else 0.
    """
    classes, finding = card["classes"], card.get("extra", {}).get("finding")
    label = classes[int(q.argmax())] if q.max() >= abstain_below else ""
    shares = {f"p_{one}": float(value) for one, value in zip(classes, q, strict=True)}
    row = {"path": name, "label": label, "confidence": float(q.max()), **shares}
    if finding:
        row[f"found_{finding['class']}"] = int(q[classes.index(finding["class"])] >= finding["threshold"])
    return row


# ---------------------------------------------------------------------------------------------- the network


def default_model() -> Path:
    """Return the file of weights beside this script."""
    here = Path(__file__).resolve().parent
    for name in FILES:
        if (here / name).is_file():
            return here / name
    raise Refused(f"Neither {' nor '.join(FILES)} lies beside this script. Give --model FILE.")


def opened(model: Path, threads: int) -> tuple[Any, dict[str, Any]]:
    """Return an inference session and the card that the file carries."""
    if not model.is_file():
        raise Refused(f"There is no file {model}. Check --model.")
    os.putenv("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime looks at it when it is loaded
    import onnxruntime  # noqa: PLC0415

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        card = json.loads(session.get_modelmeta().custom_metadata_map["medssl"])
    except Exception as error:
        name = type(error).__name__
        raise Refused(f"{model.name} is no exported classifier ({name}). Export it again.") from error
    if card["form"] not in FORMS:
        raise Refused(f"{model.name} was exported by a newer medssl. Use the predict.py of that export.")
    return session, card


def probabilities(scores: np.ndarray, card: Mapping[str, Any]) -> np.ndarray:
    """Return the probabilities of one image's scores."""
    if card["softmax"]:
        return scores
    scaled = scores.astype(np.float32) / np.float32(card["temperature"])
    exponent = np.exp(scaled.astype(np.float64) - scaled.max())
    return (exponent / exponent.sum()).astype(np.float32)


# ----------------------------------------------------------------------------------------------- the images


def found(images: Path) -> list[Path]:
    """Return the images below a folder, hidden ones left out, or the one that is named."""
    if images.is_file():
        return [images]
    paths = sorted(path for path in _below(images) if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise Refused(f"{images} holds no image. Expected {', '.join(SUFFIXES)}.")
    return paths


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if path.is_symlink() and path.is_dir():
            raise Refused(f"{path} is a link to a folder. Name that folder, or remove the link.")
        yield from _below(path) if path.is_dir() else [path]


def read(path: Path) -> np.ndarray:
    """Return an image as `(H, W, C)`, with the values that its file holds."""
    try:
        if path.suffix.lower() == ".npy":
            pixels = np.load(path, allow_pickle=False)
            pixels = pixels.reshape(*pixels.shape[:2], -1)
        else:
            with Image.open(path) as image:
                pixels = _pixels(path, image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise Refused(f"{path} is no complete image ({str(error)[:80]}).") from error
    if not np.isfinite(pixels).all():
        raise Refused(f"{path} holds values that are infinite or not a number.")
    return pixels


def _pixels(path: Path, image: Image.Image) -> np.ndarray:
    if getattr(image, "n_frames", 1) > 1:
        raise Refused(f"{path} holds several pages. Export the one that counts.")
    if image.width * image.height > MOST_PIXELS:
        raise Refused(f"{path} has more than {MOST_PIXELS // 1_000_000} megapixels. Cut it into tiles.")
    gray, opaque = image.mode in {"1", "L", "LA"}, ImageOps.exif_transpose(image)
    if image.mode in GRAY_16:
        return np.array(opaque).astype(np.uint16)[..., None]
    if image.mode in {"LA", "RGBA"} or "transparency" in image.info:
        if np.array(opaque.convert("RGBA"))[..., 3].min() < 255:
            raise Refused(f"{path} is transparent. Lay it over its background and export it without alpha.")
    elif image.mode not in {"1", "L", "P", "RGB"}:
        raise Refused(f"{path} holds {image.mode} colors. Export it as RGB or gray.")
    pixels = np.array(opaque.convert("L" if gray else "RGB"))
    return pixels.reshape(*pixels.shape[:2], 1 if gray else 3)


def prepare(image: np.ndarray, card: Mapping[str, Any]) -> np.ndarray:
    """Return an image as training saw it: `(channels, size, size)` uint8."""
    values = eight_bits(image, card.get("white"))
    channels, size, wanted = len(values), card["size"], card["channels"]
    if channels != wanted:
        if channels == 1:
            values = np.repeat(values, wanted, 0)
        elif (channels, wanted) == (3, 1):
            values = (LUMINANCE * values).sum(0, keepdims=True)
        else:
            raise Refused(f"An image has {channels} channels; the network takes {wanted}.")
    H, W = values.shape[1:]
    height, width = size, size
    if card.get("fit", "crop") == "crop":
        height, width = round(H * size / min(H, W)), round(W * size / min(H, W))
    if (height, width) != (H, W):
        values = values @ resampling(W, width, card["interpolation"]).T
        values = np.clip(resampling(H, height, card["interpolation"]) @ values, 0, 255)
    top, left = (height - size) // 2, (width - size) // 2
    return np.round(values[:, top : top + size, left : left + size]).astype(np.uint8)


def eight_bits(image: np.ndarray, white: int | None) -> np.ndarray:
    """Return `(C, H, W)` float32 on the scale of 0 to 255."""
    values = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    if image.dtype == np.bool_:
        return values * 255
    if image.dtype.kind == "u" and image.dtype.itemsize <= 2:
        greatest = 255 if image.dtype.itemsize == 1 else white or _depth(float(values.max()))
        return values if greatest == 255 else np.minimum(values * np.float32(255 / greatest), 255)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, np.finfo(np.float32).tiny)
    return values * 255


def _depth(greatest: float) -> int:
    """Return the greatest value of 8, 12 or 16 bits, the fewest that hold a value."""
    return next(white for white in (255, 4095, 65535) if greatest <= white)


def resampling(before: int, after: int, interpolation: str) -> np.ndarray:
    """Return the `(after, before)` matrix of antialiased interpolation along one axis."""
    ratio = before / after
    stretch = max(ratio, 1.0)
    reach = {"bilinear": 1, "bicubic": 2}[interpolation] * stretch
    matrix = np.zeros((after, before), np.float32)
    for row, center in enumerate((np.arange(after) + 0.5) * ratio):
        first, last = max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), before)
        distance = np.abs(np.arange(first, last) - center + 0.5) / stretch
        weights = KERNELS[interpolation](distance)
        matrix[row, first:last] = weights / weights.sum()
    return matrix


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - x, 0)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


KERNELS = {"bilinear": _triangle, "bicubic": _cubic}

if __name__ == "__main__":
    sys.exit(main())
