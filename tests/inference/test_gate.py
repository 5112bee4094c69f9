import pytest
import torch

from medssl.inference.gate import agreement


@pytest.fixture
def answer():
    """Return logits of three labels with 1000 voxels of either tissue, and their mask."""
    logits = torch.zeros(3, 20, 10, 10)
    logits[1, :10] = logits[2, 10:] = 1
    return logits, torch.ones(20, 10, 10, dtype=torch.bool)


def changed(logits, voxels, label):
    other = logits.clone()
    flat = other.view(3, -1)
    flat[:, :voxels] = 0
    flat[label, :voxels] = 1
    return other


def test_the_same_answer_is_accepted(answer):
    found = agreement(answer[0], answer[0].clone(), answer[1])
    assert (found.changed, found.dice_loss, found.accepted) == (0, 0, True)


def test_share_and_dice_by_hand(answer):
    found = agreement(answer[0], changed(answer[0], 10, 2), answer[1])
    assert found.changed == pytest.approx(10 / 2000)
    assert found.dice_loss == pytest.approx(1 - 2 * 990 / 1990)
    assert not found.accepted


@pytest.mark.parametrize(("voxels", "accepted"), [(1, True), (2, False)])
def test_the_gate_is_below_a_thousandth(answer, voxels, accepted):
    assert agreement(answer[0], changed(answer[0], voxels, 2), answer[1]).accepted is accepted


def test_a_small_label_that_is_lost_is_refused_though_few_voxels_change():
    logits = torch.zeros(3, 100, 10, 10)
    logits[1] = 1
    logits[2, 0, 0, :5] = 2
    other = logits.clone()
    other[2, 0, 0, :5] = 0
    found = agreement(logits, other, torch.ones(100, 10, 10, dtype=torch.bool))
    assert found.changed == pytest.approx(0.0005)
    assert found.dice_loss == 1
    assert not found.accepted


def test_many_changes_are_refused_though_dice_is_kept():
    logits = torch.zeros(2, 10, 10, 100)
    logits[1] = 1
    other = logits.clone()
    other[0, 0, 0, :15] = 2
    found = agreement(logits, other, torch.ones(10, 10, 100, dtype=torch.bool))
    assert found.changed == pytest.approx(0.0015)
    assert found.dice_loss < 0.001
    assert not found.accepted


def test_outside_the_brain_nothing_counts(answer):
    logits, mask = answer
    mask = mask.clone()
    mask[0] = False
    other = changed(logits, 100, 2)
    other[:, 0, 0, 0] = torch.nan
    assert agreement(logits, other, mask).accepted


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_one_value_that_is_no_number_is_refused(answer, value):
    other = answer[0].clone()
    other[0, 3, 3, 3] = value
    found = agreement(answer[0], other, answer[1])
    assert not found.accepted
    assert "NaN" in str(found)


def test_an_empty_brain_agrees(answer):
    assert agreement(answer[0], 1 - answer[0], torch.zeros(20, 10, 10, dtype=torch.bool)).accepted
