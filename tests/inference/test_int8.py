import logging

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from medssl.errors import ConfigError, InputError
from medssl.inference import int8
from medssl.inference.int8 import divergence, quantize, quantize_within, sensitive_layers
from medssl.inference.int8_ladder import Recipe
from medssl.inference.onnx_classifier import export_classifier
from medssl.inference.onnx_model import layers
from medssl.inference.onnx_runner import OnnxClassifier
from medssl.networks import ClusteringNetwork
from medssl.networks.compact import build_classifier

IMAGES = np.random.default_rng(0).random((12, 1, 28, 28), dtype=np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the file of a small network with plausible running statistics."""
    torch.manual_seed(0)
    network = build_classifier("vgg-small-28", 3, 1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    network.train()(torch.from_numpy(IMAGES))
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_classifier(network, path, ["a", "b", "c"], temperature=1.5)
    return path


def weights_of(path, operator="DequantizeLinear"):
    model = onnx.load(path)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return [types.get(node.input[0]) for node in model.graph.node if node.op_type == operator]


@pytest.mark.parametrize("calibration", ["minmax", "entropy", "percentile"])
def test_int8_is_smaller_and_close_to_float32(exported, tmp_path, calibration, capsys):
    out = tmp_path / "int8.onnx"
    quantize(exported, out, IMAGES, Recipe(calibration, 12))
    assert out.stat().st_size < 0.5 * exported.stat().st_size
    assert onnx.TensorProto.INT8 in weights_of(out)
    expected, found = (OnnxClassifier(path).scores(IMAGES) for path in (exported, out))
    assert 0 < np.abs(expected - found).max() < 0.2 * np.ptp(expected) + 0.05
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
    assert capsys.readouterr().out == ""


def test_the_card_stays_and_says_how_it_was_made(exported, tmp_path):
    quantize(exported, tmp_path / "int8.onnx", IMAGES)
    before, after = (OnnxClassifier(path).card for path in (exported, tmp_path / "int8.onnx"))
    assert (after.classes, after.temperature, after.size) == (before.classes, before.temperature, before.size)
    assert (before.precision, after.precision) == ("float32", "int8")
    assert after.extra["int8"] == "minmax, 200 images"


def test_bytes_calibrate_as_their_floats(exported, tmp_path):
    bytes_ = (IMAGES * 255).round().astype(np.uint8)
    for name, images in (("bytes", bytes_), ("floats", bytes_.astype(np.float32) / 255)):
        quantize(exported, tmp_path / f"{name}.onnx", images)
    found = [OnnxClassifier(tmp_path / f"{name}.onnx").scores(IMAGES) for name in ("bytes", "floats")]
    np.testing.assert_array_equal(*found)


def test_kept_layers_stay_in_float32(exported, tmp_path):
    names = layers(onnx.load(exported))
    quantize(exported, tmp_path / "all.onnx", IMAGES)
    quantize(exported, tmp_path / "kept.onnx", IMAGES, Recipe(keep=(names[0], names[-1])))
    counts = [weights_of(tmp_path / f"{name}.onnx").count(onnx.TensorProto.INT8) for name in ("all", "kept")]
    assert counts == [len(names), len(names) - 2]


def test_the_distances_to_centers_stay_in_float32(tmp_path):
    torch.manual_seed(0)
    backbone = build_classifier("vgg-small-28", 3, 1).eval()
    network = ClusteringNetwork(backbone, features=3, labels=3, background=True)
    export_classifier(network, tmp_path / "model.onnx", ["a", "b", "c"])
    quantize(tmp_path / "model.onnx", tmp_path / "int8.onnx", IMAGES)
    nodes = list(onnx.load(tmp_path / "int8.onnx").graph.node)
    last = max(place for place, node in enumerate(nodes) if node.op_type in ("Gemm", "MatMul", "Conv"))
    behind = [node.op_type for node in nodes[last + 1 :]]
    assert behind[:2] == ["QuantizeLinear", "DequantizeLinear"]  # the embedding itself
    assert "Sub" in behind
    assert "QuantizeLinear" not in behind[2:]


def test_the_layer_that_suffers_most_comes_first(tmp_path):
    torch.manual_seed(0)
    network = build_classifier("vgg-small-28", 3, 1).eval()
    with torch.no_grad():
        network.head.weight[:, 0] *= 1e4  # a range that 8 bits cannot hold
        network.backbone.scales[2][4].weight[0] *= 1e-4
    export_classifier(network, tmp_path / "model.onnx", ["a", "b", "c"])
    found = sensitive_layers(tmp_path / "model.onnx", IMAGES[:4])
    assert sorted(found) == sorted(layers(onnx.load(tmp_path / "model.onnx")))
    assert found[0].endswith("Gemm")


def test_divergence_is_zero_for_equal_answers_only():
    p, q = np.array([[0.75, 0.25]]), np.array([[0.5, 0.5]])
    assert divergence(p, p) == pytest.approx(0, abs=1e-9)
    assert divergence(p, q) == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)


@pytest.mark.parametrize("softmax", [True, False])
def test_answers_are_compared_as_probabilities_wherever_the_softmax_is(tmp_path, monkeypatch, softmax):
    """A softmax of probabilities would make all classes nearly equal."""
    torch.manual_seed(0)
    path, seen = tmp_path / "model.onnx", []
    export_classifier(build_classifier("vgg-small-28", 3, 1), path, ["a", "b", "c"], softmax=softmax)

    def spy(expected, found):
        seen.append(expected)
        return 0.0

    monkeypatch.setattr(int8, "divergence", spy)
    quantize_within(
        path, tmp_path / "int8.onnx", IMAGES, lambda runner: float(runner.card.precision == "float32")
    )
    drawn = IMAGES[np.random.default_rng(0).permutation(len(IMAGES))]
    np.testing.assert_allclose(seen[0], OnnxClassifier(path).probabilities(drawn), atol=1e-5)


def test_a_way_that_keeps_the_accuracy_is_written(exported, tmp_path):
    expected = OnnxClassifier(exported).scores(IMAGES).argmax(1)
    seen = []

    def agreement(runner: OnnxClassifier) -> float:
        seen.append(runner.card.precision)
        return float((runner.scores(IMAGES).argmax(1) == expected).mean())

    outcome = quantize_within(
        exported, tmp_path / "int8.onnx", IMAGES, agreement, most_loss=0.2, calibrated_on=8
    )
    assert outcome.reference == 1.0
    assert outcome.chosen.recipe == Recipe("minmax", 8)
    assert seen == ["float32", "int8"]
    assert OnnxClassifier(tmp_path / "int8.onnx").card.precision == "int8"


def test_without_such_a_way_float32_is_kept_and_nothing_is_written(exported, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(int8, "sensitive_layers", lambda *_, **__: [])
    with caplog.at_level(logging.WARNING):
        outcome = quantize_within(
            exported, tmp_path / "int8.onnx", IMAGES, lambda runner: float(runner.card.precision == "float32")
        )
    assert outcome.chosen is None
    assert len(outcome.attempts) == 4  # three calibrations, both ends in float32
    assert "float32 is kept" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_way_that_fails_is_said_and_passed_over(exported, tmp_path, caplog, monkeypatch):
    real = int8._quantize_prepared

    def fragile(prepared, out, images, recipe, *others):
        if recipe.calibration == "minmax":
            raise RuntimeError("no histogram")  # noqa: EM101
        real(prepared, out, images, recipe, *others)

    monkeypatch.setattr(int8, "_quantize_prepared", fragile)
    outcome = quantize_within(exported, tmp_path / "int8.onnx", IMAGES, lambda runner: 1.0)
    assert outcome.chosen.recipe.calibration == "entropy"
    assert "no histogram" in caplog.text


def test_the_same_seed_draws_the_same_images(exported, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        quantize_within(
            exported, tmp_path / f"{name}.onnx", IMAGES, lambda runner: 1.0, calibrated_on=2, seed=seed
        )
    a, b, c = (OnnxClassifier(tmp_path / f"{name}.onnx").scores(IMAGES) for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_images_and_calibration_are_required(exported, tmp_path):
    with pytest.raises(InputError, match="found none"):
        quantize(exported, tmp_path / "int8.onnx", IMAGES[:0])
    with pytest.raises(ConfigError, match="'kl', expected one of"):
        quantize(exported, tmp_path / "int8.onnx", IMAGES, Recipe("kl"))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_simplified_is_quantized_as_it_is(exported, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("shape inference")  # noqa: EM101

    monkeypatch.setattr(int8._tools().shape_inference, "quant_pre_process", fail)
    quantize(exported, tmp_path / "int8.onnx", IMAGES)
    assert OnnxClassifier(tmp_path / "int8.onnx").probabilities(IMAGES).shape == (12, 3)


def test_logging_is_given_back(caplog):
    root = logging.getLogger()
    filters = list(root.filters)
    with int8._silence():
        logging.warning("chatter")  # noqa: LOG015
        logging.getLogger("medssl.other").warning("ours")
    assert root.filters == filters
    assert [record.message for record in caplog.records] == ["ours"]
