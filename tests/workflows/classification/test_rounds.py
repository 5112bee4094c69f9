"""SSLDEC in rounds: stages share the budget, targets follow the formula, the published schedule is there."""

import json

import pytest
import torch
from pictures import options
from runs import same, table, weights

from medssl.errors import ConfigError
from medssl.workflows.classification.baseline import train_with_baseline
from medssl.workflows.classification.models import load_classifier
from medssl.workflows.classification.predict import predict_passes
from medssl.workflows.classification.train import cohort_of_run


@pytest.fixture(scope="module")
def in_rounds(pictures):
    """Read only."""
    chosen = options(method="ssldec", steps=75, rounds=2, target_rule="dec", schedule="union_reinit")
    return train_with_baseline(pictures, pictures.parent / "rounds", chosen).training.run


def test_targets_are_those_of_the_paper(in_rounds):
    """Enguehard 2019, equation of the target distribution, over the whole pool."""
    folder = in_rounds / "candidates" / "ssldec-rounds"
    cohort = cohort_of_run(in_rounds, ["dark", "light"])
    q = predict_passes(cohort.unlabeled, [load_classifier(folder / "round-0")], ["identity"], each=False)
    q = q.double()
    expected = q**2 / q.sum(0)
    expected = expected / expected.sum(1, keepdim=True)
    stored = torch.load(folder / "targets-1.pt", weights_only=True)["log_p"].exp().double()
    assert torch.allclose(stored, expected, atol=1e-5)


def test_stages_share_the_budget(in_rounds):
    folder = in_rounds / "candidates" / "ssldec-rounds"
    steps = [json.loads(path.read_text())["steps"] for path in sorted(folder.glob("round-*/run.json"))]
    assert steps == [25] * len(steps)
    assert len(steps) in (2, 3)
    assert table(folder / "rounds.tsv")[0]["round"] == "1"


def test_the_last_stage_is_the_candidate(in_rounds):
    folder = in_rounds / "candidates" / "ssldec-rounds"
    last = max(folder.glob("round-*"))
    assert same(weights(last), weights(in_rounds / "candidates" / "ssldec"))


def test_rounds_belong_to_ssldec(pictures, tmp_path):
    with pytest.raises(ConfigError, match="distill"):
        train_with_baseline(pictures, tmp_path / "run", options(method="fixmatch", rounds=2))
