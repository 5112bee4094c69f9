import pytest
import torch

from medssl.objectives import MeanTeacher


def test_term_equals_the_naive_loop(case):
    student, teacher = case.assignments(case.network, "strong"), case.assignments(case.teacher, "image")
    total = sum(
        (a - b) ** 2 for q, p in zip(student, teacher, strict=True) for a, b in zip(q, p, strict=True)
    )
    output = MeanTeacher(case.teacher)(case.network, case.batch)
    assert output["loss_unlabeled"].item() == pytest.approx(total / len(student), abs=1e-6)
    assert output["unlabeled_weight"].item() == 10
    assert output["confidence"].item() == pytest.approx(sum(map(max, teacher)) / len(teacher), abs=1e-6)
    assert output["mass"].tolist() == pytest.approx(
        [sum(column) for column in zip(*teacher, strict=True)], 1e-5
    )


def test_a_student_that_agrees_has_no_loss(case):
    case.unlabeled["strong"] = case.unlabeled["image"]
    output = MeanTeacher(case.network)(case.network, case.batch)
    assert output["loss_unlabeled"].item() == pytest.approx(0, abs=1e-12)


def test_a_step_brings_the_student_nearer(case):
    objective = MeanTeacher(case.teacher)
    optimizer = torch.optim.SGD(case.network.parameters(), 0.05)
    terms = []
    for _ in range(10):
        optimizer.zero_grad()
        output = objective(case.network, case.only("unlabeled"))
        output["loss"].backward()
        optimizer.step()
        terms.append(output["loss_unlabeled"].item())
    assert terms == sorted(terms, reverse=True)
    assert terms[-1] < 0.95 * terms[0]
