import math
import statistics

import pytest
import torch

from medssl.errors import ConfigError
from medssl.functional.thresholds import (
    RULES,
    align_distribution,
    fairness_cross_entropy,
    fixed_threshold,
    flexmatch_threshold,
    freematch_threshold,
    running_mean,
    softmatch_weight,
    start_state,
)

K, POOL = 3, 12


def _batch(step, size=5):
    """Return probabilities and places in the pool; the networks of later steps are surer."""
    generator = torch.Generator().manual_seed(step)
    scores = (2 + step / 4) * torch.randn(size, K, generator=generator, dtype=torch.float64)
    return scores.softmax(1), torch.randperm(POOL, generator=generator)[:size]


def _surest(p):
    best = max(p)
    return best, p.index(best)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_pure_and_looks_at_constants(rule):
    p, indices = _batch(1)
    p[0] = torch.tensor([0.01, 0.98, 0.01])
    state = start_state(rule, K, POOL)
    before = {name: value.clone() for name, value in state.items()}
    weight, after = RULES[rule](p.requires_grad_(), indices, state)
    assert weight.shape == (5,)
    assert ((weight >= 0) & (weight <= 1)).all()
    assert not weight.requires_grad
    assert not any(value.requires_grad for value in after.values())
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert {name: value.shape for name, value in after.items()} == {
        name: value.shape for name, value in state.items()
    }


@pytest.mark.parametrize("rule", RULES)
def test_an_empty_batch_changes_nothing(rule):
    state = RULES[rule](*_batch(0), start_state(rule, K, POOL))[1]
    weight, after = RULES[rule](torch.zeros(0, K), torch.zeros(0, dtype=torch.int64), state)
    assert weight.shape == (0,)
    assert all(torch.equal(after[name], value) for name, value in state.items())


