"""Faults of image folders at the command line: one message that names the file and the cure, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from click.testing import CliRunner
from pictures import TINY, picture, write_pictures
from PIL import Image

from medssl.cli import main
from medssl.engines import SemiSupervisedTrainer
from medssl.errors import MedsslError


def _zero_bytes(root: Path) -> str:
    (root / "train/dark/0.png").write_bytes(b"")
    return "train/dark/0.png"


def _another_format(root: Path) -> str:
    """A name that says PNG, and text inside."""
    (root / "train/dark/0.png").write_text("no image")
    return "train/dark/0.png"


def _cmyk(root: Path) -> str:
    Image.new("CMYK", (16, 16)).save(root / "train/dark/print.jpg")
    return "train/dark/print.jpg"


def _transparent(root: Path) -> str:
    values = np.dstack([picture(0, 1)] * 3 + [np.full((16, 16), 90, np.uint8)])
    Image.fromarray(values, "RGBA").save(root / "train/dark/glass.png")
    return "train/dark/glass.png"


def _pages(root: Path) -> str:
    some = [Image.fromarray(picture(0, seed)) for seed in range(2)]
    some[0].save(root / "train/dark/stack.tif", save_all=True, append_images=some[1:])
    return "train/dark/stack.tif"


def _animated(root: Path) -> str:
    some = [Image.fromarray(picture(0, seed)) for seed in range(2)]
    some[0].save(root / "train/dark/film.png", save_all=True, append_images=some[1:])
    return "train/dark/film.pngholds2pagesorframes"


def _gif_by_another_name(root: Path) -> str:
    _write_film(root / "train/dark/film.png")
    return "train/dark/film.pngholdsGIF"


def _write_film(path: Path) -> None:
    """An animated GIF, whatever its name says."""
    path.parent.mkdir(exist_ok=True)
    some = [Image.fromarray(picture(0, seed)) for seed in range(2)]
    some[0].save(path, "GIF", save_all=True, append_images=some[1:])


def _class_of_gifs(root: Path) -> str:
    _write_film(root / "train/films/0.gif")
    return "train/films/0.gif"


def _class_without_images(root: Path) -> str:
    (root / "train/gray").mkdir()
    return "'train/gray'holdsnoimage"


def _color_of_16_bits(root: Path) -> str:
    values = np.dstack([picture(0, 1).astype(np.uint16) * 200] * 3)
    image = SimpleITK.GetImageFromArray(values, isVector=True)
    SimpleITK.WriteImage(image, root / "train/dark/deep.png")
    return "train/dark/deep.pngholdscolororalphaof16bits"


def _stray_split(root: Path) -> str:
    shutil.copytree(root / "train", root / "trian")
    return "didyoumean'train'?"


def _one_pixel(root: Path) -> str:
    Image.new("L", (1, 1)).save(root / "train/dark/dot.png")
    return "train/dark/dot.png"


def _too_large(root: Path) -> str:
    Image.new("1", (20_000, 20_000)).save(root / "train/dark/slide.png")
    return "train/dark/slide.png"


def _link_outside(root: Path) -> str:
    elsewhere = root.parent / "elsewhere.png"
    Image.fromarray(picture(0, 5)).save(elsewhere)
    (root / "train/dark/link.png").symlink_to(elsewhere)
    return "link.png"


def _class_in_test_only(root: Path) -> str:
    shutil.copytree(root / "test/dark", root / "test/gray")
    return "gray"


def _copy_in_test(root: Path) -> str:
    shutil.copyfile(root / "train/dark/0.png", root / "test/dark/copy.png")
    return "copy.png"


FAULTS: dict[str, Callable[[Path], str]] = {
    "zero bytes": _zero_bytes,
    "another format": _another_format,
    "CMYK": _cmyk,
    "transparent": _transparent,
    "several pages": _pages,
    "animated": _animated,
    "GIF by another name": _gif_by_another_name,
    "class of GIFs": _class_of_gifs,
    "class without images": _class_without_images,
    "color of 16 bits": _color_of_16_bits,
    "stray split": _stray_split,
    "one pixel": _one_pixel,
    "20,000 x 20,000": _too_large,
    "link outside": _link_outside,
    "class in test only": _class_in_test_only,
    "copy in test": _copy_in_test,
}
"""Name -> what brings the fault into a folder, and returns what the message has to say, without its spaces."""


@pytest.mark.parametrize("verb", ["check", "train", "distill"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_in_one_message(fault, verb, tmp_path, monkeypatch):
    """D8, and the list of bad input."""
    monkeypatch.setattr(SemiSupervisedTrainer, "run", lambda *_: pytest.fail("refused too late"))
    cures, init = [], MedsslError.__init__
    monkeypatch.setattr(MedsslError, "__init__", lambda *words: (cures.extend(words[2:]), init(*words))[1])
    images = write_pictures(tmp_path / "images", training=3, validation=2, test=2, unlabeled=2)
    named = FAULTS[fault](images)
    before = sorted(tmp_path.rglob("*"))
    given = {name: value for name, value in TINY.items() if name != "channels"}
    method = ["--method", "mean-teacher"] if verb == "train" else []
    words = [] if verb == "check" else ["--out", tmp_path / "run", *method]
    words += [] if verb == "check" else [w for name, value in given.items() for w in (f"--{name}", value)]
    done = CliRunner().invoke(main, ["classify", verb, str(images), *map(str, words)])
    text = " ".join(done.output.split())
    assert done.exit_code == 1, text
    assert isinstance(done.exception, SystemExit), "no traceback"
    assert named in text.replace(" ", ""), text
    assert verb == "check" or any(cure and " ".join(cure.split()) in text for cure in cures), text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("verb", ["train", "distill"])
def test_fewer_labels_than_asked_for_end_in_one_message(verb, tmp_path, monkeypatch):
    monkeypatch.setattr(SemiSupervisedTrainer, "run", lambda *_: pytest.fail("refused too late"))
    images = write_pictures(tmp_path / "images", training=3, validation=0, test=0, unlabeled=2)
    words = ["classify", verb, images, "--out", tmp_path / "out", "--labels-per-class", 4]
    done = CliRunner().invoke(main, list(map(str, words)))
    text = " ".join(done.output.split())
    assert (done.exit_code, type(done.exception)) == (1, SystemExit), text
    assert "'dark' has 3, 'light' has 3; expected 4 in each class." in text
    assert list(tmp_path.iterdir()) == [images]


@pytest.mark.parametrize("verb", ["check", "train", "predict"])
def test_an_animated_gif_is_passed_over_and_named(verb, tmp_path, request):
    images = write_pictures(tmp_path / "images", training=3, validation=2, test=2, unlabeled=2)
    _write_film(images / "train/dark/film.gif")
    tiny = [w for name, value in TINY.items() for w in (f"--{name}", value)]
    words = {
        "check": [],
        "train": ["--out", tmp_path / "run", *tiny],
        "predict": ["--out", tmp_path / "table.csv", "--model", request.getfixturevalue("tiny_run")],
    }
    done = CliRunner().invoke(main, ["classify", verb, str(images), *map(str, words[verb])])
    text = " ".join(done.output.split())
    assert done.exit_code == 0, text
    assert text.count("1 file was passed over that may be images: train/dark/film.gif.") == 1, text


@pytest.mark.parametrize("verb", ["check", "train"])
@pytest.mark.parametrize("path", ["../other/elsewhere.png", "{root}/other/elsewhere.png"])
def test_a_manifest_that_leaves_its_folder_is_refused(verb, path, tmp_path):
    images = write_pictures(tmp_path / "images", training=3, validation=2, test=2, unlabeled=2)
    (tmp_path / "other").mkdir()
    Image.fromarray(picture(0, 5)).save(tmp_path / "other" / "elsewhere.png")
    lines = ["path,label,split", *(f"train/{name}/0.png,{name},train" for name in ("dark", "light"))]
    table = images / "some.csv"
    table.write_text("\n".join([*lines, f"{path.format(root=tmp_path)},dark,train"]) + "\n")
    words = [] if verb == "check" else ["--out", tmp_path / "run", "--steps", 2]
    done = CliRunner().invoke(main, ["classify", verb, str(table), *map(str, words)])
    text = done.output.replace("\n", " ")
    assert (done.exit_code, "elsewhere.png" in text, "--allow-outside" in text) == (1, True, True), text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fault", ["zero bytes", "CMYK", "several pages", "color of 16 bits", "one pixel"])
def test_predict_names_what_it_cannot_read(fault, tmp_path, request):
    images = write_pictures(tmp_path / "images", training=3, validation=0, test=0, unlabeled=0)
    model = request.getfixturevalue("tiny_run")
    named = FAULTS[fault](images)
    done = CliRunner().invoke(
        main,
        ["classify", "predict", str(images), "--out", str(tmp_path / "table.csv"), "--model", str(model)],
    )
    text = " ".join(done.output.split())
    assert (done.exit_code, named in text.replace(" ", "")) == (1, True), text
    assert not (tmp_path / "table.csv").exists()


def test_a_network_of_other_classes_is_not_scored(tmp_path, tiny_run):
    images = write_pictures(tmp_path / "images", training=1, validation=2, test=2, unlabeled=0)
    for section in ("train", "val", "test"):
        (images / section / "dark").rename(images / section / "dim")
    words = ["classify", "evaluate", images, "--out", tmp_path / "report", "--model", tiny_run]
    done = CliRunner().invoke(main, list(map(str, words)))
    text = " ".join(done.output.split())
    assert (done.exit_code, type(done.exception)) == (1, SystemExit), text
    assert "The model knows dark, light; the images have dim too." in text
    assert list(tmp_path.iterdir()) == [images]


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """A run of few steps."""
    root = tmp_path_factory.mktemp("tiny")
    images = write_pictures(root / "images")
    words = [w for name, value in TINY.items() for w in (f"--{name}", value)]
    done = CliRunner().invoke(
        main,
        ["classify", "train", str(images), "--out", str(root / "run"), "--no-baseline", *map(str, words)],
    )
    assert done.exit_code == 0, done.output
    return root / "run"
