"""What --method means: names, network, options that do not go together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from phantoms import ellipsoid_labels, save, write_subject

from medssl.cli.train import METHODS as NAMES
from medssl.cli.train import train as train_command
from medssl.errors import ConfigError
from medssl.io.cohort import read_cohort
from medssl.io.subjects import Cohort, Subject
from medssl.labels import BRAIN_TISSUES, NO_MASK
from medssl.workflows.methods import (
    FEW_LABELED,
    METHODS,
    PRIORS,
    background_is_inside,
    method_named,
    method_values,
    network_values,
    overlays_of,
    settings_of_network,
    target_rule,
    uses_anatomy,
)
from medssl.workflows.models import packaged_bundle
from medssl.workflows.train import TrainOptions, prepare_run

PLAIN = {"_target_": "medssl.networks.DenseFCN"}
HEAD = {"_target_": "medssl.networks.ClusteringNetwork", "backbone": PLAIN, "features": 16, "labels": 4}


@pytest.mark.parametrize(
    ("method", "rule", "warned"),
    [
        ("ssldec", "dec", True),
        ("ssldec", "prior", False),
        ("mean-teacher", "dec", True),
        ("supervised", None, False),
    ],
)
def test_dec_is_warned_of_without_a_clustering_head_too(method, rule, warned, tmp_path, caplog):
    write_subject(tmp_path / "cohort", "01", 0)
    options = TrainOptions(
        method=method, rounds=int(rule is not None), target_rule=rule, clustering_head=False
    )
    network_values(PLAIN, read_cohort(tmp_path / "cohort"), options)
    assert ("'dec' takes voxels" in caplog.text) is warned


def test_the_command_line_knows_every_method():
    assert list(METHODS) == NAMES


def test_every_overlay_is_there():
    overlays = {method.overlay for method in METHODS.values() if method.semi_supervised}
    assert all((packaged_bundle() / "configs" / str(name)).is_file() for name in overlays)


def test_an_unknown_method_is_refused_with_those_that_exist():
    with pytest.raises(ConfigError, match=r"'ssl'.* supervised, pseudo-label, mean-teacher, ssldec"):
        method_named("ssl")


def test_the_command_line_knows_every_prior():
    (option,) = (one for one in train_command.params if one.name == "prior")
    assert tuple(option.type.choices) == PRIORS
    assert f"at most {FEW_LABELED} labeled" in option.help


@pytest.mark.parametrize(
    ("changes", "few", "more"),
    [
        ({"method": "ssldec"}, True, False),
        ({"method": "ssldec", "prior": "anatomical"}, True, True),
        ({"method": "ssldec", "prior": "class"}, False, False),
        ({"method": "ssldec", "rounds": 2}, False, False),
        ({"method": "ssldec", "rounds": 2, "prior": "anatomical"}, True, True),
        ({"method": "mean-teacher"}, False, False),
        ({}, False, False),
    ],
)
def test_few_labeled_scans_are_registered_to_the_unlabeled_ones(changes, few, more):
    options = TrainOptions(**changes)
    labeled = [Subject(f"{number:02d}", ()) for number in range(FEW_LABELED + 2)]
    for count, expected in ((FEW_LABELED, few), (FEW_LABELED + 1, more)):
        cohort = Cohort(
            Path(), ("T1w",), BRAIN_TISSUES, training=tuple(labeled[:count]), unlabeled=(labeled[-1],)
        )
        assert uses_anatomy(options, cohort) is expected
        assert ("train_anatomy.yaml" in overlays_of(options, cohort)) is expected
    none = replace(cohort, training=tuple(labeled[:1]), unlabeled=())
    assert not uses_anatomy(options, none)


@pytest.mark.parametrize(("prior", "rule"), [("none", "sharpen"), ("class", "prior")])
def test_a_prior_of_classes_or_none_is_a_target_rule(prior, rule):
    assert method_values(TrainOptions(method="ssldec", prior=prior)) == {"target_rule": rule}
    chosen = TrainOptions(method="ssldec", prior=prior, target_rule="soft")
    assert method_values(chosen) == {"target_rule": "soft"}
    assert method_values(replace(chosen, target_rule=None, rounds=2)) == {"rounds": 2, "target_rule": rule}
    assert target_rule(chosen) == "soft"


def test_rounds_come_after_the_method():
    assert overlays_of(TrainOptions()) == []
    assert overlays_of(TrainOptions(method="ssldec")) == ["train_ssldec.yaml"]
    assert overlays_of(TrainOptions(method="pseudo-label", rounds=2)) == [
        "train_pseudo_label.yaml",
        "train_rounds.yaml",
    ]
    assert overlays_of(TrainOptions(method="ssldec", rounds=2, prior="anatomical")) == [
        "train_ssldec.yaml",
        "train_anatomy.yaml",
        "train_rounds.yaml",
        "train_rounds_anatomy.yaml",
    ]


@pytest.mark.parametrize(
    ("method", "rule"), [("ssldec", "prior"), ("pseudo-label", "hard"), ("mean-teacher", "soft")]
)
def test_each_method_has_its_own_rule_in_rounds(method, rule):
    assert method_values(TrainOptions(method=method, rounds=1)) == {"rounds": 1, "target_rule": rule}
    chosen = TrainOptions(method=method, rounds=1, target_rule="dec", schedule="alternate")
    assert method_values(chosen) == {"rounds": 1, "target_rule": "dec", "schedule": "alternate"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rounds": 2}, "belong to semi-supervised methods"),
        ({"target_rule": "dec"}, "belong to semi-supervised methods"),
        ({"schedule": "alternate"}, "belong to semi-supervised methods"),
        ({"method": "ssldec", "schedule": "alternate"}, "there are none"),
        ({"method": "pseudo-label", "target_rule": "dec"}, "no target rule without rounds"),
        ({"method": "mean-teacher", "target_rule": "soft"}, "no target rule without rounds"),
        ({"method": "ssldec", "target_rule": "hard"}, "'hard'"),
        ({"method": "ssldec", "target_rule": "harder", "rounds": 2}, "'harder'"),
        ({"method": "ssldec", "rounds": 2, "schedule": "now and then"}, "'now and then'"),
        ({"method": "ssldec", "rounds": -1}, "-1"),
        ({"method": "nothing"}, "'nothing'"),
        ({"method": "ssldec", "prior": "anatomic"}, "'anatomic'"),
        ({"method": "pseudo-label", "prior": "anatomical", "rounds": 2}, "belongs to --method ssldec"),
        ({"method": "mean-teacher", "prior": "class"}, "belongs to --method ssldec"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_written(
    cohort, tmp_path, changes, words
):
    with pytest.raises(ConfigError, match=words):
        prepare_run(cohort, tmp_path / "run", TrainOptions(device="cpu", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"schedule": "union_reinit"}, {"settings": {"schedule": "union_reinit"}}]
)
def test_given_weights_that_each_round_would_forget_are_refused(changes):
    options = TrainOptions(method="ssldec", rounds=1, init="weights.pt", **changes)
    with pytest.raises(ConfigError, match="would forget") as refused:
        method_values(options)
    assert "union_warm or alternate, or leave --init out" in str(refused.value)
    method_values(replace(options, schedule="union_warm", settings={}))


def test_weights_are_given_where_their_scans_are_asked_for(cohort, tmp_path):
    options = TrainOptions(settings={"init_weights": str(tmp_path / "weights.pt")}, device="cpu")
    with pytest.raises(ConfigError, match=r"init_weights.*Use --init"):
        prepare_run(cohort, tmp_path / "run", options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rule", ["dec", "sharpen", "prior", "soft"])
def test_the_rule_of_online_ssldec_reaches_the_configuration(cohort, tmp_path, rule):
    prepare_run(cohort, tmp_path / "run", TrainOptions(method="ssldec", target_rule=rule, device="cpu"))
    assert yaml.safe_load((tmp_path / "run" / "configs" / "train.yaml").read_text())["target_rule"] == rule


def masked(cohort, masks):
    return replace(
        cohort,
        training=tuple(replace(scan, mask=mask) for scan, mask in zip(cohort.training, masks, strict=True)),
    )


def test_background_is_outside_where_images_are_zero_there(cohort):
    assert not background_is_inside(read_cohort(cohort))


def test_background_is_inside_without_a_mask(cohort):
    found = read_cohort(cohort)
    assert background_is_inside(masked(found, [NO_MASK, None, None]))


@pytest.mark.parametrize(("margin", "inside"), [(0, False), (6, True)])
def test_background_is_inside_a_mask_that_is_wider_than_the_labels(cohort, tmp_path, margin, inside):
    mask = (ellipsoid_labels() > 0).astype(np.uint8)
    mask[16 - margin : 16 + margin, 16 - margin : 16 + margin, :] = 1
    path = save(tmp_path / "mask.nii.gz", mask, np.diag([2.0, 2, 2, 1]))
    assert background_is_inside(masked(read_cohort(cohort), [path] * 3)) == inside


def test_a_few_stray_voxels_do_not_make_a_cluster(cohort):
    place = next((cohort / "derivatives").rglob("sub-01_*dseg.nii.gz"))
    labels = ellipsoid_labels()
    labels.flat[np.flatnonzero(labels)[:3]] = 0
    save(place, labels, np.diag([2.0, 2, 2, 1]))
    assert not background_is_inside(read_cohort(cohort))


def test_labels_that_leave_out_a_part_of_the_brain_have_background_inside(tmp_path):
    write_subject(tmp_path, "01", 1)
    place = next((tmp_path / "derivatives").rglob("*dseg.nii.gz"))
    labels = ellipsoid_labels()
    save(place, np.where(labels == 3, 0, labels).astype(np.uint8), np.diag([2.0, 2, 2, 1]))
    assert background_is_inside(read_cohort(tmp_path))


def test_only_ssldec_ends_in_a_clustering_head(cohort):
    found = read_cohort(cohort)
    for method in METHODS:
        values = network_values(PLAIN, found, TrainOptions(method=method))
        clustered = values["network_def"]["_target_"].endswith("ClusteringNetwork")
        assert clustered == (method == "ssldec")
        assert ("background_cluster" in values) == clustered


def test_a_clustering_head_may_be_asked_for_and_left_out(cohort):
    found = read_cohort(cohort)
    asked = network_values(PLAIN, found, TrainOptions(clustering_head=True))
    assert asked["network_def"]["backbone"]["_target_"] == PLAIN["_target_"]
    assert "background_cluster" not in asked  # the labeled-only configuration has no such value
    left = network_values(PLAIN, found, TrainOptions(method="ssldec", clustering_head=False))
    assert left["network_def"]["_target_"] == PLAIN["_target_"]


@pytest.mark.parametrize("dec", [{"target_rule": "dec"}, {"settings": {"target_rule": "dec"}}])
def test_dec_is_warned_about_where_background_is_a_cluster(cohort, caplog, dec):
    found = masked(read_cohort(cohort), [NO_MASK] * 3)
    network_values(PLAIN, found, TrainOptions(method="ssldec", target_rule="prior"))
    assert not caplog.records
    network_values(PLAIN, found, TrainOptions(method="ssldec", **dec))
    assert "'prior' does not" in caplog.text


def test_settings_of_the_network_mean_the_backbone_under_a_head():
    settings = {
        "network_def#growth_rate": 4,
        "network_def#alpha": 2.0,
        "network_def#features": 8,
        "network_def#backbone#levels": 2,
        "learning_rate": 0.1,
    }
    assert settings_of_network(settings, PLAIN) == settings
    named = settings_of_network(settings, HEAD)
    assert named.pop("network_def#backbone#growth_rate") == 4
    assert named == {name: value for name, value in settings.items() if name != "network_def#growth_rate"}


def test_values_of_the_head_set_by_a_user_reach_the_network(cohort, tiny_options):
    found = read_cohort(cohort)
    plain = network_values({}, found, tiny_options(method="ssldec"))["network_def"]
    overlay = yaml.safe_load((packaged_bundle() / "configs" / "train_ssldec.yaml").read_text())
    assert (plain["features"], plain["alpha"]) == (overlay["features"], overlay["alpha"])
    assert plain["background"] is False
    settings = {"features": 5, "alpha": 1.0, "background_cluster": True}
    chosen = network_values({}, found, tiny_options(method="ssldec", settings=settings))["network_def"]
    assert (chosen["features"], chosen["alpha"], chosen["background"]) == (5, 1.0, True)
    assert chosen["backbone"]["out_channels"] == 5
