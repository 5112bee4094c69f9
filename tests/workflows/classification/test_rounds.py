"""SSLDEC in rounds: stages share the budget, targets follow the formula, the published schedule is there."""

import json

import pytest
import torch
from pictures import options
from runs import same, table, texts, weights

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
    folder = in_rounds / "candidates"
    cohort = cohort_of_run(in_rounds, ["dark", "light"])
    q = predict_passes(
        cohort.unlabeled,
        [load_classifier(folder / "ssldec-round-0").uncalibrated()],
        ["identity"],
    )
    q = q[0].double()
    expected = q**2 / q.sum(0)
    expected = expected / expected.sum(1, keepdim=True)
    stored = torch.load(folder / "ssldec-round" / "targets-1.pt", weights_only=True)["log_p"].exp().double()
    assert torch.allclose(stored, expected, atol=1e-5)


def test_stages_share_the_budget(in_rounds):
    folder = in_rounds / "candidates"
    steps = [json.loads(path.read_text())["steps"] for path in sorted(folder.glob("*-round-*/run.json"))]
    assert steps == [25] * len(steps)
    assert len(steps) in (2, 3)
    assert table(folder / "ssldec-round" / "rounds.tsv")[0]["round"] == "1"


def test_the_last_stage_is_the_candidate(in_rounds):
    folder = in_rounds / "candidates"
    last = max(folder.glob("ssldec-round-*"))
    assert same(weights(last), weights(folder / "ssldec"))
    assert json.loads((folder / "ssldec" / "run.json").read_text())["method"] == "ssldec"
    assert cohort_of_run(folder / "ssldec", ["dark", "light"]).unlabeled


def test_no_file_of_any_stage_names_a_place(in_rounds):
    assert not [path for path in texts(in_rounds) if str(in_rounds.parent) in path.read_text()]


def test_fewer_steps_than_stages_are_refused(pictures, tmp_path):
    with pytest.raises(ConfigError, match="cannot be shared"):
        train_with_baseline(pictures, tmp_path / "run", options(method="ssldec", steps=2, rounds=3))
    assert not (tmp_path / "run").exists(), "before the baseline trains"


def test_rounds_belong_to_ssldec(pictures, tmp_path):
    with pytest.raises(ConfigError, match="distill"):
        train_with_baseline(pictures, tmp_path / "run", options(method="fixmatch", rounds=2))
    assert not (tmp_path / "run").exists(), "before the baseline trains"
