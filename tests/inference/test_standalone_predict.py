"""The script that runs exports without medssl prepares and answers as the package does."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medssl.errors import ImageError, InputError
from medssl.inference import standalone_predict as script
from medssl.inference.onnx_classifier import export_classifier
from medssl.inference.onnx_model import change_card
from medssl.networks.compact import build_classifier
from medssl.transforms.classification import image_preprocessing
from medssl.workflows.classification.predict import predict_folder

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
SOURCE = Path(script.__file__)
PREPARE = image_preprocessing(28, 3)
ALONE = """
import sys
for name in ("torch", "monai", "medssl", "scipy"):
    sys.modules[name] = None
path = sys.argv.pop(1)
sys.argv[0] = path
exec(compile(open(path).read(), path, "exec"), {"__name__": "__main__", "__file__": path})
"""


def picture(shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).random((shape[0] // 4 + 1, shape[1] // 4 + 1, *shape[2:]))
    values = values.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]]
    return (
        (values * np.iinfo(dtype).max).astype(dtype) if np.dtype(dtype).kind == "u" else values.astype(dtype)
    )


@pytest.fixture
def folder(tmp_path):
    """An export of a network with random weights, as `medssl classify export` leaves it."""
    torch.manual_seed(0)
    network = build_classifier("vgg-small-28", 3, 3, size=28)
    shown = torch.stack([PREPARE(picture((40, 40, 3), seed=seed)) for seed in range(40)]) / 255
    with torch.no_grad():  # scores of such pictures differ from each other, and around 0
        scores = network.eval()(shown)
        network.head.weight.div_(scores.std(0)[:, None])
        network.head.bias.copy_((network.head.bias - scores.mean(0)) / scores.std(0))
    place = tmp_path / "files"
    place.mkdir()
    export_classifier(network, place / "model.onnx", ["a", "b", "ü"], temperature=1.5, white=4095)
    (place / "predict.py").write_text(SOURCE.read_text())
    return place


@pytest.fixture
def images(tmp_path):
    place = tmp_path / "images"
    (place / "deeper" / "größer").mkdir(parents=True)
    Image.fromarray(picture((40, 61, 3))).save(place / "color.png")
    Image.fromarray(picture((57, 33))).save(place / "deeper" / "gray.jpg", quality=95)
    Image.fromarray(picture((31, 28), np.uint16)).save(place / "deeper" / "größer" / "deep.tif")
    Image.fromarray(picture((28, 28, 3), seed=3)).save(place / "fits.bmp")
    Image.fromarray(picture((50, 30, 3))).quantize(16).save(place / "palette.png")
    turned = Image.fromarray(picture((30, 50, 3), seed=4))
    turned.getexif()[0x0112] = 6
    turned.save(place / "turned.jpg", exif=turned.getexif())
    np.save(place / "numbers.npy", picture((30, 41, 3), np.float32))
    (place / ".hidden.png").write_bytes(b"")
    (place / "notes.txt").write_text("none")
    return place


def alone(folder, *arguments):
    """Run predict.py in a process that has none of our libraries."""
    command = [sys.executable, "-c", ALONE, str(folder / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rows(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_its_table_is_that_of_the_package_without_torch(folder, images, tmp_path):
    done = alone(folder, images, "--out", tmp_path / "alone.csv")
    assert done.returncode == 0, done.stderr
    predict_folder(images, tmp_path / "package.csv", folder / "model.onnx")
    found = {row["path"]: row for row in rows(tmp_path / "alone.csv")}
    expected = {row["path"]: row for row in rows(tmp_path / "package.csv")}
    assert found.keys() == expected.keys()
    assert len({row["label"] for row in found.values()}) > 1
    for name, row in expected.items():
        assert found[name].keys() == row.keys()
        assert found[name]["label"] == row["label"], name
        for key in ("confidence", "p_a", "p_b", "p_ü"):
            assert float(found[name][key]) == pytest.approx(float(row[key]), abs=2e-3), (name, key)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize(
    ("shape", "dtype", "channels", "white"),
    [
        ((40, 61, 3), np.uint8, 3, None),
        ((19, 23, 1), np.uint8, 1, None),
        ((130, 97, 3), np.uint8, 1, None),
        ((64, 64, 1), np.uint16, 3, 4095),
        ((64, 50, 1), np.uint16, 1, None),
        ((33, 47, 2), np.float32, 2, None),
        ((28, 28, 3), np.uint8, 3, None),
    ],
)
def test_it_prepares_images_as_training_does(interpolation, fit, shape, dtype, channels, white):
    image = picture(shape, dtype)
    if dtype == np.float32:
        image = 3 * image - 1
    card = {"size": 28, "channels": channels, "interpolation": interpolation, "fit": fit, "white": white}
    expected = image_preprocessing(28, channels, interpolation, fit=fit, white=white)(image).numpy()
    found = script.prepare(image, card)
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 1  # halves are rounded up or down
    assert (difference > 0).mean() < 0.01
    if shape == (28, 28, 3):
        assert not difference.any()


def test_a_less_sure_image_gets_no_label_and_a_finding_its_column(folder, images, tmp_path):
    assert alone(folder, images, "--out", tmp_path / "a.csv", "--abstain-below", "1.01").returncode == 0
    assert {row["label"] for row in rows(tmp_path / "a.csv")} == {""}
    change_card(folder / "model.onnx", {"finding": {"class": "b", "threshold": 0.3}})
    assert alone(folder, images, "--out", tmp_path / "b.csv").returncode == 0
    for row in rows(tmp_path / "b.csv"):
        assert row["found_b"] == str(int(float(row["p_b"]) >= 0.3))
    assert {row["found_b"] for row in rows(tmp_path / "b.csv")} == {"0", "1"}


def test_the_int8_file_is_preferred_and_another_can_be_named(folder, images, tmp_path):
    (folder / "model.int8.onnx").write_bytes(b"damaged")
    refused = alone(folder, images, "--out", tmp_path / "a.csv")
    assert refused.returncode == 1
    assert "model.int8.onnx is no exported classifier" in refused.stderr
    named = alone(folder, images, "--out", tmp_path / "a.csv", "--model", folder / "model.onnx")
    assert named.returncode == 0


def test_nothing_is_overwritten(folder, images, tmp_path):
    out = tmp_path / "a.csv"
    out.write_text("mine")
    refused = alone(folder, images, "--out", out)
    assert (refused.returncode, out.read_text()) == (1, "mine")
    assert "is there already" in refused.stderr


def refusals():
    yield "empty.png", lambda path: path.write_bytes(b""), "no complete image"
    yield "cut.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n0"), "no complete image"
    yield "ink.jpg", lambda path: Image.new("CMYK", (30, 30)).save(path), "CMYK"
    yield "clear.png", lambda path: Image.new("RGBA", (30, 30), (1, 2, 3, 4)).save(path), "transparent"
    two = [Image.new("L", (30, 30), value) for value in (0, 200)]
    yield "pages.tif", lambda path: two[0].save(path, save_all=True, append_images=two[1:]), "pages"
    yield "none.npy", lambda path: np.save(path, np.full((30, 30), np.nan)), "not a number"
    yield "many.npy", lambda path: np.save(path, np.zeros((30, 30, 7), np.uint8)), "7 channels"


@pytest.mark.parametrize(("name", "make", "said"), list(refusals()), ids=lambda value: str(value)[:12])
def test_bad_images_are_all_named_and_nothing_is_written(folder, images, tmp_path, name, make, said):
    make(images / name)
    (images / "second.png").write_bytes(b"")
    with pytest.raises(script.Refused, match=said) as refusal:
        script.predict(images, tmp_path / "a.csv", folder / "model.onnx")
    assert "2 of 9 images" in str(refusal.value)
    assert not (tmp_path / "a.csv").exists()
    with pytest.raises((ImageError, InputError)):
        predict_folder(images / name, tmp_path / "b.csv", folder / "model.onnx")


def test_an_empty_folder_and_a_missing_model_are_refused(folder, images, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(script.Refused, match="holds no image"):
        script.predict(tmp_path / "nothing", tmp_path / "a.csv", folder / "model.onnx")
    with pytest.raises(script.Refused, match="There is no file"):
        script.predict(images, tmp_path / "a.csv", folder / "other.onnx")
    with pytest.raises(script.Refused, match="beside this script"):
        script.predict(images, tmp_path / "a.csv")
    with pytest.raises(script.Refused, match="Give a folder that is there"):
        script.predict(images, tmp_path / "gone" / "a.csv", folder / "model.onnx")


def test_links_to_images_are_followed_and_links_to_folders_refused(folder, images, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(picture((40, 40))).save(tmp_path / "elsewhere" / "a.png")
    (images / "linked.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    assert images / "linked.png" in script.found(images)
    (images / "loop").symlink_to(images, target_is_directory=True)
    with pytest.raises(script.Refused, match="link to a folder"):
        script.predict(images, tmp_path / "a.csv", folder / "model.onnx")


def test_a_newer_file_is_refused(folder, images, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "FORMS", (1,))
    with pytest.raises(script.Refused, match="newer"):
        script.predict(images, tmp_path / "a.csv", folder / "model.onnx")


def test_the_forms_are_those_that_the_package_writes():
    from medssl.inference.onnx_runner import FORM

    assert max(script.FORMS) == FORM


FAKE = """
import subprocess, sys
ask = "import os; print(os.environ.get('ORT_DISABLE_TELEMETRY'))"
print(subprocess.check_output([sys.executable, "-c", ask], text=True).strip())
def disable_telemetry_events():
    sys.exit(0)
"""
"""Tells the environment that native code sees."""


def test_telemetry_is_off_before_onnxruntime_is_loaded(tmp_path):
    (tmp_path / "onnxruntime.py").write_text(FAKE)
    (tmp_path / "predict.py").write_text(SOURCE.read_text())
    (tmp_path / "model.onnx").write_bytes(b"")
    Image.new("L", (30, 30)).save(tmp_path / "a.png")
    bare = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, tmp_path / "predict.py", tmp_path / "a.png", "--out", tmp_path / "a.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=bare)
    assert done.stdout.strip() == "1", done.stderr


def test_what_it_knows_of_the_card_is_what_the_package_writes(folder):
    session, card = script.opened(folder / "model.onnx", 1)
    assert session.get_inputs()[0].name == "image"
    assert card == json.loads(json.dumps(card))
    assert {
        "classes",
        "size",
        "channels",
        "interpolation",
        "fit",
        "white",
        "temperature",
        "softmax",
    } <= card.keys()
