import math

import pytest
import torch

from medssl.functional.pseudo_label import pseudo_label
from medssl.labels import UNKNOWN

SIZES = [(), (3, 2, 4)]


@pytest.fixture(params=SIZES, ids=["images", "voxels"])
def log_q(request):
    generator = torch.Generator().manual_seed(3)
    return (2 * torch.randn(6, 4, *request.param, generator=generator, dtype=torch.float64)).log_softmax(1)


def _reference_label(log_q, threshold):
    result = []
    for row in log_q.movedim(1, -1).reshape(-1, log_q.shape[1]).tolist():
        best = max(range(len(row)), key=row.__getitem__)
        result.append(best if math.exp(row[best]) >= threshold else UNKNOWN)
    return result


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.9])
def test_label_equals_the_naive_loop(log_q, threshold):
    label = pseudo_label(log_q, threshold)
    assert label.dtype == torch.int64
    assert label.shape == (6, *log_q.shape[2:])
    assert label.flatten().tolist() == _reference_label(log_q, threshold)


def test_without_a_threshold_every_element_gets_a_label(log_q):
    assert torch.equal(pseudo_label(log_q), log_q.argmax(1))


def test_label_carries_no_gradient(log_q):
    assert not pseudo_label(log_q.requires_grad_(), 0.5).requires_grad


def test_undefined_probabilities_are_unknown():
    assert pseudo_label(torch.full((2, 3), math.nan)).tolist() == [UNKNOWN, UNKNOWN]


def test_threshold_of_half_precision_is_not_rounded():
    log_q = torch.tensor([[0.9985, 0.0015]]).log().bfloat16()
    assert pseudo_label(log_q, 0.999).tolist() == [UNKNOWN]
    assert pseudo_label(log_q, 0.997).tolist() == [0]
