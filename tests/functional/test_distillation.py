import math

import pytest
import torch

from medssl.errors import ConfigError, InputError
from medssl.functional.distillation import (
    KEEP_RULES,
    REDUCTIONS,
    Consensus,
    above_class_thresholds,
    above_percentile,
    above_threshold,
    class_balanced,
    consensus,
    kept_images,
    mean_probabilities,
    require_keep_rule,
    softened_divergence,
    teacher_votes,
    top_k_per_class,
)


def _passes(count=7, images=37, seed=0):
    """Probabilities of passes that more or less agree, most often on class 0."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(images, 4, generator=generator) + torch.tensor([1.5, 0, 0, 0])
    return (scores + torch.randn(count, images, 4, generator=generator)).softmax(2)


@pytest.fixture
def found():
    """What five passes say about 37 images; confidences repeat, as saturated ones do."""
    some = consensus(_passes(5))
    return Consensus(some.label, (20 * some.confidence).round() / 20)


def _order(images=37, seed=9):
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed))


def _naive_consensus(passes, reduce):
    result = []
    for n in range(passes.shape[1]):
        rows = passes[:, n].double().tolist()
        mean = [sum(row[c] for row in rows) / len(rows) for c in range(len(rows[0]))]
        choices = [row.index(max(row)) for row in rows]
        if reduce == "mean_prob":
            label = mean.index(max(mean))
            result.append((label, max(mean)))
            continue
        most = max(choices.count(c) for c in choices)
        label = max((c for c in set(choices) if choices.count(c) == most), key=mean.__getitem__)
        own = [max(row) for row, choice in zip(rows, choices, strict=True) if choice == label]
        result.append((label, sum(own) / len(own)))
    return result


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_consensus_equals_the_naive_loop(reduce, count):
    passes = _passes(count)
    some = consensus(passes, reduce)
    expected = _naive_consensus(passes, reduce)
    assert some.label.tolist() == [label for label, _ in expected]
    assert some.confidence.tolist() == pytest.approx([confidence for _, confidence in expected])


def test_a_vote_can_differ_from_the_mean():
    passes = torch.tensor([[[0.99, 0.01]], [[0.4, 0.6]], [[0.45, 0.55]]])
    mean, vote = consensus(passes), consensus(passes, "vote")
    assert (mean.label.item(), vote.label.item()) == (0, 1)
    assert vote.confidence.item() == pytest.approx(0.575)


def test_a_tied_vote_is_broken_by_the_mean_probability():
    passes = torch.tensor([[[0.6, 0.4], [0.1, 0.9]], [[0.1, 0.9], [0.6, 0.4]]])
    assert consensus(passes, "vote").label.tolist() == [1, 1]
    assert consensus(passes.flip(2), "vote").label.tolist() == [0, 0]


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_permuting_teachers_or_views_changes_no_bit(reduce):
    """Else the last bit could carry an image over a strict threshold."""
    for seed in range(5):
        passes = _passes(9, 101, seed=seed).double().softmax(2)  # float64, whose sums are rounded
        other = passes[torch.randperm(9, generator=torch.Generator().manual_seed(seed))]
        assert torch.equal(mean_probabilities(passes), mean_probabilities(other))
        one, two = consensus(passes, reduce), consensus(other, reduce)
        assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in vars(one))


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_permuting_files_permutes_the_result_bit_for_bit(reduce):
    passes, order = _passes(9, 101).double().softmax(2), _order(101)
    one, two = consensus(passes, reduce), consensus(passes[:, order], reduce)
    assert all(torch.equal(getattr(one, name)[order], getattr(two, name)) for name in vars(one))


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_the_mean_over_identical_views_is_the_single_view(reduce):
    """Also plain distillation = data distillation without views = model distillation of one teacher."""
    single = _passes(1)
    for times in (1, 2, 3, 6, 7):
        same = single.repeat(times, 1, 1)
        assert torch.equal(mean_probabilities(same), single[0].double())
        one, two = consensus(single, reduce), consensus(same, reduce)
        assert torch.equal(one.label, two.label)
        assert torch.equal(one.confidence, two.confidence)
        assert torch.equal(one.confidence, single[0].amax(1).double())


@pytest.mark.parametrize(("teachers", "views"), [(1, 1), (1, 4), (4, 1), (3, 2)])
def test_a_teacher_votes_once_however_many_views_it_saw(teachers, views):
    passes = _passes(teachers * views)
    label = consensus(passes).label
    expected = [0] * passes.shape[1]
    for n in range(passes.shape[1]):
        for teacher in range(teachers):
            rows = passes[teacher * views : (teacher + 1) * views, n].double().tolist()
            mean = [sum(column) / views for column in zip(*rows, strict=True)]
            expected[n] += mean.index(max(mean)) == int(label[n])
    votes = teacher_votes(passes, label, views)
    assert votes.tolist() == expected
    assert votes.max() == teachers


def test_every_image_gets_a_row_whether_it_is_kept_or_not():
    """D16: the record has one row an image of the pool."""
    passes = _passes()
    some = consensus(passes)
    keep = kept_images(some, value=0.6)
    assert {len(value) for value in (*vars(some).values(), keep)} == {passes.shape[1]}
    assert 0 < int(keep.sum()) < len(keep)


def test_broken_probabilities_are_refused_with_the_pass():
    passes = _passes(3)
    passes[1, 5, 0] = math.nan
    with pytest.raises(InputError, match="Pass 2 of 3"):
        consensus(passes)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ConfigError, match="mean_prob"):
        consensus(_passes(), "median")


def test_the_threshold_is_strict():
    confidence = torch.tensor([0.8, 0.8000001, 0.7999, 1.0], dtype=torch.float64)
    assert above_threshold(confidence, 0.8).tolist() == [False, True, False, True]


def test_threshold_one_keeps_none_and_zero_keeps_all():
    """One that rounding has carried above 1 included."""
    found = consensus(torch.tensor([[[1.0, 0.0], [0.5, 0.5], [1 + 1e-6, 0.0]]]))
    assert not kept_images(found, value=1.0).any()
    assert kept_images(found, value=0.0).all()
    assert not kept_images(found, "per_class_threshold", value=[1.0, 1.0]).any()
    assert kept_images(found, "per_class_threshold", value=[0.0, 0.0]).all()


def test_class_thresholds_are_those_of_the_label(found):
    thresholds = [0.6, 0.0, 0.9, 1.0]
    keep = above_class_thresholds(found.label, found.confidence, thresholds).tolist()
    pairs = zip(found.label.tolist(), found.confidence.tolist(), strict=True)
    assert keep == [confidence > thresholds[label] for label, confidence in pairs]
    one = torch.tensor([0.7], dtype=torch.float64)
    assert above_class_thresholds(torch.tensor([0]), one, [0.7]).tolist() == [False]
    with pytest.raises(ConfigError, match="3 thresholds"):
        above_class_thresholds(found.label, found.confidence, thresholds[:3])


def _sorted(found, order, members):
    key = {n: (-found.confidence[n].item(), int(order[n])) for n in members}
    return sorted(members, key=key.__getitem__)


def _members(found, label, keep=None):
    return [n for n in range(len(found.label)) if found.label[n] == label and (keep is None or keep[n])]


def _kept(keep):
    return set(torch.nonzero(keep).flatten().tolist())


@pytest.mark.parametrize("k", [0, 1, 4, 100])
def test_top_k_keeps_the_surest_of_each_class(found, k):
    order = _order()
    expected = {n for label in range(4) for n in _sorted(found, order, _members(found, label))[:k]}
    assert _kept(top_k_per_class(found.label, found.confidence, k, order)) == expected


@pytest.mark.parametrize(("percentile", "count"), [(0, 37), (50, 18), (80, 7), (99, 0), (100, 0)])
def test_percentile_keeps_the_surest(found, percentile, count):
    order = _order()
    keep = above_percentile(found.confidence, percentile, order)
    assert _kept(keep) == set(_sorted(found, order, range(37))[:count])


@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0])
def test_balance_keeps_no_more_than_a_ratio_of_the_scarcest_class(found, ratio):
    """D23: no class is drowned."""
    order, keep = _order(), found.confidence > 0.5
    scarcest = min(len(_members(found, label, keep)) for label in range(4))
    assert scarcest > 1
    expected = {
        n
        for label in range(4)
        for n in _sorted(found, order, _members(found, label, keep))[: math.floor(ratio * scarcest)]
    }
    balanced = class_balanced(keep, found.label, found.confidence, ratio, order)
    assert _kept(balanced) == expected
    assert len(expected) < int(keep.sum())


def test_a_class_without_a_kept_image_does_not_empty_the_others():
    label, confidence = torch.tensor([0, 0, 0, 2, 2, 1]), torch.tensor([0.9, 0.8, 0.7, 0.9, 0.8, 0.1])
    keep = class_balanced(confidence > 0.5, label, confidence)
    assert keep.tolist() == [True, True, False, True, True, False]
    assert not class_balanced(confidence > 2, label, confidence).any()


def test_a_cap_keeps_the_surest(found):
    order, labeled = _order(), 8
    keep = kept_images(found, value=0.5, most=int(1.5 * labeled), order=order)
    within = [n for n in range(37) if found.confidence[n] > 0.5]
    assert _kept(keep) == set(_sorted(found, order, within)[:12])
    assert torch.equal(kept_images(found, value=0.5, most=1000), kept_images(found, value=0.5))
    assert not kept_images(found, value=0.5, most=0).any()


def test_a_cap_on_balanced_labels_leaves_them_balanced(found):
    keep = kept_images(found, value=0.5, balance=1.0, most=8, order=_order())
    assert found.label[keep].bincount(minlength=4).tolist() == [2, 2, 2, 2]
    for label in range(4):
        within = [n for n in _members(found, label) if found.confidence[n] > 0.5]
        assert set(_sorted(found, _order(), within)[:2]) == _kept(keep) & set(within)


def test_labels_of_earlier_rounds_count_for_balance_and_cap(found):
    """Three of class 0 and one of class 2 are there: 1 and 3 come with two a class, as far as there are any."""
    before, order = torch.tensor([3, 0, 1, 0]), _order()
    within = [[n for n in _members(found, label) if found.confidence[n] > 0.5] for label in range(4)]
    scarcest = min(have + len(now) for have, now in zip(before.tolist(), within, strict=True))
    keep = kept_images(found, value=0.5, balance=1.0, order=order, before=before)
    expected = [max(0, scarcest - have) for have in before.tolist()]
    assert found.label[keep].bincount(minlength=4).tolist() == expected
    for own, number in zip(within, expected, strict=True):
        assert _kept(keep) & set(own) == set(_sorted(found, order, own)[:number])
    assert int(kept_images(found, value=0.5, most=10, order=order, before=before).sum()) == 6
    assert not kept_images(found, value=0.5, most=3, before=before).any()


VALUES = {
    "threshold": 0.6,
    "per_class_threshold": [0.5, 0.6, 0.7, 0.8],
    "top_k_per_class": 3,
    "percentile": 60,
}


@pytest.mark.parametrize("rule", KEEP_RULES)
def test_permuting_files_keeps_the_same_files(found, rule):
    """Equally sure images are told apart by their names' order, not by where they stand."""
    order, shuffled = _order(), _order(seed=3)
    moved = Consensus(*(value[shuffled] for value in vars(found).values()))
    options = {"value": VALUES[rule], "balance": 1.5, "most": 9}
    keep = kept_images(found, rule, order=order, **options)
    assert 0 < int(keep.sum()) <= 9
    assert torch.equal(keep[shuffled], kept_images(moved, rule, order=order[shuffled], **options))


