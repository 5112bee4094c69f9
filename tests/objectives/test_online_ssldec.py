import math

import pytest
import torch

from medssl.errors import ConfigError
from medssl.functional.clustering import RULES
from medssl.objectives import OnlineSSLDEC

COUNTS = torch.tensor([50.0, 400.0, 300.0, 250.0])


def online(teacher, **options):
    """An objective that has seen so many labels that the few of a test leave its prior at COUNTS."""
    objective = OnlineSSLDEC(teacher, labels=len(COUNTS), **options)
    objective.label_mass += 1e9 * COUNTS
    return objective


def _shares(values):
    return [value / sum(values) for value in values]


def _target(rule, q, f, prior):
    factor = {
        "dec": [q[j] ** 2 / f[j] for j in range(len(q))],
        "sharpen": [q[j] ** 2 for j in range(len(q))],
        "prior": [q[j] ** 2 * prior[j] / f[j] for j in range(len(q))],
        "soft": q,
    }[rule]
    return _shares(factor)


def _naive(case, rule, f, confident=False):
    student, teacher = case.assignments(case.network, "strong"), case.assignments(case.teacher, "image")
    K = len(teacher[0])
    prior = _shares(COUNTS[case.first :].tolist())
    total = 0.0
    for q, assigned in zip(student, teacher, strict=True):
        p = _target(rule, assigned, f, prior)
        weight = (K * max(assigned) - 1) / (K - 1) if confident else 1.0
        total += weight * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
    return total / len(student)


@pytest.mark.parametrize("confident", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_term_equals_the_naive_loop(case, rule, confident):
    teacher = case.assignments(case.teacher, "image")
    f = _shares([sum(column) for column in zip(*teacher, strict=True)])
    objective = online(case.teacher, rule=rule, confident=confident)
    output = objective(case.network, case.batch)
    assert output["loss_unlabeled"].item() == pytest.approx(_naive(case, rule, f, confident), abs=1e-5)
    assert output["confidence"].item() == pytest.approx(sum(map(max, teacher)) / len(teacher), abs=1e-6)


@pytest.mark.parametrize("rule", ["dec", "prior"])
def test_targets_are_made_with_the_running_frequencies(case, rule):
    objective = online(case.teacher, rule=rule, momentum=0.5)
    running = torch.tensor([0.6, 0.3, 0.08, 0.02], dtype=torch.float64)[case.first :]
    objective.frequencies[case.first :] = running / running.sum()
    output = objective(case.network, case.batch)
    f = objective.frequencies[case.first :]
    assert torch.allclose(f, (running / running.sum() + output["mass"] / output["mass"].sum()) / 2)
    assert output["loss_unlabeled"].item() == pytest.approx(_naive(case, rule, f.tolist()), abs=1e-5)


def test_a_uniform_guess_has_no_confidence(case):
    for parameter in case.teacher.parameters():
        torch.nn.init.zeros_(parameter)  # all centers alike, all scores alike
    output = online(case.teacher, confident=True)(case.network, case.batch)
    assert output["loss_unlabeled"].item() == pytest.approx(0, abs=1e-6)


def _steps(case, objective, count=6, seed=0):
    """Take steps on changing crops; return the teacher's mass of each, by a naive loop."""
    generator = torch.Generator().manual_seed(seed)
    masses = []
    for _ in range(count):
        case.unlabeled["image"] = torch.randn(3, 2, 3, 2, 2, generator=generator)
        case.unlabeled["mask"] = (torch.rand(3, 1, 3, 2, 2, generator=generator) < 0.6).float()
        masses.append([sum(column) for column in zip(*case.assignments(case.teacher, "image"), strict=True)])
        output = objective(case.network, case.batch)
        assert output["mass"].tolist() == pytest.approx(masses[-1], rel=1e-5)
    return masses


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_running_frequencies_follow_the_formula(case, momentum):
    objective = online(case.teacher, momentum=momentum)
    assert objective.frequencies.tolist() == [0, 0, 0, 0]
    masses = _steps(case, objective)
    expected = _shares(masses[0])
    for mass in masses[1:]:
        expected = [momentum * f + (1 - momentum) * m for f, m in zip(expected, _shares(mass), strict=True)]
    assert objective.frequencies[case.first :].tolist() == pytest.approx(expected, rel=1e-5)
    assert objective.frequencies[: case.first].tolist() == [0] * case.first
    assert objective.frequencies.sum().item() == pytest.approx(1)


def test_crops_without_a_mask_leave_the_frequencies_alone(case):
    objective = online(case.teacher)
    mask = case.unlabeled["mask"]
    case.unlabeled["mask"] = torch.zeros_like(mask)
    objective(case.network, case.batch)
    case.unlabeled["mask"] = mask
    output = objective(case.network, case.batch)  # the first crops that count start the average
    expected = output["mass"] / output["mass"].sum()
    assert torch.allclose(objective.frequencies[case.first :], expected)
    case.unlabeled["mask"] = torch.zeros_like(mask)
    objective(case.network, case.batch)
    assert torch.allclose(objective.frequencies[case.first :], expected)


def test_labeled_crops_never_enter_the_frequencies(case):
    beside, alone = (online(case.teacher) for _ in range(2))
    beside(case.network, case.batch)
    alone(case.network, case.only("unlabeled"))
    assert torch.equal(beside.frequencies, alone.frequencies)
    beside(case.network, case.only("image", "label"))
    assert torch.equal(beside.frequencies, alone.frequencies)


def test_the_prior_counts_the_labels_of_all_labeled_crops_so_far(case):
    objective = OnlineSSLDEC(case.teacher, labels=len(COUNTS), rule="prior")
    label = case.batch["label"]
    expected = [int((label == value).sum()) for value in range(len(COUNTS))]
    assert sum(expected) < label.numel()  # some are unknown
    objective(case.network, case.batch)
    objective(case.network, case.only("image", "label"))
    assert objective.label_mass.tolist() == [2 * count for count in expected]
    objective(case.network, case.only("unlabeled"))
    assert objective.label_mass.tolist() == [2 * count for count in expected]


def test_a_checkpoint_keeps_the_frequencies(case, tmp_path):
    class Teacher:  # no module, as `engines.Teacher`
        def __call__(self, image):
            return case.teacher(image)

    objective = online(Teacher(), rule="dec")
    _steps(case, objective)
    assert list(objective.state_dict()) == ["frequencies", "label_mass"]
    torch.save(objective.state_dict(), tmp_path / "objective.pt")
    other = online(Teacher(), rule="dec")
    other.load_state_dict(torch.load(tmp_path / "objective.pt", weights_only=True))
    assert torch.equal(other.frequencies, objective.frequencies)
    assert other.frequencies.dtype == torch.float64
    one, two = objective(case.network, case.batch), other(case.network, case.batch)
    assert torch.equal(one["loss"], two["loss"])


def test_a_dead_cluster_keeps_the_loss_finite(case):
    def teacher(image):
        scores = torch.zeros(len(image), 4, *image.shape[2:])
        scores[:, -1] = -torch.inf
        return scores

    for rule in RULES:
        output = online(teacher, rule=rule)(case.network, case.only("unlabeled"))
        output["loss"].backward()
        assert torch.isfinite(output["loss"])
    assert all(torch.isfinite(p.grad).all() for p in case.network.parameters() if p.grad is not None)


def test_masses_of_all_processes_are_added(case, monkeypatch):
    """Two processes that see the same crops: twice the mass, the same frequencies."""
    alone = online(case.teacher)
    alone(case.network, case.batch)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda mass: mass.mul_(2))
    both = online(case.teacher)
    output = both(case.network, case.batch)
    assert output["mass"].sum().item() == pytest.approx(2 * len(case.voxels()))
    assert torch.allclose(both.frequencies, alone.frequencies)