@pytest.mark.parametrize("rule", RULES)
def test_a_state_that_was_saved_goes_on_alike(rule, tmp_path):
    state = start_state(rule, K, POOL)
    for step in range(3):
        state = RULES[rule](*_batch(step), state)[1]
    torch.save(dict(state), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    (one, after), (other, again) = (RULES[rule](*_batch(3), some) for some in (state, loaded))
    assert torch.equal(one, other)
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_fixed_threshold_counts_from_the_threshold_on():
    p = torch.tensor([[0.75, 0.25], [0.7499, 0.2501], [0.1, 0.9]], dtype=torch.float64)
    weight, _ = fixed_threshold(p, torch.arange(3), {}, threshold=0.75)
    assert weight.tolist() == [1, 0, 1]
    assert fixed_threshold(p, torch.arange(3), {})[0].tolist() == [0, 0, 0]


def _naive_flexmatch(steps, threshold):
    latest, learned, weights = [-1] * POOL, [0.0] * K, []
    for p, indices in steps:
        weights.append([])
        for row in p.tolist():
            best, label = _surest(row)
            weights[-1].append(float(best >= threshold * learned[label] / (2 - learned[label])))
        for row, index in zip(p.tolist(), indices.tolist(), strict=True):
            best, label = _surest(row)
            if best >= threshold:
                latest[index] = label
        never, counts = latest.count(-1), [latest.count(c) for c in range(K)]
        if max(never, *counts) < POOL:
            learned = [count / max(*counts, never) for count in counts]
    return weights, latest, learned


def test_flexmatch_equals_the_naive_loop():
    steps = [_batch(step) for step in range(8)]
    state, weights = start_state("flexmatch", K, POOL), []
    for p, indices in steps:
        weight, state = flexmatch_threshold(p, indices, state, threshold=0.9)
        weights.append(weight.tolist())
    expected, latest, learned = _naive_flexmatch(steps, 0.9)
    assert weights == expected
    assert 0 < sum(map(sum, weights)) < 40
    assert state["latest"].tolist() == latest
    assert state["learned"].tolist() == pytest.approx(learned)
    assert len(set(learned)) > 1


def test_flexmatch_starts_at_zero_and_stays_there_while_no_image_is_sure():
    p = torch.tensor([[0.5, 0.3, 0.2]])
    weight, state = flexmatch_threshold(p, torch.tensor([4]), start_state("flexmatch", K, POOL))
    assert weight.tolist() == [1]
    assert state["learned"].tolist() == [0, 0, 0]
    assert state["latest"].tolist() == [-1] * POOL


def test_flexmatch_thresholds_never_exceed_the_fixed_one():
    """Whatever a fixed threshold counts, FlexMatch counts as well."""
    state = start_state("flexmatch", K, POOL)
    for step in range(20):
        p, indices = _batch(step)
        weight, state = flexmatch_threshold(p, indices, state, threshold=0.8)
        assert (weight >= fixed_threshold(p, indices, {}, threshold=0.8)[0]).all()
        assert ((state["learned"] >= 0) & (state["learned"] <= 1)).all()


def test_flexmatch_lowers_the_threshold_by_a_convex_curve():
    """Half of what the leading class has learned: a third of its threshold."""
    learned = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    state = {"latest": torch.full((POOL,), -1), "learned": learned}
    p = torch.tensor(
        [[0.89, 0, 0.11], [0.9, 0, 0.1], [0.35, 0.4, 0.25], [0.33, 0.33, 0.34]], dtype=torch.float64
    )
    weight, _ = flexmatch_threshold(p, torch.arange(4), state, threshold=0.9)
    assert weight.tolist() == [0, 1, 1, 1]
    assert flexmatch_threshold(p[2:3], torch.arange(1), state, threshold=1.3)[0].tolist() == [0]


def test_flexmatch_leaves_what_it_learned_when_one_class_holds_the_whole_pool():
    learned = torch.tensor([0.2, 1.0, 0.6], dtype=torch.float64)
    state = {"latest": torch.zeros(2, dtype=torch.int64), "learned": learned}
    after = flexmatch_threshold(torch.tensor([[0.99, 0.01, 0]]), torch.tensor([1]), state)[1]
    assert torch.equal(after["learned"], learned)


def _naive_freematch(steps, momentum, center, ceiling):
    level, probability, histogram, weights = 1 / K, [1 / K] * K, [1 / K] * K, []
    for p, _ in steps:
        rows = p.tolist()
        best, label = zip(*map(_surest, rows), strict=True)
        level = min(momentum * level + (1 - momentum) * center(best), ceiling)
        for c in range(K):
            mean = sum(row[c] for row in rows) / len(rows)
            probability[c] = momentum * probability[c] + (1 - momentum) * mean
            histogram[c] = momentum * histogram[c] + (1 - momentum) * label.count(c) / len(rows)
        thresholds = [level * share / max(probability) for share in probability]
        weights.append([float(s >= thresholds[c]) for s, c in zip(best, label, strict=True)])
    return weights, {"level": level, "probability": probability, "histogram": histogram}


def _quantile(values, share):
    values, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    return values[low] + (place - low) * (values[min(low + 1, len(values) - 1)] - values[low])


@pytest.mark.parametrize(("quantile", "ceiling"), [(None, None), (0.8, None), (None, 0.7)])
def test_freematch_equals_the_naive_loop(quantile, ceiling):
    steps = [_batch(step) for step in range(8)]
    state, weights = start_state("freematch", K, 0), []
    for p, indices in steps:
        weight, state = freematch_threshold(
            p, indices, state, momentum=0.7, quantile=quantile, ceiling=ceiling
        )
        weights.append(weight.tolist())
    center = statistics.fmean if quantile is None else lambda best: _quantile(best, quantile)
    expected, last = _naive_freematch(steps, 0.7, center, math.inf if ceiling is None else ceiling)
    assert weights == expected
    assert 0 < sum(map(sum, weights)) < 40
    for name, value in last.items():
        assert state[name].tolist() == pytest.approx(value), name


def test_freematch_starts_at_a_uniform_guess():
    state = start_state("freematch", 4, 0)
    assert state["level"].item() == 0.25
    assert state["probability"].tolist() == state["histogram"].tolist() == [0.25] * 4


def _naive_softmatch(steps, momentum, sigmas):
    mean, variance, weights = 1 / K, 1.0, []
    for p, _ in steps:
        s = [max(row) for row in p.tolist()]
        mean = momentum * mean + (1 - momentum) * statistics.fmean(s)
        variance = momentum * variance + (1 - momentum) * statistics.variance(s)
        weights.append([math.exp(-(min(x - mean, 0) ** 2) / (2 * variance / sigmas**2)) for x in s])
    return weights, mean, variance


def test_softmatch_equals_the_naive_loop():
    steps = [_batch(step) for step in range(6)]
    state = start_state("softmatch", K, 0)
    for (p, indices), expected in zip(steps, _naive_softmatch(steps, 0.6, 2)[0], strict=True):
        weight, state = softmatch_weight(p, indices, state, momentum=0.6)
        assert weight.tolist() == pytest.approx(expected)
    _, mean, variance = _naive_softmatch(steps, 0.6, 2)
    assert (state["mean"].item(), state["variance"].item()) == pytest.approx((mean, variance))


def test_softmatch_weighs_one_from_the_mean_on_and_less_below():
    state = {"mean": torch.tensor(0.7).double(), "variance": torch.tensor(0.02).double()}
    s = torch.tensor([0.6999, 0.7, 0.71, 1.0], dtype=torch.float64)
    p = torch.stack([s, 1 - s], 1)
    weight, _ = softmatch_weight(p, torch.arange(4), state, momentum=1.0)
    assert weight.tolist()[1:] == [1, 1, 1]
    assert weight[0] < 1


def test_softmatch_takes_no_variance_from_one_image():
    state = start_state("softmatch", K, 0)
    weight, after = softmatch_weight(_batch(0, 1)[0], torch.tensor([0]), state, momentum=0.5)
    assert torch.equal(after["variance"], state["variance"])
    assert not torch.equal(after["mean"], state["mean"])
    assert torch.isfinite(weight).all()


def test_softmatch_of_equal_confidences_is_finite():
    state = {
        name: torch.tensor(value, dtype=torch.float64) for name, value in (("mean", 0.8), ("variance", 0))
    }
    p = torch.tensor([[0.8, 0.2], [0.8, 0.2]], dtype=torch.float64)
    assert softmatch_weight(p, torch.arange(2), state)[0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("rule", "classes", "pool"),
    [("flexible", 3, 9), ("flexmatch", 3, 0), ("flexmatch", 1, 9), ("freematch", 0, 9), ("softmatch", 1, 0)],
)
def test_a_rule_that_lacks_a_number_is_refused(rule, classes, pool):
    with pytest.raises(ConfigError, match=rule):
        start_state(rule, classes, pool)


FAIR = {
    "probability": torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
    "histogram": torch.tensor([0.3, 0.6, 0.1], dtype=torch.float64),
}


def test_fairness_equals_the_naive_loop_and_is_a_cross_entropy():
    """The sign: above 0, and subtracted by the USB library."""
    p, _ = _batch(2, 7)
    weight = torch.tensor([1.0, 0, 0.5, 1, 1, 0, 1])
    rows = [row for row, w in zip(p.tolist(), weight.tolist(), strict=True) if w > 0]
    labels = [_surest(row)[1] for row in rows]
    assert len(set(labels)) == K
    ratios = [(sum(row[c] for row in rows) / len(rows)) / (labels.count(c) / len(rows)) for c in range(K)]
    s = [ratio / sum(ratios) for ratio in ratios]
    t = [a / b for a, b in zip(FAIR["probability"].tolist(), FAIR["histogram"].tolist(), strict=True)]
    expected = -sum(a / sum(t) * math.log(b) for a, b in zip(t, s, strict=True))
    found = fairness_cross_entropy(p.log(), weight, FAIR).item()
    assert found == pytest.approx(expected)
    assert found > 0


def test_fairness_without_a_class_or_without_images_is_finite_with_a_graph():
    log_q = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]]).log().requires_grad_()
    for weight in (torch.ones(2), torch.zeros(2)):
        value = fairness_cross_entropy(log_q, weight, FAIR)
        (gradient,) = torch.autograd.grad(value, log_q)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
    assert value.item() == 0


def test_alignment_equals_the_naive_loop():
    p, _ = _batch(3)
    average, target = [0.5, 0.2, 0.3], [0.1, 0.6, 0.3]
    for shares in (None, target):
        aligned = align_distribution(
            p, torch.tensor(average), None if shares is None else torch.tensor(shares)
        )
        for row, found in zip(p.tolist(), aligned.tolist(), strict=True):
            wanted = [a * b / c for a, b, c in zip(row, shares or [1.0] * K, average, strict=True)]
            assert found == pytest.approx([value / sum(wanted) for value in wanted], rel=1e-6)


def test_alignment_with_the_average_itself_changes_nothing():
    p, _ = _batch(3)
    average = torch.tensor([0.5, 0.2, 0.3])
    assert torch.allclose(align_distribution(p, average, average), p)


def test_running_mean_starts_with_the_first_batch_and_follows():
    first, second = _batch(1)[0], _batch(2)[0]
    average = running_mean(torch.zeros(K, dtype=torch.float64), first, 0.9)
    assert torch.allclose(average, first.mean(0))
    assert torch.allclose(running_mean(average, second, 0.9), 0.9 * first.mean(0) + 0.1 * second.mean(0))
    assert torch.equal(running_mean(average, second[:0], 0.9), average)