def test_no_images_are_no_error():
    nothing = consensus(torch.zeros(3, 0, 4))
    for rule in KEEP_RULES:
        keep = kept_images(nothing, rule, value=VALUES[rule], balance=1.0, most=3)
        assert keep.tolist() == []


@pytest.mark.parametrize(
    ("rule", "value", "options"),
    [
        ("best", 0.8, {}),
        ("threshold", 1.2, {}),
        ("threshold", [0.8, 0.8], {}),
        ("per_class_threshold", 0.8, {}),
        ("per_class_threshold", [0.8, -0.1], {}),
        ("top_k_per_class", 2.5, {}),
        ("top_k_per_class", -1, {}),
        ("percentile", 101, {}),
        ("threshold", math.nan, {}),
        ("threshold", 0.8, {"balance": 0.5}),
        ("threshold", 0.8, {"most": -1}),
    ],
)
def test_a_keep_rule_that_makes_no_sense_is_refused(found, rule, value, options):
    with pytest.raises(ConfigError):
        kept_images(found, rule, value=value, **options)
    with pytest.raises(ConfigError):
        require_keep_rule(rule, value, **options)


@pytest.mark.parametrize("spatial", [(), (3, 2)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_softened_divergence_equals_the_naive_loop(temperature, spatial):
    generator = torch.Generator().manual_seed(2)
    scores = 3 * torch.randn(2, 6, 4, *spatial, generator=generator, dtype=torch.float64)
    target, log_q = scores[0].softmax(1), scores[1].log_softmax(1)
    valid = torch.rand(6, *spatial, generator=generator) < 0.7
    valid[1] = False
    rows = [x.movedim(1, -1)[valid].tolist() for x in scores]
    terms = []
    for teacher, student in zip(*rows, strict=True):
        p, q = ([math.exp(z / temperature) for z in some] for some in (teacher, student))
        p, q = ([value / sum(some) for value in some] for some in (p, q))
        terms.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    found = softened_divergence(target, log_q, valid, temperature).item()
    assert found == pytest.approx(temperature**2 * sum(terms) / len(terms))
    assert len(terms) < valid.numel()


def test_softened_divergence_of_certain_and_unknown_targets_is_finite():
    target = torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    log_q = torch.zeros(2, 3).log_softmax(1).requires_grad_()
    value = softened_divergence(target, log_q, torch.tensor([True, False]))
    value.backward()
    assert value.item() == pytest.approx(16 * math.log(3))
    assert torch.isfinite(log_q.grad).all()
    assert not log_q.grad[1].any()
    assert softened_divergence(target, log_q, torch.zeros(2, dtype=torch.bool)).item() == 0
