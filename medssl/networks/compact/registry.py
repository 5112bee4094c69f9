"""The networks that can be built by name, one row a network; what their weights want is the weight set's own word."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from medssl.errors import ConfigError
from medssl.networks.compact.facts import NetworkFacts


def _timm(tag: str, family: str, parameters_m: float, **others: Any) -> NetworkFacts:
    return NetworkFacts(tag.partition(".")[0], "timm", tag, family, parameters_m, **others)


def _torchvision(name: str, family: str, parameters_m: float, **others: Any) -> NetworkFacts:
    tag = f"{name}.IMAGENET1K_V1"
    return NetworkFacts(name, "torchvision", tag, family, parameters_m, code_license="bsd-3-clause", **others)


BILINEAR: dict[str, Any] = {"interpolation": "bilinear"}
TORCHVISION = BILINEAR | {"license": "bsd-3-clause"}
HALF: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear"}
CI: dict[str, Any] = {"input_size": 160, "crop": 0.95}
LAST: dict[str, Any] = {"channels_last": True}
OWN = PLAIN | LAST | {"license": "none", "crop": 1.0}
BRANCHES: dict[str, Any] = {"reparameterize": True}

STUDY = (
    _timm("resnet18.tv_in1k", "manual", 11.690, **TORCHVISION),
    _timm("resnet50.tv_in1k", "standard", 25.557, **TORCHVISION),
    _timm("resnet101.tv_in1k", "standard", 44.549, **TORCHVISION),
    _timm("efficientnet_b3.ra2_in1k", "standard", 12.233, input_size=288),
    _timm("fbnetc_100.rmsp_in1k", "nas", 5.572, **BILINEAR | LAST),
    _timm("mixnet_l.ft_in1k", "nas", 7.329, **LAST),
    _timm("mnasnet_100.rmsp_in1k", "nas", 4.383, **LAST),
    _timm("mobilenetv2_100.ra_in1k", "manual", 3.505, **LAST),
    _torchvision("squeezenet1_0", "manual", 1.248, **TORCHVISION | LAST),
    _torchvision("shufflenet_v2_x1_0", "manual", 2.279, **TORCHVISION | LAST),
    NetworkFacts("resnet18-int8", "timm", "resnet18.tv_in1k", "quantized", 11.690, int8=True, **TORCHVISION),
    NetworkFacts("resnet50-int8", "timm", "resnet50.tv_in1k", "quantized", 25.557, int8=True, **TORCHVISION),
)
"""The twelve networks of the study on compact networks (arXiv 2205.09678)."""

MODERN = (
    _timm("mobilenetv4_conv_small.e2400_r224_in1k", "modern", 3.774, **LAST),
    _timm("mobilenetv4_conv_medium.e500_r224_in1k", "modern", 9.716, crop=0.95, **LAST),
    _timm("mobilenetv3_large_100.miil_in21k_ft_in1k", "modern", 5.483, **PLAIN | LAST),
    _timm("lcnet_100.ra2_in1k", "modern", 2.954, **LAST),
    _timm("hardcorenas_a.miil_green_in1k", "modern", 5.260, **BILINEAR | LAST),
    _timm("tinynet_a.in1k", "modern", 6.188, input_size=192, **LAST),
    _timm("efficientnet_b0.ra4_e3600_r224_in1k", "modern", 5.289, crop=0.9, **HALF | LAST),
    _timm("rexnet_100.nav_in1k", "modern", 4.797, license="mit"),
    _timm("fbnetv3_b.ra2_in1k", "modern", 8.598, crop=0.95, **BILINEAR),
    _timm("repvit_m0_9.dist_450e_in1k", "modern", 5.489, crop=0.95, **BRANCHES),
    _timm("repvit_m1_0.dist_450e_in1k", "modern", 7.303, crop=0.95, **BRANCHES),
    _timm(
        "fastvit_t8.apple_dist_in1k",
        "modern",
        4.026,
        input_size=256,
        crop=0.9,
        license="fastvit-license",
        code_license="fastvit-license",
        **BRANCHES,
    ),
    _timm(
        "mobileone_s1.apple_in1k",
        "modern",
        4.825,
        crop=0.9,
        license="mobileone-license",
        **BILINEAR | BRANCHES,
    ),
    _timm("efficientformerv2_s0.snap_dist_in1k", "modern", 3.600, crop=0.95, fixed_size=True),
    _timm("tiny_vit_5m_224.dist_in22k_ft_in1k", "modern", 5.393, crop=0.95),
    _timm("efficientvit_b0.r224_in1k", "modern", 3.410, crop=0.95),
    _timm("starnet_s1.in1k", "modern", 2.869),
    _timm("starnet_s3.in1k", "modern", 5.751),
    _timm("edgenext_x_small.in1k", "modern", 2.337, input_size=256, crop=0.9, license="mit"),
    _timm("ghostnetv2_100.in1k", "modern", 6.157, least_size=64),
    _timm("ghostnetv3_100.in1k", "modern", 8.129, least_size=64),
)
"""Newer compact networks."""

TEST = (
    _timm("test_byobnet.r160_in1k", "test", 0.457, **CI),
    _timm("test_convnext.r160_in1k", "test", 0.272, **CI, **HALF),
    _timm("test_convnext2.r160_in1k", "test", 0.478, **CI, **HALF),
    _timm("test_convnext3.r160_in1k", "test", 0.469, **CI, **HALF),
    _timm("test_efficientnet.r160_in1k", "test", 0.356, **CI),
    _timm("test_efficientnet_evos.r160_in1k", "test", 0.357, **CI, **HALF),
    _timm("test_efficientnet_gn.r160_in1k", "test", 0.356, **CI, **HALF),
    _timm("test_efficientnet_ln.r160_in1k", "test", 0.356, **CI),
    _timm("test_nfnet.r160_in1k", "test", 0.383, **CI, **HALF),
    _timm("test_resnet.r160_in1k", "test", 0.470, **CI, **HALF, **BILINEAR),
    _timm("test_vit.r160_in1k", "test", 0.371, fixed_size=True, **CI, **HALF),
    _timm("test_vit2.r160_in1k", "test", 0.456, fixed_size=True, **CI, **HALF),
    _timm("test_vit3.r160_in1k", "test", 0.930, fixed_size=True, **CI, **HALF),
)
"""timm's networks for tests."""

