"""Stored targets against naive references, voxel by voxel."""

import math

import pytest
import torch

from medssl.errors import ConfigError
from medssl.functional.clustering import RULES, dead_clusters
from medssl.transforms.targets import HARD, IndexMaskd, LookUpTargetd, NormalizeTargetd, Targets

PRIOR = torch.tensor([100.0, 700.0, 200.0])
SIZES = {"a": 40, "b": 25, "c": 60}


def _predictions(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (2 * torch.randn(3, size, generator=generator)).log_softmax(0) for name, size in SIZES.items()
    }


def _filled(rule, predictions=None, **options):
    targets = Targets(rule, **options)
    for name, log_q in (predictions or _predictions()).items():
        targets.put(name, log_q)
    return targets


def _naive_target(rule, q, f, prior):
    """Return the target of one voxel."""
    K = len(q)
    factor = {
        "dec": [q[j] ** 2 / f[j] for j in range(K)],
        "sharpen": [q[j] ** 2 for j in range(K)],
        "prior": [q[j] ** 2 * prior[j] / f[j] for j in range(K)],
        "soft": list(q),
        HARD: [float(q[j] == max(q)) for j in range(K)],
    }[rule]
    return [one / sum(factor) for one in factor]


@pytest.mark.parametrize("scope", ["pool", "subject"])
@pytest.mark.parametrize("rule", [*RULES, HARD])
def test_each_rule_equals_the_naive_loop(rule, scope):
    predictions = _predictions()
    targets = _filled(rule, predictions, scope=scope, prior=PRIOR)
    over = list(predictions) if scope == "pool" else ["b"]
    f = [sum(math.exp(v) for name in over for v in predictions[name][j].tolist()) for j in range(3)]
    place = torch.arange(25).reshape(5, 5, 1)
    found = targets.look_up("b", place).reshape(3, 25)
    for voxel in range(25):
        q = [math.exp(v) for v in predictions["b"][:, voxel].tolist()]
        expected = _naive_target(rule, q, f, PRIOR.tolist())
        assert found[:, voxel].tolist() == pytest.approx(expected, abs=2e-3)


def test_scope_changes_the_targets():
    place = torch.arange(25).reshape(5, 5, 1)
    pool, subject = (_filled("dec", scope=scope).look_up("b", place) for scope in ("pool", "subject"))
    assert not torch.allclose(pool, subject, atol=1e-3)


def test_frequencies_do_not_depend_on_the_order_of_the_scans_and_equal_one_sum():
    predictions = _predictions()
    forth, back = _filled("dec", predictions), _filled("dec", dict(reversed(predictions.items())))
    assert torch.equal(forth.frequencies(), back.frequencies())
    dense = torch.cat([log_q.double().exp() for log_q in predictions.values()], 1).sum(1)
    assert torch.allclose(forth.frequencies(), dense, rtol=1e-6)
    assert forth.frequencies().sum().item() == pytest.approx(sum(SIZES.values()))
    assert torch.equal(forth.frequencies("b"), forth.frequencies())
    per_scan = _filled("dec", predictions, scope="subject")
    assert torch.equal(per_scan.frequencies("b"), per_scan.mass["b"])
    assert torch.equal(per_scan.frequencies(), forth.frequencies())


def test_masses_are_summed_in_the_order_of_the_names():
    """So that a resumed run gets the same f to the last digit."""
    masses = {"a": 1.0, "b": 1.0, "c": 1e16}
    sums = []
    for names in ("abc", "cba"):
        targets = Targets("dec")
        for name in names:
            targets.restore(name, torch.zeros(1, 1).half(), torch.tensor([masses[name]], dtype=torch.float64))
        sums.append(targets.frequencies().item())
    assert sums[0] == sums[1] == 1e16 + 2


def test_a_scan_put_anew_replaces_its_old_mass():
    targets = _filled("dec", _predictions(0))
    for name, log_q in _predictions(1).items():
        targets.put(name, log_q)
    assert torch.equal(targets.frequencies(), _filled("dec", _predictions(1)).frequencies())


def test_hard_labels_below_the_threshold_are_unknown():
    targets = Targets(HARD, threshold=0.7)
    targets.put("a", torch.tensor([[0.6, 0.8, 0.1], [0.3, 0.1, 0.0], [0.1, 0.1, 0.9]]).log())
    found = targets.look_up("a", torch.arange(3).reshape(3, 1, 1))
    assert found[..., 0, 0].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("rule", ["dec", HARD])
