"""Conversions are remembered where they are the same, and made anew where anything differs."""

import copy
import os

import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn

from medssl.inference import conversions
from medssl.inference.conversions import KEPT, fingerprint, remembered
from medssl.inference.machine import has_bfloat16
from medssl.networks import ClusteringNetwork, DenseFCN

SMALL = {"stem_channels": 8, "growth_rate": 4, "block_layers": 2}
MADE = (b"<xml/>", bytes(range(256)))


@pytest.fixture
def network():
    return DenseFCN(2, 4, **SMALL).eval()


@pytest.fixture
def calls():
    return []


@pytest.fixture
def convert(calls):
    def made():
        calls.append(1)
        return MADE

    return made


def changed(network, change):
    other = copy.deepcopy(network)
    with torch.no_grad():
        change(other)
    return fingerprint(other)


def test_a_conversion_is_made_once_and_read_back_as_it_was(tmp_path, network, convert, calls):
    assert remembered(tmp_path, network, convert) == MADE
    assert remembered(tmp_path, copy.deepcopy(network), convert) == MADE
    assert len(calls) == 1


def test_without_a_folder_nothing_is_remembered(network, convert, calls):
    remembered(None, network, convert)
    remembered(None, network, convert)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "other", [lambda: BasicUNet(3, 2, 4), lambda: ClusteringNetwork(DenseFCN(2, 16, **SMALL), 16, 4)]
)
def test_the_networks_of_this_package_are_known(other):
    network = other()
    assert fingerprint(network) == fingerprint(copy.deepcopy(network)) is not None


def test_the_fingerprint_knows_weights_settings_and_structure(network):
    known = fingerprint(network)
    assert fingerprint(copy.deepcopy(network)) == known
    found = [
        changed(network, lambda one: next(one.parameters()).view(-1)[0].add_(1e-6)),
        changed(network, lambda one: one.stem[1].running_var.mul_(2)),
        changed(network, lambda one: setattr(one, "deep_window", (48, 48, 48))),
        changed(network, lambda one: setattr(one, "_way", "another")),
        changed(network, lambda one: one.register_buffer("hidden", torch.zeros(1), persistent=False)),
        changed(network, lambda one: one.add_module("extra", nn.Identity())),
    ]
    assert len({known, *found}) == 1 + len(found)
    relu = nn.ReLU()
    assert fingerprint(nn.Sequential(relu, nn.Identity(), relu)) != fingerprint(
        nn.Sequential(relu, nn.Identity())
    )


@pytest.mark.parametrize("library", ["torch", "monai", "openvino"])
def test_the_fingerprint_knows_the_version_of_each_library(network, monkeypatch, library):
    known, usual = fingerprint(network), conversions.version_of
    monkeypatch.setattr(conversions, "version_of", lambda name: "9.9" if name == library else usual(name))
    assert fingerprint(network) != known


def test_the_fingerprint_knows_our_code(tmp_path, network, monkeypatch):
    for name in ("networks", "functional"):
        (tmp_path / name).mkdir()
    (tmp_path / "networks" / "dense_fcn.py").write_text("one")
    monkeypatch.setattr(conversions.medssl, "__file__", str(tmp_path / "__init__.py"))
    known = fingerprint(network)
    (tmp_path / "networks" / "dense_fcn.py").write_text("another")
    assert fingerprint(network) != known
    (tmp_path / "networks" / "dense_fcn.py").write_text("one")
    assert fingerprint(network) == known
    (tmp_path / "functional" / "clustering.py").write_text("one more")
    assert fingerprint(network) != known


class FromElsewhere(nn.Module):
    """Its code may change with no version of ours."""


class ChildOfOurs(DenseFCN):
    """So may this one's."""


def unknown():
    hooked, acting, own = (DenseFCN(2, 4, **SMALL) for _ in range(3))
    hooked.stem[0].register_forward_pre_hook(lambda *_: None)
    acting.act = torch.relu
    own.forward = lambda x: x
    tensor = DenseFCN(2, 4, **SMALL)
    tensor.mean = [torch.zeros(1)]
    script = torch.jit.trace(nn.Conv3d(1, 1, 1), torch.zeros(1, 1, 2, 2, 2))
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    inside = nn.Sequential(FromElsewhere())
    return [hooked, acting, own, tensor, script, graph, inside, ChildOfOurs(2, 4, **SMALL)]


def test_what_cannot_be_told_apart_is_converted_every_time(tmp_path, convert, calls):
    found = [fingerprint(one) for one in unknown()]
    assert found == [None] * len(found)
    remembered(tmp_path, unknown()[0], convert)
    assert len(calls) == 1
    assert not list(tmp_path.rglob("*.openvino"))


def test_a_damaged_file_is_made_anew(tmp_path, network, convert, calls, caplog):
    remembered(tmp_path, network, convert)
    (file,) = tmp_path.rglob("*.openvino")
    for damage in (b"", file.read_bytes()[:-1], file.read_bytes()[:-1] + b"x"):
        file.write_bytes(damage)
        assert remembered(tmp_path, network, convert) == MADE
    assert len(calls) == 4
    assert caplog.text.count("is damaged; converting anew") == 3


def test_a_folder_that_cannot_be_written_to_does_no_harm(tmp_path, network, convert, caplog):
    (tmp_path / "converted").write_text("a file where the folder should be")
    assert remembered(tmp_path, network, convert) == MADE
    assert "The converted network is not remembered" in caplog.text


def test_a_large_network_is_not_kept(tmp_path, network, convert, monkeypatch):
    monkeypatch.setattr(conversions, "LARGEST", 100)
    assert remembered(tmp_path, network, convert) == MADE
    assert not list(tmp_path.rglob("*.openvino"))


def test_the_oldest_go_and_what_others_are_writing_stays(tmp_path, network, convert):
    folder = tmp_path / "converted"
    folder.mkdir()
    for number in range(KEPT + 2):
        (folder / f"{number:02d}.openvino").write_bytes(b"")
        os.utime(folder / f"{number:02d}.openvino", (2**40 + number, 2**40 + number))  # long after today
    (folder / ".partial-1-a.openvino").write_bytes(b"")
    remembered(tmp_path, network, convert)
    assert (folder / ".partial-1-a.openvino").exists()
    kept = {file.name for file in folder.glob("[!.]*")}
    assert len(kept) == KEPT
    assert f"{fingerprint(network)[:40]}.openvino" in kept
    assert {"00.openvino", "01.openvino", "02.openvino"}.isdisjoint(kept)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_remembered_network_gives_the_same_logits_bit_for_bit(
    tmp_path, network, precision, needs, monkeypatch
):
    needs("openvino")
    if precision == "bfloat16" and not has_bfloat16(torch.device("cpu")):
        pytest.skip("this processor has no bfloat16")
    from medssl.inference.backends import openvino_backend

    tile = torch.randn(1, 2, 16, 16, 16)
    fresh, first = (
        openvino_backend.OpenVinoBackend(network, precision=precision, folder=folder)(tile)
        for folder in (None, tmp_path)
    )
    monkeypatch.setattr(openvino_backend, "_converted", lambda *_: pytest.fail("converted again"))
    second = openvino_backend.OpenVinoBackend(network, precision=precision, folder=tmp_path)(tile)
    assert torch.equal(first, second)
    assert torch.equal(first, fresh)