def test_squared_distance_takes_the_place_of_the_divergence(case):
    objective = online(case.teacher, rule="soft", distance="squared")
    found = objective(case.network, case.batch)["loss_unlabeled"].item()
    pairs = zip(
        case.assignments(case.network, "strong"), case.assignments(case.teacher, "image"), strict=True
    )
    terms = [sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in pairs]
    assert found == pytest.approx(sum(terms) / len(terms), abs=1e-6)


def test_unknown_distance_is_refused(case):
    with pytest.raises(ConfigError, match="squared"):
        online(case.teacher, distance="cosine")


@pytest.mark.parametrize("weight", [[0.5, 0.5], [0.1, 0.2, 0.3, -0.4], -1.0])
def test_a_weight_that_is_no_number_a_label_is_refused(case, weight):
    with pytest.raises(ConfigError, match="anatomy_weight"):
        online(case.teacher, anatomy_weight=weight)


def test_anatomical_prior_is_a_factor_of_the_teachers_assignment(case):
    K = len(COUNTS)
    prior = torch.rand(3, K, 3, 2, 2, generator=torch.Generator().manual_seed(6)) + 0.05
    case.unlabeled["prior"] = prior
    objective = online(case.teacher, rule="soft", anatomy_weight=[0.1, 0.3, 0.5, 0.7])
    found = objective(case.network, case.batch)
    weights = [0.1, 0.3, 0.5, 0.7][case.first :]
    total, mass = 0.0, [0.0] * len(weights)
    student, teacher = case.assignments(case.network, "strong"), case.assignments(case.teacher, "image")
    for (b, i, j, k), q, assigned in zip(case.voxels(), student, teacher, strict=True):
        a = _shares(prior[b, case.first :, i, j, k].tolist())
        p = _shares([t * x**w for t, x, w in zip(assigned, a, weights, strict=True)])
        mass = [m + share for m, share in zip(mass, p, strict=True)]
        total += sum(x * (math.log(x) - math.log(y)) for x, y in zip(p, q, strict=True))
    assert found["loss_unlabeled"].item() == pytest.approx(total / len(student), abs=1e-5)
    assert found["mass"].tolist() == pytest.approx(mass, rel=1e-5)