SMALL = (
    NetworkFacts("vgg-small-28", "medssl", "vgg-small-28", "small", 0.110, 28, least_size=16, **OWN),
    NetworkFacts("vgg-small-64", "medssl", "vgg-small-64", "small", 0.175, 64, least_size=16, **OWN),
)
"""Our own, to be trained from scratch on small images."""

NETWORKS = {facts.name: facts for facts in (*STUDY, *MODERN, *TEST, *SMALL)}
"""Name -> facts.

All can be quantized to int8 (benchmarks/results/compact_networks.json; timm's test networks were not tried); what that
costs and gains is measured at export and bench.
"""

ALIASES = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "efficientnet": "efficientnet_b3",
    "fbnet": "fbnetc_100",
    "mixnet": "mixnet_l",
    "mnasnet": "mnasnet_100",
    "mobilenet": "mobilenetv2_100",
    "squeezenet": "squeezenet1_0",
    "shufflenet": "shufflenet_v2_x1_0",
    "resnet18quantized": "resnet18-int8",
    "resnet50quantized": "resnet50-int8",
}
"""The study's names, in lower case -> ours."""


def network_facts(name: str) -> NetworkFacts:
    """Return the row of a network.

    Args:
        name: A name of `NETWORKS`, the id of its weights, or one of the study's names (ResNet18, MixNet ...); upper
            and lower case do not matter.

    Raises:
        ConfigError: There is no such network.
    """
    wanted = name.lower()
    known = ALIASES.get(wanted, wanted)
    if known in NETWORKS:
        return NETWORKS[known]
    for facts in NETWORKS.values():
        if facts.id.lower() == wanted:
            return facts
    close = get_close_matches(wanted, [*NETWORKS, *ALIASES], n=3)
    msg = f"Unknown network: found {name!r}, expected one of {', '.join(NETWORKS)}."
    raise ConfigError(msg, f"Did you mean {' or '.join(close)}?" if close else "Choose one of these.")
