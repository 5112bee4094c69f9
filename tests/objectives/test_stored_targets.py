import math

import pytest
import torch
import torch.nn.functional as F

from medssl.objectives import StoredTargets


def test_term_equals_the_naive_loop(case):
    student = case.assignments(case.network, "strong")
    targets = [case.unlabeled["target"][b, :, i, j, k].tolist() for b, i, j, k in case.voxels()]
    known = [(p, q) for p, q in zip(targets, student, strict=True) if sum(p) > 0.5]
    assert len(known) < len(student)
    total = sum(a * (math.log(a) - math.log(b)) for p, q in known for a, b in zip(p, q, strict=True))
    output = StoredTargets()(case.network, case.batch)
    assert output["loss_unlabeled"].item() == pytest.approx(total / len(known), abs=1e-5)
    assert output["confidence"].item() == pytest.approx(sum(max(p) for p, _ in known) / len(known), abs=1e-6)
    mass = [sum(p[number] for p, _ in known) for number in range(len(targets[0]))]
    assert output["mass"].tolist() == pytest.approx(mass, rel=1e-5)


def test_for_hard_targets_it_is_the_cross_entropy(case):
    """Also its gradient: pseudo-labels in rounds and SSLDEC share this objective."""
    K = 4 - case.first
    label = torch.randint(0, K, (3, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    case.unlabeled["target"] = F.one_hot(label, K).movedim(-1, 1).float()
    output = StoredTargets()(case.network, case.only("unlabeled"))
    weight = next(case.network.parameters())
    (found,) = torch.autograd.grad(output["loss"], weight)
    valid = case.unlabeled["mask"][:, 0] > 0.5
    scores = case.network(case.unlabeled["strong"])[:, case.first :].movedim(1, -1)[valid]
    expected = F.cross_entropy(scores, label[valid])
    assert output["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(found, torch.autograd.grad(expected, weight)[0], atol=1e-6)


def test_without_any_target_the_term_is_zero_with_a_graph(case):
    case.unlabeled["target"] = torch.zeros_like(case.unlabeled["target"])
    output = StoredTargets()(case.network, case.only("unlabeled"))
    assert output["loss"].item() == 0
    output["loss"].backward()
    assert all(bool((p.grad == 0).all()) for p in case.network.parameters() if p.grad is not None)
