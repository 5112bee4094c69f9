"""The weight of registered labels, chosen on scans that a network was not trained on."""

import json
from dataclasses import replace

import pytest
import torch
from phantoms import TINY, write_subject

from medssl.functional.anatomy_weight import WEIGHTS, WeightChoice
from medssl.io.cohort import read_cohort
from medssl.workflows.anatomy_weight import record, sentence, weigh_anatomy, with_weight
from medssl.workflows.train import TrainOptions, hold_out, train

OPTIONS = TrainOptions(method="ssldec", prior="anatomical", hold_out=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A cohort and a labeled-only run that saw it for a single step, so that the network knows nothing."""
    root = tmp_path_factory.mktemp("weight")
    for name in ("01", "02", "03"):
        write_subject(root / "cohort", name, 10 * int(name))
    settings = {**TINY, "epochs": 1, "steps_per_epoch": 1}
    chosen = TrainOptions(budget="quick", device="cpu", hold_out=1, settings=settings)
    train(root / "cohort", root / "run", chosen)
    return root


def test_labels_that_are_right_get_weight_where_the_network_knows_nothing(root, tmp_path):
    cohort = hold_out(read_cohort(root / "cohort"), OPTIONS)
    told = []
    found = weigh_anatomy(root / "run", cohort, OPTIONS, tmp_path, lambda *seen: told.append(seen))
    choice = found.choice
    assert choice.weight == 1.0
    assert list(choice.likelihood) == list(WEIGHTS)
    assert choice.dice[1.0] > choice.dice[0.0] + 0.2
    (held_out,) = (subject.key for subject in cohort.validation)
    assert [path.name for path in (tmp_path / "registrations").iterdir()] == [held_out]
    assert told[-1] == (2, 2)
    assert (found.scans, found.without) == ((held_out,), ())
    said = record(found, OPTIONS, automatic=False)
    assert said["held_out"] == [held_out]
    assert said["target_rule"] == "prior"
    assert json.loads(json.dumps(said)) == said
    assert {one["weight"]: one["dice"] for one in said["candidates"]} == choice.dice


def test_a_weight_of_0_is_no_prior(root):
    cohort = read_cohort(root / "cohort")
    assert with_weight(OPTIONS, 0.0, automatic=True, cohort=cohort).prior == "class"
    own = {"learning_rate": 0.1, "train#unlabeled#dataset#keys": ["image", "strong", "mask"]}
    shared = {"train#dataset#registered#folder": "shared", "atlases": 4, **own}
    left = with_weight(replace(OPTIONS, settings=shared), 0.0, automatic=True, cohort=cohort)
    assert left.settings == own, "the configuration has no place for the others"
    kept = with_weight(OPTIONS, 0.0, automatic=False, cohort=cohort)
    assert kept.prior == "anatomical"
    assert kept.settings["anatomy_weight"] == 0
    none = WeightChoice(0.0, {0.0: -1.0}, {0.0: 0.5})
    assert "scans are not registered" in sentence(none, 1, automatic=True)
    assert "targets carry no prior" in sentence(none, 2, automatic=False)


def test_one_weight_a_class_leaves_room_for_background(root):
    cohort = read_cohort(root / "cohort")
    chosen = with_weight(OPTIONS, (0.25, 0.5, 1.0), automatic=True, cohort=cohort)
    assert chosen.settings["anatomy_weight"] == [0.0, 0.25, 0.5, 1.0]
    each = WeightChoice((0.25, 1.0), {}, {0.0: 0.5, (0.25, 1.0): 0.75})
    assert "w = 0.25 1" in sentence(each, 2, automatic=True)
    assert "0.750, without them 0.500" in sentence(each, 2, automatic=True)


def test_hard_targets_are_judged_by_what_they_come_from(root, tmp_path):
    cohort = hold_out(read_cohort(root / "cohort"), OPTIONS)
    hard = TrainOptions(method="ssldec", prior="anatomical", rounds=2, target_rule="hard")
    found = weigh_anatomy(root / "run", cohort, hard, tmp_path)
    assert record(found, hard, automatic=False)["target_rule"] == "soft"
    assert torch.isfinite(torch.tensor(list(found.choice.likelihood.values()))).all()
