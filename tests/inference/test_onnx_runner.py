import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from medssl.errors import CheckpointError, ConfigError, InputError
from medssl.inference.onnx_model import layers, name_nodes, set_card, write_model
from medssl.inference.onnx_runner import OnnxCard, OnnxClassifier, as_float, softmax

ROOT = Path(__file__).parents[2]
CARD = OnnxCard("means", ("a", "b"), 4, 2, "bilinear", (0.0,), (1.0,), temperature=0.5)


@pytest.fixture
def means(tmp_path) -> Path:
    """Write a file that scores each channel by its mean."""
    images = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 2, 4, 4])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    node = helper.make_node("ReduceMean", ["image", "axes"], ["scores"], keepdims=0)
    graph = helper.make_graph([node], "means", [images], [scores], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    set_card(model, CARD)
    write_model(model, tmp_path / "means.onnx")
    return tmp_path / "means.onnx"


def test_probabilities_are_the_softmax_of_tempered_scores(means):
    images = np.random.default_rng(0).random((5, 2, 4, 4), dtype=np.float32)
    scores = images.mean((2, 3)) / 0.5
    expected = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    for batch_size in (1, 2, 64):
        found = OnnxClassifier(means).probabilities(images, batch_size)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert found.dtype == np.float32


def test_bytes_are_brought_to_the_unit_interval(means):
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 4), dtype=np.uint8)
    runner = OnnxClassifier(means, threads=1)
    np.testing.assert_allclose(runner.scores(images), images.mean((2, 3)) / 255, rtol=1e-5)
    assert as_float(images).max() <= 1


def test_the_file_says_how_to_prepare_images(means):
    runner = OnnxClassifier(means)
    assert (runner.classes, runner.size, runner.channels, runner.interpolation) == (
        ("a", "b"),
        4,
        2,
        "bilinear",
    )
    assert runner.card == CARD


def test_no_image_gives_no_row(means):
    assert OnnxClassifier(means).probabilities(np.zeros((0, 2, 4, 4), np.uint8)).shape == (0, 2)


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 4, 4, 2), (1, 2, 5, 4)])
def test_images_of_another_shape_are_refused(means, shape):
    with pytest.raises(InputError, match=r"expects images \(N, 2, 4, 4\): found"):
        OnnxClassifier(means).probabilities(np.zeros(shape, np.uint8))


def test_what_is_no_exported_classifier_is_refused(means, tmp_path):
    with pytest.raises(InputError, match="no exported classifier"):
        OnnxClassifier(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.onnx cannot be run as ONNX"):
        OnnxClassifier(tmp_path / "text.onnx")
    model = onnx.load(means)
    del model.metadata_props[:]
    write_model(model, tmp_path / "foreign.onnx")
    with pytest.raises(CheckpointError, match=r"foreign\.onnx does not say what it classifies"):
        OnnxClassifier(tmp_path / "foreign.onnx")


@pytest.mark.parametrize("text", ["[]", "{}", '{"form": 1}', '{"form": 1, "unknown": 2}'])
def test_a_damaged_card_is_refused(text):
    with pytest.raises(CheckpointError, match=r"m\.onnx does not say what it classifies"):
        OnnxCard.from_json(text, "m.onnx")


def test_a_card_of_another_version_is_refused():
    with pytest.raises(CheckpointError, match="form 3, expected 2"):
        OnnxCard.from_json(CARD.to_json().replace('"form": 2', '"form": 3'), "m.onnx")


def test_a_card_replaces_the_one_before_and_leaves_the_rest(means):
    model = onnx.load(means)
    helper.set_model_props(model, {"author": "me", "medssl": "old"})
    set_card(model, CARD)
    assert sorted(entry.key for entry in model.metadata_props) == ["author", "medssl"]


def test_every_node_gets_a_name(means):
    model = onnx.load(means)
    name_nodes(model)
    assert [node.name for node in model.graph.node] == ["ReduceMean_0"]
    assert layers(model, ("ReduceMean",)) == ["ReduceMean_0"]


def test_without_onnxruntime_the_cure_is_named(means, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        OnnxClassifier(means)


def test_prediction_needs_neither_torch_nor_onnx(means):
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from medssl.inference.onnx_runner import OnnxClassifier
print(OnnxClassifier({str(means)!r}).probabilities(np.zeros((1, 2, 4, 4), np.uint8)).tolist())
print([name for name in ("torch", "onnx", "monai", "timm") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[[0.5, 0.5]]", "[]"]


def test_softmax_keeps_large_scores_finite():
    np.testing.assert_allclose(
        softmax(np.array([[1e4, 1e4], [0.0, np.log(3.0)]])), [[0.5, 0.5], [0.25, 0.75]]
    )
