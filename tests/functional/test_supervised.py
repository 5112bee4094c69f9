import math

import pytest
import torch

from medssl.functional.supervised import masked_cross_entropy, masked_dice_loss
from medssl.labels import UNKNOWN


@pytest.fixture
def sample():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, 3, 2, 2, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 4, (2, 3, 2, 2), generator=generator)
    label[0, 0] = UNKNOWN
    return logits, label


def _reference_cross_entropy(logits, label):
    losses = []
    for b, i, j, k in torch.cartesian_prod(*(torch.arange(n) for n in label.shape)).tolist():
        y = int(label[b, i, j, k])
        if y != UNKNOWN:
            z = logits[b, :, i, j, k].tolist()
            losses.append(math.log(sum(math.exp(v) for v in z)) - z[y])
    return sum(losses) / len(losses)


def _reference_dice_loss(logits, label, smooth):
    K = logits.shape[1]
    q = torch.softmax(logits, 1)
    terms = []
    for c in range(1, K):
        overlap = mass = 0.0
        for b, i, j, k in torch.cartesian_prod(*(torch.arange(n) for n in label.shape)).tolist():
            y = int(label[b, i, j, k])
            if y != UNKNOWN:
                overlap += float(q[b, c, i, j, k]) * (y == c)
                mass += float(q[b, c, i, j, k]) + (y == c)
        terms.append((2 * overlap + smooth) / (mass + smooth))
    return 1 - sum(terms) / len(terms)


def test_cross_entropy_equals_the_naive_loop(sample):
    assert masked_cross_entropy(*sample).item() == pytest.approx(_reference_cross_entropy(*sample), abs=1e-6)


def test_dice_loss_equals_the_naive_loop(sample):
    assert masked_dice_loss(*sample).item() == pytest.approx(_reference_dice_loss(*sample, 1.0), abs=1e-6)


@pytest.mark.parametrize("loss", [masked_cross_entropy, masked_dice_loss])
def test_unknown_voxels_neither_count_nor_get_gradient(loss, sample):
    logits, label = sample
    logits = logits.requires_grad_()
    loss(logits, label).backward()
    assert torch.all(logits.grad[0, :, 0] == 0)
    assert torch.any(logits.grad[0, :, 1] != 0)
    changed = logits.detach().clone()
    changed[0, :, 0] += 5
    assert loss(changed, label).item() == pytest.approx(loss(logits, label).item(), abs=1e-9)


def test_cross_entropy_without_a_known_voxel_is_zero_with_a_graph(sample):
    """Invariant 8."""
    logits = sample[0].requires_grad_()
    loss = masked_cross_entropy(logits, torch.full((2, 3, 2, 2), UNKNOWN))
    loss.backward()
    assert loss.item() == 0
    assert torch.all(logits.grad == 0)


def test_perfect_prediction_has_no_loss():
    label = torch.tensor([[0, 1, 2, 3]])
    logits = torch.full((1, 4, 4), -50.0)
    logits[0, label[0], torch.arange(4)] = 50.0
    assert masked_dice_loss(logits, label).item() == pytest.approx(0, abs=1e-6)
    assert masked_cross_entropy(logits, label).item() == pytest.approx(0, abs=1e-6)


def _weighed_reference(logits, label, smoothing, classes, samples):
    total = mass = 0.0
    K = logits.shape[1]
    for b, i, j, k in torch.cartesian_prod(*(torch.arange(n) for n in label.shape)).tolist():
        y = int(label[b, i, j, k])
        if y != UNKNOWN:
            z = logits[b, :, i, j, k].tolist()
            log_q = [v - math.log(sum(math.exp(u) for u in z)) for v in z]
            loss = -(1 - smoothing) * log_q[y] - smoothing / K * sum(log_q)
            total += classes[y] * samples[b] * loss
            mass += classes[y] * samples[b]
    return total / mass


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("classes", [None, [0.5, 2.0, 1.0, 3.0]])
@pytest.mark.parametrize("samples", [None, [1.0, 0.25]])
def test_weights_and_smoothing_equal_the_naive_loop(sample, smoothing, classes, samples):
    logits, label = sample
    found = masked_cross_entropy(
        logits,
        label,
        label_smoothing=smoothing,
        class_weight=None if classes is None else torch.tensor(classes),
        weight=None if samples is None else torch.tensor(samples),
    )
    expected = _weighed_reference(logits, label, smoothing, classes or [1.0] * 4, samples or [1.0] * 2)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_logit_adjustment_equals_the_naive_loop(sample):
    logits, label = sample
    log_prior = [math.log(share) for share in (0.5, 0.3, 0.15, 0.05)]
    shifted = torch.stack([logits[:, k] + log_prior[k] for k in range(4)], 1)
    found = masked_cross_entropy(logits, label, log_prior=torch.tensor(log_prior))
    expected = _weighed_reference(shifted, label, 0.0, [1.0] * 4, [1.0] * 2)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_scores_learned_with_logit_adjustment_let_classes_count_alike():
    """Two classes that look the same, one nine times as frequent: the learned scores are equal, not 9 to 1."""
    label = torch.tensor([0] * 9 + [1])
    for shift, expected in ((None, math.log(9)), (torch.tensor([0.9, 0.1]).log(), 0.0)):
        scores = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.LBFGS([scores], max_iter=50)

        def loss(scores=scores, shift=shift, optimizer=optimizer):
            optimizer.zero_grad()
            found = masked_cross_entropy(scores.expand(10, 2), label, log_prior=shift)
            found.backward()
            return found

        optimizer.step(loss)
        assert (scores[0] - scores[1]).item() == pytest.approx(expected, abs=1e-3)


def test_weights_that_are_all_zero_give_zero_with_a_graph(sample):
    logits = sample[0].requires_grad_()
    loss = masked_cross_entropy(logits, sample[1], weight=torch.zeros(2))
    loss.backward()
    assert loss.item() == 0
    assert torch.all(logits.grad == 0)
