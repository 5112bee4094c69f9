"""What registered labels are worth at inference, said in one sentence; whole trainings: `test_harmless`."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from medssl.cli import main
from medssl.io.subjects import Subject
from medssl.workflows import factor_check, harmless
from medssl.workflows.anatomical_factor import AnatomicalFactor
from medssl.workflows.registered_prior import LaidOver
from medssl.workflows.study import mean_over_labels

SCANS = (Subject("01", ()), Subject("02", ()))
HOW = "Registered labels as a factor at inference, too (medssl segment --anatomy RUN)"


def checked(monkeypatch, dice, without, informed=(True, True)):
    """Run the check with scores given, and return what it tells."""
    model = SimpleNamespace(contrasts=("T1w",), table=None, spacing=(1.0, 1.0, 1.0))
    said = dict(zip(SCANS, informed, strict=True))

    class Prior:
        def laid_over(self, sample, progress):
            progress(1, 1)
            prior = torch.tensor([0.2, 0.8] if said[sample] else [0.5, 0.5]).view(2, 1, 1, 1)
            return LaidOver(prior, (slice(0, 1),) * 3, ("sub-09",) * said[sample], 1, 1)

    factor = AnatomicalFactor.__new__(AnatomicalFactor)
    factor.weight, factor.prior = 0.5, Prior()

    def dice_of_run(run, subjects, factor, resample):
        for subject in subjects:
            q = factor(torch.full((2, 1, 1, 1), 0.5), subject, None)
            assert (q[1] > q[0]).all() == said[subject]
        return dice

    registered = []
    monkeypatch.setattr(factor_check, "load_model", lambda run: model)
    monkeypatch.setattr(factor_check, "AnatomicalFactor", lambda run, **_: factor)
    monkeypatch.setattr(factor_check, "dice_of_run", dice_of_run)
    told = factor_check.check_factor(
        Path("check-ssldec"), SCANS, without, Path("folder"), progress=lambda *n: registered.append(n)
    )
    assert registered == [(1, 1), (1, 1)]
    assert told["network"] == "check-ssldec"
    return told


@pytest.mark.parametrize(
    ("dice", "without", "difference", "said"),
    [
        ([0.8, 0.7], [0.7, 0.72], 0.04, "+4.0 Dice points in the mean of 2 * scans, better on 1; worth"),
        ([0.6, 0.7], [0.7, 0.7], -0.05, "-5.0 Dice points in the mean of 2 * scans, better on 0; leave"),
        ([0.7004, 0.7], [0.7, 0.7], 0.0002, "+0.0 Dice points in the mean of 2 * scans, better on 1; leave"),
        (
            [0.8, math.nan],
            [0.7, math.nan],
            0.1,
            "+10.0 Dice points in the mean of 1 * scan, better on 1; worth",
        ),
    ],
)
def test_the_mean_over_the_scans_decides(dice, without, difference, said, monkeypatch):
    before = dict(zip(("sub-01", "sub-02"), without, strict=True))
    told = checked(monkeypatch, {"GM": dice}, before)
    assert told["difference"] == pytest.approx(difference)
    assert told["sentence"].startswith(f"{HOW}: {said.replace('*', 'held-out labeled')}")
    assert told["weight"] == 0.5
    assert list(told["dice"]) == ["sub-01", "sub-02"]
    assert told["dice"]["sub-01"] == {"without": without[0], "with": dice[0]}


def test_scans_without_a_score_decide_nothing(monkeypatch):
    nothing = {"sub-01": math.nan, "sub-02": math.nan}
    told = checked(monkeypatch, {"GM": [math.nan, math.nan]}, nothing)
    assert told["difference"] is None
    assert told["sentence"] == f"{HOW}: no held-out labeled scan could be scored."


@pytest.mark.parametrize(("informed", "difference"), [((True, False), 0.1), ((False, False), None)])
def test_scans_over_which_no_labeled_one_could_be_laid_are_left_out_and_named(
    informed, difference, monkeypatch
):
    told = checked(monkeypatch, {"GM": [0.8, 0.7]}, {"sub-01": 0.7, "sub-02": 0.7}, informed)
    assert told["difference"] == (difference if difference is None else pytest.approx(difference))
    left_out = [scan.key for scan, known in zip(SCANS, informed, strict=True) if not known]
    assert told["without_registration"] == left_out
    assert not set(told["dice"]) & set(left_out)


@pytest.mark.parametrize(
    ("difference", "gains"), [(0.001, True), (0.0001, False), (None, False), ("", False)]
)
def test_the_next_command_has_the_factor_where_it_gained(difference, gains, tmp_path, monkeypatch):
    told = {} if difference == "" else {"anatomy_at_inference": {"difference": difference}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps(told))
    assert factor_check.gains_at_inference(tmp_path / "run") is gains
    done = SimpleNamespace(training=SimpleNamespace(best=None, steps=1, seconds=1.0))
    monkeypatch.setattr(harmless, "train_checked", lambda *_, **__: done)
    (tmp_path / "data").mkdir()
    command = ["train", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--method", "ssldec"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert f"--model {tmp_path / 'run'}" in result.stderr
    assert (f"--anatomy {tmp_path / 'run'}" in result.stderr) is gains


def test_the_mean_over_labels_leaves_out_those_without_a_score():
    dice = {"GM": [0.5, math.nan], "WM": [0.7, math.nan], "CSF": [math.nan, math.nan]}
    means = mean_over_labels(dice, SCANS)
    assert means["sub-01"] == pytest.approx(0.6)
    assert math.isnan(means["sub-02"])
