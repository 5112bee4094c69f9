"""What registered labels are worth at inference, said in one sentence; whole trainings: `test_harmless`."""

import math
from types import SimpleNamespace

import pytest

from medssl.workflows import factor_check
from medssl.workflows.study import mean_over_labels

SCANS = (SimpleNamespace(key="sub-01"), SimpleNamespace(key="sub-02"))
HOW = "Registered labels as a factor at inference, too (medssl segment --anatomy RUN)"


def checked(monkeypatch, dice, without):
    """Run the check with scores given, and return what it tells."""
    model = SimpleNamespace(contrasts=("T1w",), table=None, spacing=(1.0, 1.0, 1.0))
    monkeypatch.setattr(factor_check, "load_model", lambda run: model)
    monkeypatch.setattr(factor_check, "AnatomicalFactor", lambda run, **_: SimpleNamespace(weight=0.5))
    monkeypatch.setattr(factor_check, "dice_of_run", lambda *_, **__: dice)
    return factor_check.check_factor("run", SCANS, without, "folder")


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


def test_the_mean_over_labels_leaves_out_those_without_a_score():
    dice = {"GM": [0.5, math.nan], "WM": [0.7, math.nan], "CSF": [math.nan, math.nan]}
    means = mean_over_labels(dice, SCANS)
    assert means["sub-01"] == pytest.approx(0.6)
    assert math.isnan(means["sub-02"])
