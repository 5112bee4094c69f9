import math

import pytest
import torch

from medssl.errors import ConfigError
from medssl.objectives import SoftDistillation


def _softened(row, temperature):
    powers = [value ** (1 / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def _divergence(target, student, temperature):
    """Return T^2 KL of the softened distributions, averaged over the images whose target is known."""
    terms = []
    for p, q in zip(target, student, strict=True):
        if sum(p) > 0.5:
            p, q = _softened(p, temperature), _softened(q, temperature)  # noqa: PLW2901
            terms.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return temperature**2 * sum(terms) / len(terms)


def _taught(case):
    """Give the labeled images teachers' probabilities too, but for one."""
    generator = torch.Generator().manual_seed(8)
    case.batch["target"] = torch.rand(5, 4, generator=generator).mul(3).softmax(1)
    case.batch["target"][3] = 0
    return case.batch["target"].double().tolist()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_terms_equal_the_naive_loop(images, alpha, temperature):
    target = _taught(images)
    labeled, student = images.joint("strong")
    pairs = zip(labeled, images.batch["label"][:, 0].tolist(), strict=True)
    losses = [-math.log(row[label]) for row, label in pairs if label != 255]
    supervised = (1 - alpha) * sum(losses) / len(losses) + alpha * _divergence(target, labeled, temperature)
    stored = images.unlabeled["target"].double().tolist()
    rows, answers = ([some[n] for n in images.valid()] for some in (stored, student))
    output = SoftDistillation(temperature=temperature, alpha=alpha)(images.network, images.batch)
    assert output["loss_labeled"].item() == pytest.approx(supervised, abs=1e-5)
    unlabeled = alpha * _divergence(rows, answers, temperature)
    assert output["loss_unlabeled"].item() == pytest.approx(unlabeled, abs=1e-5)
    known = [row for row in rows if sum(row) > 0.5]
    assert len(known) == 4
    assert output["confidence"].item() == pytest.approx(sum(map(max, known)) / 4, abs=1e-6)
    assert output["mass"].tolist() == pytest.approx([sum(column) for column in zip(*known, strict=True)])


def test_without_teachers_on_labeled_images_their_loss_is_the_cross_entropy(images):
    output = SoftDistillation(alpha=0.9)(images.network, images.batch)
    label = images.batch["label"][:, 0]
    expected = torch.nn.functional.cross_entropy(output["pred"][:5], label, ignore_index=255)
    assert torch.allclose(output["loss_labeled"], expected)


def test_a_student_that_agrees_has_no_divergence(some_images):
    some_images.network.eval()
    with torch.no_grad():
        target = some_images.network(some_images.unlabeled["strong"]).softmax(1)
    some_images.unlabeled["target"] = target
    output = SoftDistillation()(some_images.network, some_images.only("unlabeled"))
    assert output["loss"].item() == pytest.approx(0, abs=1e-5)


def test_without_any_target_the_term_is_zero_with_a_graph(images):
    images.unlabeled["target"] = torch.zeros(6, 4)
    output = SoftDistillation()(images.network, images.only("unlabeled"))
    assert output["loss"].item() == 0
    output["loss"].backward()
    assert all(not p.grad.any() for p in images.network.parameters() if p.grad is not None)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"alpha": 1.1}, {"alpha": -0.1}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="temperature"):
        SoftDistillation(**options)
