import math

import pytest
import torch

from medssl.objectives import OnlinePseudoLabel


def _naive(source, student, threshold):
    losses = [
        -math.log(q[p.index(max(p))]) for p, q in zip(source, student, strict=True) if max(p) >= threshold
    ]
    return sum(losses) / max(len(losses), 1)


def _middle(assignments):
    """Return a threshold that some voxels reach and some do not."""
    best = sorted(map(max, assignments))
    return (best[len(best) // 2 - 1] + best[len(best) // 2]) / 2


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("thresholded", [True, False])
def test_term_equals_the_naive_loop(case, own, thresholded):
    student = case.assignments(case.network, "strong")
    source = student if own else case.assignments(case.teacher, "image")
    threshold = _middle(source) if thresholded else 0.0
    objective = OnlinePseudoLabel(None if own else case.teacher, threshold=threshold)
    output = objective(case.network, case.batch)
    assert output["loss_unlabeled"].item() == pytest.approx(_naive(source, student, threshold), abs=1e-5)
    assert output["confidence"].item() == pytest.approx(sum(map(max, source)) / len(source), abs=1e-6)
    labels = [p.index(max(p)) for p in source]
    assert output["mass"].tolist() == [labels.count(number) for number in range(len(source[0]))]


def test_when_no_voxel_is_sure_the_term_is_zero_with_a_graph(case):
    output = OnlinePseudoLabel(case.teacher, threshold=1.1)(case.network, case.only("unlabeled"))
    assert output["loss"].item() == 0
    output["loss"].backward()
    assert all(bool((p.grad == 0).all()) for p in case.network.parameters() if p.grad is not None)


def test_its_own_labels_make_the_student_surer(case):
    objective = OnlinePseudoLabel()
    optimizer = torch.optim.SGD(case.network.parameters(), 0.1)
    outputs = []
    for _ in range(10):
        optimizer.zero_grad()
        outputs.append(objective(case.network, case.only("unlabeled")))
        outputs[-1]["loss"].backward()
        optimizer.step()
    assert outputs[-1]["confidence"].item() > outputs[0]["confidence"].item()
