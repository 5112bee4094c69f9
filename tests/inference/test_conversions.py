"""Conversions are remembered where they are the same, and made anew where anything differs."""

import copy

import pytest
import torch
from torch import nn

from medssl.inference import conversions
from medssl.inference.conversions import KEPT, fingerprint, remembered
from medssl.networks import DenseFCN

SMALL = {"stem_channels": 8, "growth_rate": 4, "block_layers": 2}


@pytest.fixture
def network(needs):
    needs("openvino")  # its version is part of the fingerprint
    return DenseFCN(2, 4, **SMALL).eval()


@pytest.fixture
def calls():
    return []


@pytest.fixture
def convert(calls):
    def made():
        calls.append(1)
        return b"<xml/>", bytes(range(256))

    return made


def test_a_conversion_is_made_once_and_read_back_as_it_was(tmp_path, network, convert, calls):
    first = remembered(tmp_path, network, convert)
    assert remembered(tmp_path, copy.deepcopy(network), convert) == first == (b"<xml/>", bytes(range(256)))
    assert len(calls) == 1


def test_without_a_folder_nothing_is_remembered(network, convert, calls):
    remembered(None, network, convert)
    remembered(None, network, convert)
    assert len(calls) == 2


def test_the_fingerprint_knows_weights_settings_structure_and_versions(network, monkeypatch):
    known = fingerprint(network)
    assert fingerprint(copy.deepcopy(network)) == known
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    settings = copy.deepcopy(network)
    settings.deep_window = (48, 48, 48)
    deeper = copy.deepcopy(network)
    deeper.extra = nn.Identity()
    statistics = copy.deepcopy(network)
    next(values for name, values in statistics.named_buffers() if name.endswith("running_var")).mul_(2)
    changed = [fingerprint(one) for one in (other, settings, deeper, statistics)]
    monkeypatch.setattr(conversions, "version", lambda _: "9.9")
    assert len({known, *changed, fingerprint(network)}) == 6


def test_the_fingerprint_knows_the_code_of_a_module(tmp_path, network, monkeypatch):
    known = fingerprint(network)
    (tmp_path / "another.py").write_text("changed = True\n")
    files = list(conversions._sources(network))
    monkeypatch.setattr(conversions, "_sources", lambda _: iter([*files, tmp_path / "another.py"]))
    assert fingerprint(network) != known
    assert any(file.name == "dense_fcn.py" for file in files)


def test_what_cannot_be_told_apart_is_converted_every_time(tmp_path, network, convert, calls):
    network.register_forward_hook(lambda *_: None)
    script = torch.jit.trace(nn.Conv3d(1, 1, 1), torch.zeros(1, 1, 2, 2, 2))
    assert fingerprint(network) is fingerprint(script) is None
    for one in (network, network, script):
        remembered(tmp_path, one, convert)
    assert len(calls) == 3
    assert not list(tmp_path.rglob("*.openvino"))


def test_a_damaged_file_is_made_anew(tmp_path, network, convert, calls, caplog):
    remembered(tmp_path, network, convert)
    (file,) = tmp_path.rglob("*.openvino")
    for damage in (b"", file.read_bytes()[:-1], file.read_bytes()[:-1] + b"x"):
        file.write_bytes(damage)
        assert remembered(tmp_path, network, convert) == (b"<xml/>", bytes(range(256)))
    assert len(calls) == 4
    assert caplog.text.count("is damaged; converting anew") == 3


def test_a_folder_that_cannot_be_written_to_does_no_harm(tmp_path, network, convert, caplog):
    (tmp_path / "converted").write_text("a file where the folder should be")
    assert remembered(tmp_path, network, convert)[0] == b"<xml/>"
    assert "The converted network is not remembered" in caplog.text


def test_the_oldest_go(tmp_path, network, convert):
    for number in range(KEPT + 3):
        network.number = number
        remembered(tmp_path, network, convert)
    assert len(list(tmp_path.rglob("*.openvino"))) == KEPT


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_remembered_network_gives_the_same_logits_bit_for_bit(tmp_path, network, precision):
    from medssl.inference.backends.openvino_backend import OpenVinoBackend
    from medssl.inference.machine import has_bfloat16

    if precision == "bfloat16" and not has_bfloat16(torch.device("cpu")):
        pytest.skip("this processor has no bfloat16")
    tile = torch.randn(1, 2, 16, 16, 16)
    first, second, fresh = (
        OpenVinoBackend(network, precision=precision, folder=folder)(tile)
        for folder in (tmp_path, tmp_path, None)
    )
    assert len(list(tmp_path.rglob("*.openvino"))) == 1
    assert torch.equal(first, second)
    assert torch.equal(first, fresh)
