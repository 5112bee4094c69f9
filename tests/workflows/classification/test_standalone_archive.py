"""predict.pyz runs where neither torch nor medssl is, and does what `medssl classify predict` does."""

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pictures import blocks
from PIL import Image

from medssl.cli import main as package_main
from medssl.errors import CheckpointError, ConfigError, ImageError, InputError, OutputError
from medssl.evaluation.operating_points import NOTHING
from medssl.inference.onnx_classifier import export_classifier
from medssl.inference.onnx_model import change_card
from medssl.inference.standalone import classify, main
from medssl.networks.compact import build_classifier
from medssl.transforms.classification import image_preprocessing
from medssl.workflows.classification.predict import predict_folder
from medssl.workflows.classification.standalone_archive import MODULES, write_standalone

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
ABSENT = ("torch", "torchvision", "timm", "monai", "scipy", "nibabel", "pydicom", "click", "rich")
ALONE = f"""
import runpy, sys
for name in {ABSENT}:
    sys.modules[name] = None
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    used = {{name: module.__file__ for name, module in sys.modules.items() if name.startswith("medssl")}}
    assert all(".pyz" in place for place in used.values()), used
    print(*used, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def network():
    """Random weights, whose scores of such pictures differ from each other, around 0."""
    torch.manual_seed(0)
    made = build_classifier("vgg-small-28", 3, 3, size=28)
    prepare = image_preprocessing(28, 3)
    shown = torch.stack([prepare(blocks((40, 40, 3), seed=seed)) for seed in range(40)]) / 255
    with torch.no_grad():
        scores = made.eval()(shown)
        made.head.weight.div_(scores.std(0)[:, None])
        made.head.bias.copy_((made.head.bias - scores.mean(0)) / scores.std(0))
    return made


@pytest.fixture
def folder(tmp_path, network):
    """An export, as `medssl classify export` leaves it."""
    place = tmp_path / "files"
    place.mkdir()
    export_classifier(network, place / "model.onnx", ["a", "b", "ü"], temperature=1.5, white=4095)
    write_standalone(place / "predict.pyz")
    return place


@pytest.fixture
def images(tmp_path):
    place = tmp_path / "images"
    (place / "deeper" / "größer").mkdir(parents=True)
    Image.fromarray(blocks((40, 61, 3))).save(place / "10.png")
    Image.fromarray(blocks((57, 33))).save(place / "deeper" / "gray.jpg", quality=95)
    Image.fromarray(blocks((31, 28), np.uint16)).save(place / "deeper" / "größer" / "deep.tif")
    Image.fromarray(blocks((28, 28, 3), seed=3)).save(place / "2.bmp")
    Image.fromarray(blocks((50, 30, 3))).quantize(16).save(place / "palette.png")
    for name, kind in (("turned.jpg", (30, 50, 3)), ("turned.tif", (30, 50))):
        turned = Image.fromarray(blocks(kind, seed=4))
        turned.getexif()[0x0112] = 6
        turned.save(place / name, exif=turned.getexif())
    np.save(place / "numbers.npy", blocks((30, 41, 3), np.float32))
    (place / "@eaDir").mkdir()
    Image.fromarray(blocks((40, 61, 3))).save(place / "@eaDir" / "thumbnail.png")
    (place / ".hidden.png").write_bytes(b"")
    (place / "notes.txt").write_text("none")
    return place


def alone(folder, *arguments, environment=None):
    """Run predict.pyz in a process that has nothing of ours."""
    command = [sys.executable, "-I", "-c", ALONE, str(folder / "predict.pyz"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_its_table_is_that_of_the_package(folder, images, tmp_path):
    change_card(folder / "model.onnx", {"finding": {"class": "b", "threshold": 0.3}})
    done = alone(folder, images, "--out", tmp_path / "new" / "alone.csv")
    assert done.returncode == 0, done.stderr
    assert "8 images classified by model.onnx (vgg-small-28, float32)" in done.stdout
    predict_folder(images, tmp_path / "package.csv", folder / "model.onnx")
    found, expected = (
        [line.split(",") for line in path.read_text().splitlines()]
        for path in (tmp_path / "new" / "alone.csv", tmp_path / "package.csv")
    )
    assert found[0] == expected[0] == ["path", "label", "confidence", "p_a", "p_b", "p_ü", "found_b"]
    assert [row[0] for row in found] == [row[0] for row in expected]
    assert len({row[1] for row in found[1:]}) > 1
    assert {row[6] for row in found[1:]} == {"0", "1"}
    for row, reference in zip(found[1:], expected[1:], strict=True):
        assert row[1] == reference[1]
        assert row[6] == reference[6] == str(int(float(row[4]) >= 0.3))
        np.testing.assert_allclose(
            [float(x) for x in row[2:6]], [float(x) for x in reference[2:6]], atol=2e-3
        )


def test_the_archive_holds_what_is_imported_and_nothing_else(folder, images, tmp_path):
    done = alone(folder, images, "--out", tmp_path / "a.csv")
    used = set(done.stderr.split())
    with zipfile.ZipFile(folder / "predict.pyz") as archive:
        held = {
            name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for name in archive.namelist()
        }
    assert held - {"__main__"} == used
    assert {f"medssl.{name}" for name in MODULES} < used
    write_standalone(tmp_path / "again.pyz")
    assert (tmp_path / "again.pyz").read_bytes() == (folder / "predict.pyz").read_bytes()


def test_python_runs_the_archive_as_it_is(folder, images, tmp_path):
    command = [sys.executable, "-I", folder / "predict.pyz", images, "--out", tmp_path / "a.csv"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 9


def test_a_less_sure_image_gets_no_label(folder, images, tmp_path):
    classify(images, tmp_path / "a.csv", folder / "model.onnx", abstain_below=1.0)
    assert {line.split(",")[1] for line in (tmp_path / "a.csv").read_text().splitlines()[1:]} == {""}
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        classify(images, tmp_path / "b.csv", folder / "model.onnx", abstain_below=float("nan"))
    with pytest.raises(ConfigError, match="--threads is -1"):
        classify(images, tmp_path / "b.csv", folder / "model.onnx", threads=-1)
    with pytest.raises(ConfigError, match="says none"):
        classify(images, tmp_path / "b.csv", folder / "model.onnx", abstain_below="chosen")
    change_card(folder / "model.onnx", {"abstain_below": 0.6})
    command = [str(images), "--out", str(tmp_path / "b.csv"), "--model", str(folder / "model.onnx")]
    assert main([*command, "--abstain-below", "chosen"]) == 0
    for line in (tmp_path / "b.csv").read_text().splitlines()[1:]:
        _, label, confidence, *_ = line.split(",")
        assert bool(label) == (float(confidence) >= 0.6)


@pytest.mark.parametrize("asked", ["most", "1.5", "-0.1", "nan", "chosen"])
def test_a_confidence_that_is_none_is_refused_as_the_package_refuses_it(
    asked, folder, images, tmp_path, capsys
):
    command = [str(images), "--out", str(tmp_path / "a.csv"), "--model", str(folder / "model.onnx")]
    words = [*command, f"--abstain-below={asked}"]
    package = CliRunner().invoke(package_main, ["classify", "predict", *words])
    assert (package.exit_code, main(words)) == (1, 1)
    finding = "says none" if asked == "chosen" else f"--abstain-below is {asked}"
    for said in (package.stderr, capsys.readouterr().err):
        assert f"{finding}; expected 0 to 1, or 'chosen' with a file" in said
    assert not (tmp_path / "a.csv").exists()


def test_a_probability_of_one_is_no_finding_where_nothing_may_be(folder, images, tmp_path, network):
    with torch.no_grad():
        sure = build_classifier("vgg-small-28", 3, 3, size=28)
        sure.head.bias.copy_(torch.tensor([0.0, 1000.0, 0.0]))
    export_classifier(sure, folder / "model.onnx", ["a", "b", "ü"])
    change_card(folder / "model.onnx", {"finding": {"class": "b", "threshold": NOTHING}})
    classify(images, tmp_path / "a.csv", folder / "model.onnx")
    rows = [line.split(",") for line in (tmp_path / "a.csv").read_text().splitlines()[1:]]
    assert {row[4] for row in rows} == {"1"}
    assert {row[6] for row in rows} == {"0"}


def test_the_int8_file_is_taken_first_and_another_can_be_named(folder, images, tmp_path):
    (folder / "model.int8.onnx").write_bytes(b"damaged")
    refused = alone(folder, images, "--out", tmp_path / "a.csv")
    assert refused.returncode == 1
    assert "model.int8.onnx cannot be run as ONNX" in refused.stderr
    named = alone(folder, images, "--out", tmp_path / "a.csv", "--model", folder / "model.onnx")
    assert named.returncode == 0
    for name in ("model.int8.onnx", "model.onnx"):
        (folder / name).unlink()
    refused = alone(folder, images, "--out", tmp_path / "b.csv")
    assert "lies beside this file. Name one: --model FILE." in refused.stderr


def test_nothing_is_overwritten_or_written_among_the_images(folder, images, tmp_path, capsys):
    out = tmp_path / "a.csv"
    out.write_text("mine")
    assert main([str(images), "--out", str(out), "--model", str(folder / "model.onnx")]) == 1
    assert (out.read_text(), "is there already" in capsys.readouterr().err) == ("mine", True)
    with pytest.raises(OutputError, match="inside the input folder"):
        classify(images, images / "t.csv", folder / "model.onnx")
    assert not (images / "t.csv").exists()


ODD = {
    "empty.png": lambda path: path.write_bytes(b""),
    "cut.png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n0"),
    "ink.jpg": lambda path: Image.new("CMYK", (30, 30)).save(path),
    "clear.png": lambda path: Image.new("RGBA", (30, 30), (1, 2, 3, 4)).save(path),
    "pages.tif": lambda path: Image.new("L", (30, 30)).save(
        path, save_all=True, append_images=[Image.new("L", (30, 30), 200)]
    ),
    "none.npy": lambda path: np.save(path, np.full((30, 30), np.nan)),
    "huge.npy": lambda path: np.save(path, np.full((30, 30), 1e300)),
    "complex.npy": lambda path: np.save(path, np.zeros((30, 30), complex)),
    "line.npy": lambda path: np.save(path, np.zeros(30)),
    "words.npy": lambda path: np.save(path, np.array([["a"] * 30] * 30)),
    "channels.npy": lambda path: np.save(path, np.zeros((30, 30, 7), np.uint8)),
    "tiny.png": lambda path: Image.new("L", (1, 1)).save(path),
    "named.jpg": lambda path: Image.new("L", (30, 30)).save(path, format="PNG"),
    "moving.png": lambda path: Image.new("L", (30, 30)).save(path, format="GIF"),
    "deep.tif": lambda path: Image.fromarray(np.full((30, 30), 70_000, np.int32)).save(path),
}


@pytest.mark.parametrize("name", ODD)
def test_it_refuses_what_the_package_refuses_and_names_all(folder, images, tmp_path, name):
    ODD[name](images / name)
    (images / "zero.png").write_bytes(b"")
    with pytest.raises(ImageError, match="2 of 10 images cannot be used") as refusal:
        classify(images, tmp_path / "a.csv", folder / "model.onnx")
    assert str(images / name) in str(refusal.value)
    assert str(images / "zero.png") in str(refusal.value)
    assert not (tmp_path / "a.csv").exists()
    with pytest.raises(InputError, match=name):
        predict_folder(images / name, tmp_path / "b.csv", folder / "model.onnx")


def test_other_mistakes_are_refused(folder, images, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        classify(tmp_path / "nothing", tmp_path / "a.csv", folder / "model.onnx")
    with pytest.raises(InputError, match="no exported classifier"):
        classify(images, tmp_path / "a.csv", folder / "other.onnx")
    (images / "away").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(InputError, match="away"):
        classify(images, tmp_path / "a.csv", folder / "model.onnx")
    (folder / "model.onnx").write_bytes(b"no network")
    with pytest.raises(CheckpointError, match="cannot be run"):
        classify(images / "10.png", tmp_path / "a.csv", folder / "model.onnx")


def test_telemetry_is_off_before_onnxruntime_is_loaded(folder, images, tmp_path):
    ask = "import os; print(os.environ.get('ORT_DISABLE_TELEMETRY'))"
    (tmp_path / "onnxruntime.py").write_text(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {ask!r}], check=True)\nsys.exit(0)\n"
    )
    bare = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    bare["PYTHONPATH"] = str(tmp_path)
    command = [sys.executable, folder / "predict.pyz", images, "--out", tmp_path / "a.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=bare)
    assert done.stdout.strip() == "1", done.stderr


def test_without_onnxruntime_it_says_what_to_install(folder, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"not installed\. Install it with: pip install onnxruntime"):
        classify(images, tmp_path / "a.csv", folder / "model.onnx")
