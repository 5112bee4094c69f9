import socket

import pytest
import torch

from medssl.errors import CheckpointError, ConfigError
from medssl.networks.compact import NETWORKS, build_classifier, network_facts, weights_to_fetch
from medssl.networks.compact.building import _backbone
from medssl.networks.torchvision_compat import import_timm, import_torchvision


@pytest.fixture
def published(tmp_path):
    """Return timm's own network with its classifier, and files of its weights."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    network = import_timm().create_model("test_resnet.r160_in1k", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "nested.pt"
    )
    return network, tmp_path


@pytest.fixture
def no_network(monkeypatch):
    """Make every connection an error."""

    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("a connection was tried"))


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors", "nested.pt"])
def test_weights_of_a_file_are_those_of_the_backbone(published, file, no_network):
    network, folder = published
    ours = build_classifier("test_resnet", 5, pretrained=str(folder / file)).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features((images - 0.5) / 0.5), pre_logits=True)
        torch.testing.assert_close(ours.embed(images), expected)


def test_one_channel_gets_the_sum_of_three(published):
    file = str(published[1] / "weights.pth")
    gray = build_classifier("test_resnet", 2, 1, pretrained=file).eval()
    color = build_classifier("test_resnet", 2, 3, pretrained=file).eval()
    repeated = build_classifier("test_resnet", 2, 1, pretrained=file, repeat_gray=True).eval()
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        expected = color.embed(images.repeat(1, 3, 1, 1))
        torch.testing.assert_close(gray.embed(images), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(repeated.embed(images), expected)


def test_more_channels_get_the_three_in_turn_at_the_same_strength(published):
    network, folder = published
    ours = build_classifier("test_resnet", 2, 5, pretrained=str(folder / "weights.pth"))
    first = network.conv1[0].weight
    expected = first[:, [0, 1, 2, 0, 1]] * 3 / 5
    torch.testing.assert_close(ours.backbone.conv1[0].weight, expected)


def test_torchvision_weights_lose_their_classifier_only(tmp_path):
    network = import_torchvision().models.get_model("squeezenet1_0", weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "squeezenet.pth")
    ours = build_classifier("SqueezeNet", 2, pretrained=str(tmp_path / "squeezenet.pth")).eval()
    images = torch.rand(1, 3, 64, 64)
    normalized = (images - ours.mean) / ours.std
    with torch.inference_mode():
        torch.testing.assert_close(ours.embed(images), network.features(normalized).mean((2, 3)))


def test_weights_of_another_network_are_refused(published):
    with pytest.raises(
        CheckpointError, match=r"weights\.pth does not fit the network: \d+ tensors, first conv_stem"
    ):
        build_classifier("test_efficientnet", 2, pretrained=str(published[1] / "weights.pth"))


@pytest.mark.parametrize("name", ["edgenext_x_small", "fastvit_t8", "test_vit", "tiny_vit_5m_224"])
def test_names_that_timm_cannot_translate_are_those_of_another_network(published, name):
    with pytest.raises(CheckpointError, match="does not fit the network"):
        build_classifier(name, 2, pretrained=str(published[1] / "weights.pth"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_code_in_a_file_is_never_run(tmp_path, suffix):
    path = tmp_path / f"evil{suffix}"
    torch.save(Loud(), path)
    with pytest.raises(CheckpointError, match=rf"evil\{suffix}"):
        build_classifier("test_resnet", 2, pretrained=str(path))


class Loud:
    def __reduce__(self):
        return (pytest.fail, ("code was run",))


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        build_classifier("vgg-small-28", 2, 1, pretrained=str(tmp_path / "empty.pt"))


def test_auto_and_a_missing_file_say_what_to_fetch_and_fetch_nothing(no_network):
    for value in ("auto", "missing/weights.pth"):
        with pytest.raises(
            ConfigError, match=r"huggingface\.co/timm/test_resnet\.r160_in1k.*hf download"
        ) as caught:
            build_classifier("test_resnet", 2, pretrained=value)
        assert "apache-2.0" in str(caught.value)


def test_weights_are_taken_from_the_hubs_cache_without_a_connection(
    published, no_network, monkeypatch, tmp_path
):
    import huggingface_hub

    network, folder = published
    cache = tmp_path / "hub"
    snapshot = cache / "models--timm--test_resnet.r160_in1k" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    with pytest.raises(ConfigError, match=r"No weights of test_resnet .* are cached"):
        build_classifier("test_resnet", 2, pretrained="cached")
    (snapshot / "model.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    ours = build_classifier("test_resnet", 2, pretrained="cached")
    assert torch.equal(ours.backbone.conv1[0].weight, network.conv1[0].weight)


def test_weights_are_taken_from_torchs_cache(no_network, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = import_torchvision().models.get_model("squeezenet1_0", weights=None)
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / "squeezenet1_0-b66bff10.pth")
    ours = build_classifier("SqueezeNet", 2, pretrained="cached")
    assert torch.equal(ours.backbone.features[0].weight, network.features[0].weight)


def test_our_own_networks_have_no_published_weights():
    assert weights_to_fetch(network_facts("vgg-small-28")) is None
    for value in ("auto", "cached"):
        with pytest.raises(ConfigError, match="None are published"):
            build_classifier("vgg-small-28", 2, 1, pretrained=value)


def test_torchvisions_address_is_its_own():
    source = weights_to_fetch(network_facts("ShuffleNet"))
    assert source.address == "https://download.pytorch.org/models/shufflenetv2_x1-5666bf0f80.pth"
    assert "bsd-3-clause" in str(source)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, facts in NETWORKS.items() if facts.source == "timm"])
def test_every_backbone_finds_its_tensors_among_timms(name):
    facts = NETWORKS[name]
    with torch.device("meta"):
        whole = import_timm().create_model(facts.id, pretrained=False).state_dict()
        backbone, features = _backbone(facts, 3, facts.input_size)
        pooled = backbone.eval()(torch.zeros(1, 3, facts.input_size, facts.input_size))
    own = backbone.state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: whole[key].shape for key in own}
    assert pooled.shape == (1, features)
