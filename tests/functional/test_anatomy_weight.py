"""The weight of registered labels: what it is chosen by, against a naive reference, and when one a class wins."""

import itertools
import math

import pytest
import torch

from medssl.functional import anatomy_weight
from medssl.functional.anatomy_weight import (
    WEIGHTS,
    HeldOutScan,
    choose_weight,
    fused_target,
    log_likelihood,
    mean_dice,
)

CLASSES = 3
PI = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def scan(seed, trust_q=1.0, trust_a=(1.0, 1.0, 1.0), voxels=400):
    """Labels, and two witnesses that see them through noise."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.multinomial(PI, voxels, replacement=True, generator=generator)
    one_hot = torch.nn.functional.one_hot(label, CLASSES).T.double()
    noise = torch.randn(2, CLASSES, voxels, generator=generator, dtype=torch.float64)
    log_q = (2 * trust_q * one_hot + noise[0]).log_softmax(0)
    a = (2 * torch.tensor(trust_a, dtype=torch.float64)[:, None] * one_hot + noise[1]).softmax(0)
    return HeldOutScan(log_q, a, label, PI)


def naive(scans, w, rule):
    """Mean over scans of the mean log likelihood of the truth, in loops over numbers."""
    weights = [w] * CLASSES if isinstance(w, float) else list(w)
    means = []
    for one in scans:
        fused = []
        for i in range(len(one.label)):
            row = [math.exp(one.log_q[k, i]) * float(one.a[k, i]) ** weights[k] for k in range(CLASSES)]
            fused.append([value / sum(row) for value in row])
        f = [sum(row[k] for row in fused) for k in range(CLASSES)]
        logs = []
        for row, y in zip(fused, one.label.tolist(), strict=True):
            p = {
                "soft": list(row),
                "sharpen": [q * q for q in row],
                "dec": [q * q / f[k] for k, q in enumerate(row)],
                "prior": [q * q * float(one.pi[k]) / f[k] for k, q in enumerate(row)],
            }[rule]
            logs.append(math.log(p[y] / sum(p)))
        means.append(sum(logs) / len(logs))
    return sum(means) / len(means)


@pytest.mark.parametrize("rule", ["soft", "sharpen", "dec", "prior"])
def test_the_choice_is_that_of_the_naive_loop(rule):
    scans = [scan(0, voxels=60), scan(1, voxels=60)]
    found = choose_weight(scans, rule)
    wanted = {w: naive(scans, w, rule) for w in WEIGHTS}
    assert found.likelihood == pytest.approx(wanted, abs=1e-6)
    assert found.weight == max(wanted, key=wanted.__getitem__)


def test_one_weight_a_class_is_that_of_the_naive_loop():
    scans = [scan(0, voxels=40)]
    each = (0.25, 0.0, 1.0)
    score = log_likelihood(fused_target(scans[0], each, "prior"), scans[0].label)
    assert score == pytest.approx(naive(scans, each, "prior"), abs=1e-6)


def test_labels_that_say_nothing_get_no_weight():
    assert choose_weight([scan(3, trust_a=(0.0,) * 3)], "soft").weight == 0


def test_flat_priors_tie_and_the_smallest_weight_is_taken():
    one = scan(0)
    flat = HeldOutScan(one.log_q, torch.full_like(one.a, 1 / CLASSES), one.label, PI)
    assert choose_weight([flat], "prior").weight == 0


def test_labels_that_are_right_get_weight_where_the_network_is_weak():
    weak = choose_weight([scan(0, trust_q=0.2)], "soft")
    assert weak.weight >= 0.75
    assert weak.dice[weak.weight] > weak.dice[0.0] + 0.1


def test_one_weight_a_class_needs_two_scans_and_enough_voxels(monkeypatch):
    uneven = {"trust_q": 0.5, "trust_a": (2.0, 0.0, 2.0)}
    monkeypatch.setattr(anatomy_weight, "LEAST_VOXELS", 10)
    assert choose_weight([scan(0, **uneven)], "soft").each is None
    both = [scan(0, **uneven), scan(1, **uneven)]
    found = choose_weight(both, "soft")
    assert found.weight == found.each
    assert found.likelihood[found.each] > max(found.likelihood[w] for w in WEIGHTS)
    monkeypatch.setattr(anatomy_weight, "LEAST_VOXELS", 10_000)
    assert choose_weight(both, "soft").each is None


def test_one_weight_a_class_has_to_win_on_scans_it_was_not_chosen_on(monkeypatch):
    monkeypatch.setattr(anatomy_weight, "LEAST_VOXELS", 10)
    unlike = [scan(0, 0.5, (2.0, 0.0, 0.0)), scan(1, 0.5, (0.0, 0.0, 2.0))]
    found = choose_weight(unlike, "soft")
    assert found.each is not None
    assert found.weight in WEIGHTS
    assert found.likelihood[found.each] >= found.likelihood[found.weight]


def test_no_weight_a_class_beats_the_coordinate_search_by_much():
    scans = [scan(5, 0.5, (2.0, 0.0, 1.0)), scan(6, 0.5, (2.0, 0.0, 1.0))]
    grid = (0.0, 0.5, 1.0)
    best = max(anatomy_weight._score(scans, "soft", each) for each in itertools.product(grid, repeat=CLASSES))
    found = anatomy_weight._best_each(scans, "soft", grid, 0.5)
    assert anatomy_weight._score(scans, "soft", found) == pytest.approx(best, abs=1e-3)


def test_dice_leaves_out_classes_that_are_in_neither():
    log_p = torch.tensor([[0.9, 0.1, 0.8], [0.1, 0.9, 0.2], [0.0, 0.0, 0.0]])
    label = torch.tensor([0, 1, 1])
    assert mean_dice(log_p, label) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert mean_dice(log_p, label, first=1) == pytest.approx(2 / 3)


def test_without_scans_there_is_nothing_to_choose_by():
    with pytest.raises(ValueError, match="no held-out scan"):
        choose_weight([], "prior")
