"""The table of networks against what timm and torchvision say themselves."""

from dataclasses import fields
from importlib import import_module
from importlib.metadata import metadata
from inspect import getsource

import pytest

from medssl.errors import ConfigError
from medssl.networks.compact import ALIASES, NETWORKS, network_facts
from medssl.networks.compact.facts import NetworkFacts
from medssl.networks.compact.registry import MODERN, STUDY
from medssl.networks.torchvision_compat import ensure_torchvision, import_timm

STUDY_NAMES = [
    *("ResNet18", "ResNet50", "ResNet101", "EfficientNet", "FBNet", "MixNet"),
    *("MNasNet", "MobileNet", "SqueezeNet", "ShuffleNet"),
]
OF_TIMM = [name for name, facts in NETWORKS.items() if facts.source == "timm"]
OF_TORCHVISION = [name for name, facts in NETWORKS.items() if facts.source == "torchvision"]


@pytest.mark.parametrize("name", OF_TIMM)
def test_facts_are_those_of_the_weight_set(name):
    """D11: mean, standard deviation, size and interpolation are no constant."""
    facts, published = NETWORKS[name], import_timm().get_pretrained_cfg(NETWORKS[name].id)
    assert published is not None
    assert (facts.mean, facts.std) == (published.mean, published.std)
    assert facts.input_size == published.input_size[-1] == published.input_size[-2]
    assert facts.interpolation == published.interpolation
    assert facts.crop == published.crop_pct
    assert facts.license == published.license
    assert facts.fixed_size is published.fixed_input_size
    assert published.hf_hub_id == f"timm/{facts.id}"


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_facts_are_those_of_torchvisions_weights(name):
    """D11, for the networks that timm lacks."""
    ensure_torchvision()
    from torchvision.models import get_model_weights

    facts = NETWORKS[name]
    model, _, tag = facts.id.partition(".")
    weights = get_model_weights(model)[tag]
    preset = weights.transforms()
    assert facts.mean == tuple(preset.mean)
    assert facts.std == tuple(preset.std)
    assert facts.input_size == preset.crop_size[0]
    assert facts.interpolation == preset.interpolation.value
    assert facts.crop == preset.crop_size[0] / preset.resize_size[0]
    assert facts.parameters_m == pytest.approx(weights.meta["num_params"] / 1e6, abs=5e-4)


def test_weight_sets_do_differ():
    """A registry that held one constant would pass nothing."""
    assert len({(facts.mean, facts.std) for facts in MODERN}) == 3
    assert network_facts("mobilenetv3_large_100").mean == (0.0, 0.0, 0.0)
    assert network_facts("efficientnet_b0").std == (0.5, 0.5, 0.5)
    assert network_facts("EfficientNet").input_size == 288


def test_the_twelve_networks_of_the_study_are_there():
    assert len(STUDY) == 12
    assert {facts.family for facts in STUDY} == {"standard", "manual", "nas", "quantized"}
    assert [facts.name for facts in STUDY if facts.int8] == ["resnet18-int8", "resnet50-int8"]
    assert network_facts("resnet18-int8").id == network_facts("resnet18").id


@pytest.mark.parametrize("name", STUDY_NAMES)
def test_the_studys_names_are_understood_in_any_case(name):
    assert network_facts(name) == network_facts(name.upper()) == network_facts(ALIASES[name.lower()])


def test_a_network_is_found_by_the_id_of_its_weights():
    assert network_facts("mixnet_l.ft_in1k").name == "mixnet_l"


def test_names_are_unique_and_no_alias_hides_a_name():
    assert all(target in NETWORKS for target in ALIASES.values())
    assert all(ALIASES[name] == name for name in set(ALIASES) & set(NETWORKS))


def test_an_unknown_name_is_answered_with_what_was_meant():
    with pytest.raises(ConfigError, match=r"found 'resnet19'.*Did you mean resnet18"):
        network_facts("resnet19")
    with pytest.raises(ConfigError, match="Choose one"):
        network_facts("qqqqqq")


def test_every_fact_tells_networks_apart():
    """One that is the same for all belongs into a sentence."""
    same = [
        one.name for one in fields(NetworkFacts) if len({getattr(f, one.name) for f in NETWORKS.values()}) < 2
    ]
    assert not same


@pytest.mark.parametrize("source", ["timm", "torchvision", "medssl"])
def test_the_license_of_the_code_is_that_of_the_package(source):
    """Torchvision calls its own "BSD"."""
    package = metadata(source)
    told = (package.get("License-Expression") or package["License"]).lower()
    rows = [facts for facts in NETWORKS.values() if facts.source == source]
    assert {facts.name for facts in rows if not facts.code_license.startswith(told)} <= {"fastvit_t8"}


def test_files_of_timm_that_refer_to_another_license_are_told():
    """As the head of the file that builds a network says."""
    referring = []
    for name in OF_TIMM:
        build = import_timm().model_entrypoint(NETWORKS[name].id.partition(".")[0])
        if "For licensing see accompanying LICENSE file" in getsource(import_module(build.__module__))[:2000]:
            referring.append(name)
    assert referring == [name for name in OF_TIMM if NETWORKS[name].code_license != "apache-2.0"]


def test_vendor_licenses_are_not_free():
    bound = [facts.name for facts in NETWORKS.values() if not facts.license_is_free]
    assert bound == ["fastvit_t8", "mobileone_s1"]
