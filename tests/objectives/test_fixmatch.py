import math
import threading

import pytest
import torch

from medssl.errors import ConfigError
from medssl.functional.thresholds import RULES, align_distribution, fairness_cross_entropy, start_state
from medssl.objectives import FixMatch, SupervisedLoss

STATEFUL = [name for name in RULES if name != "fixed"]


def fixmatch(rule="fixed", **options):
    return FixMatch(rule, **{"classes": 4, "pool": 8, **options})


def _middle(rows, valid):
    best = sorted(max(rows[n]) for n in valid)
    return (best[len(best) // 2 - 1] + best[len(best) // 2]) / 2


def _naive(weak, strong, valid, weights):
    losses = [
        -weight * math.log(strong[n][weak[n].index(max(weak[n]))])
        for n, weight in zip(valid, weights, strict=True)
    ]
    return sum(losses) / len(valid)


def test_term_equals_the_naive_loop_over_all_images(images):
    """The mean runs over all unlabeled images, not only over the kept ones."""
    labeled, weak, strong = images.joint("image", "strong")
    valid = images.valid()
    threshold = _middle(weak, valid)
    weights = [float(max(weak[n]) >= threshold) for n in valid]
    output = fixmatch(rule_options={"threshold": threshold})(images.network, images.batch)
    assert 0 < sum(weights) < len(valid) < len(weak)
    assert output["loss_unlabeled"].item() == pytest.approx(_naive(weak, strong, valid, weights), abs=1e-5)
    assert output["kept"].item() == pytest.approx(sum(weights) / len(valid))
    assert output["confidence"].item() == pytest.approx(
        sum(max(weak[n]) for n in valid) / len(valid), abs=1e-6
    )
    labels = [weak[n].index(max(weak[n])) for n in valid]
    assert output["mass"].tolist() == [labels.count(c) for c in range(4)]
    pairs = zip(labeled, images.batch["label"][:, 0].tolist(), strict=True)
    losses = [-math.log(row[label]) for row, label in pairs if label != 255]
    assert output["loss_labeled"].item() == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def _steps(case, objective, count, seed=0):
    """Take steps on changing images; return the probabilities and places that the rule sees, and the outputs."""
    generator, seen, outputs = torch.Generator().manual_seed(seed), [], []
    for _ in range(count):
        case.draw(generator)
        _, weak, strong = case.joint("image", "strong")
        seen.append((weak, strong, case.valid(), case.unlabeled["index"]))
        outputs.append(objective(case.network, case.batch))
    return seen, outputs


OPTIONS = {
    "flexmatch": {"threshold": 0.5},
    "freematch": {"momentum": 0.8, "quantile": 0.6, "ceiling": 0.9},
    "softmatch": {"momentum": 0.8, "sigmas": 1.0},
}


@pytest.mark.parametrize("rule", STATEFUL)
def test_every_rule_is_followed_from_step_to_step(images, rule):
    options = OPTIONS[rule]
    if rule == "flexmatch":
        options = {"threshold": _middle(images.joint("image")[1], images.valid())}
    objective = fixmatch(rule, rule_options=options)
    seen, outputs = _steps(images, objective, 5)
    state = start_state(rule, 4, 8)
    for (weak, strong, valid, indices), output in zip(seen, outputs, strict=True):
        rows = torch.tensor([weak[n] for n in valid], dtype=torch.float64)
        weights, state = RULES[rule](rows, indices[valid], state, **options)
        expected = _naive(weak, strong, valid, weights.tolist())
        assert output["loss_unlabeled"].item() == pytest.approx(expected, abs=1e-5)
        assert output["kept"].item() == pytest.approx(weights.mean().item(), abs=1e-5)
    kept = [output["kept"].item() for output in outputs]
    assert len(set(kept)) > 1
    assert min(kept) < 1
    for name, value in state.items():
        assert getattr(objective, f"rule_{name}").tolist() == pytest.approx(value.tolist(), abs=1e-6)


@pytest.mark.parametrize("rule", STATEFUL)
def test_a_checkpoint_keeps_the_state(some_images, rule, tmp_path):
    options = {"rule_options": OPTIONS[rule], "alignment": "weights"}
    objective, other = fixmatch(rule, **options), fixmatch(rule, **options)
    _steps(some_images, objective, 4)
    assert set(objective.state_dict()) == {"average", *(f"rule_{name}" for name in start_state(rule, 4, 8))}
    torch.save(objective.state_dict(), tmp_path / "objective.pt")
    other.load_state_dict(torch.load(tmp_path / "objective.pt", weights_only=True))
    one, two = (some(some_images.network, some_images.batch) for some in (objective, other))
    fresh = fixmatch(rule, **options)(some_images.network, some_images.batch)
    assert torch.equal(one["loss"], two["loss"])
    assert one["loss"].item() != fresh["loss"].item()


def test_the_weak_view_gives_no_gradient(images):
    """Not even through a rule that forgets to stop it."""
    objective = fixmatch(lambda probabilities, indices, state: (probabilities.amax(1), state))
    output = objective(images.network, images.batch)
    output["pred"].retain_grad()
    output["loss"].backward()
    weak, strong = output["pred"].grad[5:].chunk(2)
    assert not weak.any()
    assert strong[images.valid()].any(1).all()


def test_all_images_take_one_forward_pass(some_images):
    seen = []
    some_images.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    fixmatch()(some_images.network, some_images.batch)
    parts = [some_images.batch["image"], some_images.unlabeled["image"], some_images.unlabeled["strong"]]
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.cat(parts))


def test_when_no_image_is_sure_the_term_is_zero_with_a_graph(images):
    output = fixmatch(rule_options={"threshold": 1.1})(images.network, images.only("unlabeled"))
    assert output["loss"].item() == output["kept"].item() == 0
    output["loss"].backward()
    assert all(not p.grad.any() for p in images.network.parameters() if p.grad is not None)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("alignment", ["none", "both"])
def test_without_a_valid_image_the_state_stays(some_images, rule, alignment):
    objective = fixmatch(rule, alignment=alignment)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    some_images.unlabeled["mask"].zero_()
    output = objective(some_images.network, some_images.batch)
    assert output["loss_unlabeled"].item() == 0
    assert all(torch.equal(before[name], value) for name, value in objective.state_dict().items())


@pytest.mark.parametrize("prior", [None, [0.1, 0.6, 0.2, 0.1]])
@pytest.mark.parametrize("alignment", ["weights", "both"])
def test_alignment_changes_weights_and_labels_as_asked(some_images, alignment, prior):
    _, weak, strong = some_images.joint("image", "strong")
    valid = some_images.valid()
    p = torch.tensor([weak[n] for n in valid], dtype=torch.float64)
    aligned = align_distribution(p, p.mean(0), None if prior is None else torch.tensor(prior))
    threshold = _middle(aligned.tolist(), range(len(valid)))
    labels = (aligned if alignment == "both" else p).argmax(1).tolist()
    assert labels != (p if alignment == "both" else aligned).argmax(1).tolist()
    pairs = zip(valid, aligned.amax(1).tolist(), labels, strict=True)
    losses = [-math.log(strong[n][label]) for n, best, label in pairs if best >= threshold]
    objective = fixmatch(rule_options={"threshold": threshold}, alignment=alignment, prior=prior)
    output = objective(some_images.network, some_images.batch)
    assert output["loss_unlabeled"].item() == pytest.approx(sum(losses) / len(valid), abs=1e-5)
    assert objective.average.tolist() == pytest.approx(p.mean(0).tolist(), abs=1e-6)


def test_fairness_is_added_with_the_sign_it_is_given(some_images):
    terms = {}
    for weight in (0.0, 0.5, -0.5):
        objective = fixmatch("freematch", fairness_weight=weight)
        terms[weight] = objective(some_images.network, some_images.batch)["loss_unlabeled"].item()
    _, weak, strong = some_images.joint("image", "strong")
    valid = some_images.valid()
    rows, answer = (torch.tensor([some[n] for n in valid]).double() for some in (weak, strong))
    weights, state = RULES["freematch"](rows, None, start_state("freematch", 4, 0))
    fairness = fairness_cross_entropy(answer.log(), weights, state).item()
    assert fairness > 0
    assert terms[0.5] - terms[0.0] == pytest.approx(0.5 * fairness, abs=1e-5)
    assert terms[-0.5] - terms[0.0] == pytest.approx(-0.5 * fairness, abs=1e-5)


def test_a_rule_may_be_any_function(some_images):
    def half(probabilities, indices, state, *, share=0.5):
        return torch.full_like(indices, 1, dtype=torch.float64) * share, state

    one, other = (
        fixmatch(rule, rule_options=options)(some_images.network, some_images.batch)["loss_unlabeled"]
        for rule, options in ((half, {"share": 0.25}), ("fixed", {"threshold": 0.0}))
    )
    assert one.item() == pytest.approx(0.25 * other.item())


class _Processes:
    """Two threads that reduce with one another, in place of two processes."""

    def __init__(self):
        self.barrier, self.local, self.parts = threading.Barrier(2, timeout=20), threading.local(), {}

    def all_reduce(self, values):
        self.parts[self.local.rank] = values.clone()
        self.barrier.wait()
        values.copy_(self.parts[0] + self.parts[1])
        self.barrier.wait()

    def run(self, steps):
        """Run each step as a process of its own; return what they return."""
        found = {}

        def process(rank):
            self.local.rank = rank
            found[rank] = steps[rank]()

        threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
        for action in ("start", "join"):
            for thread in threads:
                getattr(thread, action)()
        return [found[rank] for rank in range(2)]


@pytest.mark.parametrize("rule", STATEFUL)
def test_processes_follow_the_batches_of_all(some_images, rule, monkeypatch):
    """Unequal parts of a batch on two processes: weights and state as of the whole batch on one."""
    options = {"rule_options": OPTIONS[rule], "alignment": "weights"}
    p = torch.rand(7, 4, generator=torch.Generator().manual_seed(3)).mul(4).softmax(1)
    indices = torch.randperm(8, generator=torch.Generator().manual_seed(4))[:7]
    alone = fixmatch(rule, **options)
    expected = [alone._judged(p, indices) for _ in range(3)]
    processes = _Processes()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: processes.local.rank)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", processes.all_reduce)
    both = [fixmatch(rule, **options) for _ in range(2)]
    parts = [slice(0, 3), slice(3, 7)]
    for weights, labels in expected:
        found = processes.run(
            [
                lambda one=one, part=part: one._judged(p[part], indices[part])
                for one, part in zip(both, parts, strict=True)
            ]
        )
        assert torch.equal(torch.cat([weight for weight, _ in found]), weights)
        assert torch.equal(torch.cat([label for _, label in found]), labels)
    for one in both:
        for name, value in alone.state_dict().items():
            assert torch.equal(one.state_dict()[name], value), name


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "flexible"},
        {"rule": "flexmatch", "pool": 0},
        {"rule": "softmatch", "classes": 0},
        {"rule_options": {"tau": 0.9}},
        {"alignment": "labels"},
        {"alignment": "both", "classes": 0},
        {"prior": [0.5, 0.5]},
        {"prior": [0.0, 0.0, 0.0, 0.0]},
        {"prior": [1.0, 1.0, 1.0, -1.0]},
        {"fairness_weight": 0.001},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError):
        fixmatch(**options)


def test_flexmatch_says_that_it_needs_the_places_in_the_pool(some_images):
    del some_images.unlabeled["index"]
    with pytest.raises(ConfigError, match="index"):
        fixmatch("flexmatch")(some_images.network, some_images.batch)
    assert "loss" in fixmatch("freematch")(some_images.network, some_images.batch)


def test_labels_take_the_cross_entropy_unless_told_otherwise(some_images):
    batch = some_images.only("image", "label")
    scores = some_images.network(batch["image"])
    for options, loss in (
        ({}, SupervisedLoss(0.0)),
        ({"labeled_loss": SupervisedLoss(2.0)}, SupervisedLoss(2.0)),
    ):
        found = fixmatch(**options)(some_images.network, batch)["loss"]
        assert torch.allclose(found, loss(scores, batch["label"]))
