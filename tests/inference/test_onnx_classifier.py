import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.inference.classification import predict_scores
from medssl.inference.onnx_classifier import compare, export_classifier, parity
from medssl.inference.onnx_network import OnnxNetwork
from medssl.inference.onnx_runner import KEY, OnnxClassifier
from medssl.networks import ClusteringNetwork
from medssl.networks.compact import NETWORKS, build_classifier

CLASSES = ["benign", "malignant", "größer"]
SIDE = 64


def lively(name: str, channels: int = 3) -> nn.Module:
    """Return a network with no branch switched off, its running statistics those of noise."""
    torch.manual_seed(0)
    size = SIDE if NETWORKS[name].fixed_size else None
    network = build_classifier(name, 3, channels, size=size)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(getattr(module, "weight", None), torch.Tensor) and module.weight.ndim == 1:
                module.weight.uniform_(0.2, 0.6)  # more makes deep ones chaotic
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.momentum = None
        network.train()(torch.rand(8, channels, SIDE, SIDE))
    return network.eval()


FEW = ["vgg-small-64", "test_resnet", "test_efficientnet", "squeezenet1_0", "mobileone_s1", "test_vit"]
ALL = [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in NETWORKS]


@pytest.mark.parametrize("name", ALL)
def test_the_file_gives_the_scores_of_the_network(tmp_path, name):
    """D11, D18: normalization included, at another size than the weights', for batches of one and of 32."""
    network, images = lively(name), torch.rand(32, 3, SIDE, SIDE)
    export_classifier(network, tmp_path / "model.onnx", CLASSES, size=SIDE)
    found = parity(network, tmp_path / "model.onnx", images)
    assert found.images == 32
    assert found.passed, str(found)
    runner = OnnxClassifier(tmp_path / "model.onnx")
    np.testing.assert_allclose(
        runner.scores(images[:1].numpy()), runner.scores(images.numpy())[:1], atol=found.allowed
    )


def test_a_clustering_network_is_exported_with_its_head(tmp_path):
    network = ClusteringNetwork(lively("vgg-small-64"), features=3, labels=3, background=True).eval()
    export_classifier(network, tmp_path / "model.onnx", CLASSES)
    assert parity(network, tmp_path / "model.onnx", torch.rand(4, 3, SIDE, SIDE)).passed


def test_everything_that_prediction_needs_is_in_the_file(tmp_path):
    network = lively("test_efficientnet", channels=1)
    card = export_classifier(
        network,
        tmp_path / "model.onnx",
        CLASSES,
        size=48,
        temperature=1.5,
        extra={"abstain_below": 0.7},
    )
    model = onnx.load(tmp_path / "model.onnx")
    (told,) = [json.loads(entry.value) for entry in model.metadata_props if entry.key == KEY]
    assert told == {
        "form": 2,
        "network": "test_efficientnet",
        "classes": CLASSES,
        "size": 48,
        "channels": 1,
        "interpolation": "bicubic",
        "mean": pytest.approx([0.449]),
        "std": pytest.approx([0.226]),
        "temperature": 1.5,
        "softmax": False,
        "precision": "float32",
        "fit": "crop",
        "white": None,
        "extra": {"abstain_below": 0.7},
    }
    assert OnnxClassifier(tmp_path / "model.onnx").card == card
    assert model.opset_import[0].version >= 17
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_mean_and_deviation_are_those_of_the_weights_to_the_last_digit(tmp_path):
    card = export_classifier(lively("test_efficientnet"), tmp_path / "model.onnx", CLASSES, size=32)
    facts = NETWORKS["test_efficientnet"]
    assert (card.mean, card.std) == (facts.mean, facts.std)


def test_the_softmax_may_be_in_the_graph(tmp_path):
    network, images = lively("vgg-small-64"), torch.rand(3, 3, SIDE, SIDE)
    for softmax in (True, False):
        export_classifier(network, tmp_path / "m.onnx", CLASSES, temperature=2.0, softmax=softmax)
        with torch.inference_mode():
            expected = (network(images) / 2).softmax(1)
        found = OnnxClassifier(tmp_path / "m.onnx").probabilities(images.numpy())
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
        assert parity(network, tmp_path / "m.onnx", images).passed
        (output,) = onnx.load(tmp_path / "m.onnx").graph.output
        assert output.name == ("probabilities" if softmax else "scores")


@pytest.mark.parametrize("softmax", [True, False])
def test_a_file_stands_in_for_its_network(tmp_path, softmax):
    """At any temperature, wherever the softmax is."""
    network, images = lively("vgg-small-64"), torch.rand(3, 3, SIDE, SIDE)
    export_classifier(network, tmp_path / "m.onnx", CLASSES, temperature=2.0, softmax=softmax)
    file = OnnxNetwork(OnnxClassifier(tmp_path / "m.onnx"))
    for temperature in (1.0, 2.0):
        expected, found = ((predict_scores(one, images) / temperature).softmax(1) for one in (network, file))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_network_is_left_as_it_was(tmp_path):
    network = lively("mobileone_s1").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    export_classifier(network, tmp_path / "model.onnx", CLASSES, size=32)
    parity(network, tmp_path / "model.onnx", torch.rand(2, 3, 32, 32))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_another_network_does_not_pass(tmp_path):
    export_classifier(lively("vgg-small-64"), tmp_path / "model.onnx", CLASSES)
    torch.manual_seed(5)
    other = build_classifier("vgg-small-64", 3).eval()
    assert not parity(other, tmp_path / "model.onnx", torch.rand(4, 3, SIDE, SIDE)).passed


def test_the_allowance_grows_with_the_scores_and_nan_never_passes():
    scores = np.array([[0.0, 100.0], [100.0, 0.0]])
    assert compare(scores, scores + 0.0109).passed
    assert not compare(scores, scores + 0.0111).passed
    assert not compare(scores, scores[::-1]).passed
    assert not compare(scores, scores * np.nan).passed
    swapped = compare(np.array([[0.0, 1e-4]]), np.array([[1e-4, 0.0]]))
    assert swapped.other_class == 1
    assert not swapped.passed
    assert "1 in another class" in str(swapped)


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c", "d"]])
def test_classes_have_to_be_as_many_as_the_scores(tmp_path, classes):
    with pytest.raises(ConfigError, match=f"3 scores, but {len(classes)} classes"):
        export_classifier(lively("vgg-small-64"), tmp_path / "model.onnx", classes)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_export_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no")  # noqa: EM101

    monkeypatch.setattr(torch.onnx, "export", fail)
    (tmp_path / "model.onnx").write_text("the last one")
    with pytest.raises(RuntimeError, match="no"):
        export_classifier(lively("vgg-small-64"), tmp_path / "model.onnx", CLASSES)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the last one"]