def test_nothing_stands_outside_the_mask(rule):
    targets = _filled(rule)
    place = torch.tensor([-1, 3, -1, 0], dtype=torch.int32).reshape(2, 2, 1)
    found = targets.look_up("a", place)
    assert found.shape == (3, 2, 2, 1)
    assert found.dtype == torch.float32
    assert torch.all(found[:, place < 0] == 0)
    assert torch.allclose(found[:, place >= 0].sum(0), torch.ones(2))
    straight = targets.look_up("a", torch.tensor([[[3]], [[0]]]))
    assert torch.equal(found[:, place >= 0], straight[:, :, 0, 0])
    assert torch.all(targets.look_up("a", torch.full((2, 2, 2), -1)) == 0)


def test_storage_takes_two_bytes_and_hardly_an_error():
    log_q = (8 * torch.randn(4, 5000, generator=torch.Generator().manual_seed(2))).log_softmax(0)
    targets = Targets("soft")
    targets.put("a", log_q)
    stored = targets.log_q["a"]
    assert stored.numel() * stored.element_size() == 2 * 4 * 5000
    found = targets.look_up("a", torch.arange(5000).reshape(50, 100, 1)).reshape(4, -1)
    # |dq| <= q |log q| 2^-11 <= 2^-11 / e before it is normalized again
    assert (found - log_q.exp()).abs().max().item() < 2 * 2**-11 / math.e


def test_a_probability_of_zero_stays_finite():
    targets = Targets("prior", prior=torch.tensor([1.0, 1.0, 0.0]))
    targets.put("a", torch.tensor([[1.0, 0.4], [0.0, 0.6], [0.0, 0.0]]).log())
    found = targets.look_up("a", torch.arange(2).reshape(2, 1, 1))
    assert torch.isfinite(found).all()
    assert found[:, 0, 0, 0].tolist() == [1, 0, 0]
    assert dead_clusters(targets.frequencies()) == [2]


def test_changed_is_the_share_of_moved_voxels():
    def one_hot(*labels):
        return torch.nn.functional.one_hot(torch.tensor(labels), 3).T.clamp(1e-3, 1).log()

    before, now = Targets("soft"), Targets("soft")
    before.put("a", one_hot(0, 1, 2, 0))
    before.put("b", one_hot(1))
    now.put("a", one_hot(0, 2, 2, 1))
    now.put("b", one_hot(1))
    assert now.changed(before) == pytest.approx(2 / 5)
    assert now.changed(now) == 0


def test_confidence_is_a_mean_over_voxels():
    targets = Targets("soft")
    targets.put("a", torch.tensor([[0.9, 0.5], [0.1, 0.5]]).log())
    targets.put("b", torch.tensor([[0.2], [0.8]]).log())
    assert targets.confidence() == pytest.approx((0.9 + 0.5 + 0.8) / 3, abs=1e-3)


def test_restored_predictions_give_the_same_targets():
    made, read = _filled("dec"), Targets("dec")
    for name in SIZES:
        read.restore(name, made.log_q[name], made.mass[name])
    place = torch.arange(25).reshape(5, 5, 1)
    assert torch.equal(made.look_up("b", place), read.look_up("b", place))


@pytest.mark.parametrize(("arguments", "word"), [(("sharp",), "rule"), (("dec", "scan"), "scope")])
def test_unknown_rules_and_scopes_are_refused(arguments, word):
    with pytest.raises(ConfigError, match=f"There is no target {word}"):
        Targets(*arguments)


def test_place_numbers_the_mask_and_leads_back_to_it():
    mask = torch.rand(1, 4, 5, 3, generator=torch.Generator().manual_seed(0)).round()
    place = IndexMaskd()({"mask": mask})["place"]
    assert torch.equal(place >= 0, mask > 0.5)
    volume = torch.randn(1, 4, 5, 3)
    packed = volume[place >= 0]
    assert torch.equal(packed[place[place >= 0].long()], volume[mask > 0.5])
    assert place[place >= 0].tolist() == list(range(int(mask.sum())))


def test_look_up_replaces_place_by_target():
    targets = _filled("dec")
    place = torch.tensor([[[[0]], [[-1]]]], dtype=torch.int32)
    sample = LookUpTargetd(targets)({"subject": "a", "place": place})
    assert set(sample) == {"subject", "target"}
    assert torch.equal(sample["target"], targets.look_up("a", place[0]))
    with pytest.raises(KeyError):
        LookUpTargetd(targets)({"subject": "nobody", "place": place})


def test_interpolated_targets_sum_to_one_or_are_none():
    target = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.5, 0.3, 0.2, 0.0]]).reshape(2, 4, 1, 1)
    found = NormalizeTargetd()({"target": target})["target"]
    assert found.flatten(1).tolist() == [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]]
