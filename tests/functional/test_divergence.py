import math

import pytest
import torch

from medssl.functional.divergence import masked_kl, masked_squared_difference

SIZES = [(), (3, 2, 4)]


@pytest.fixture(params=SIZES, ids=["images", "voxels"])
def sample(request):
    generator = torch.Generator().manual_seed(3)
    shape = (6, 4, *request.param)
    log_p, log_q = (
        torch.randn(shape, generator=generator, dtype=torch.float64).log_softmax(1) for _ in range(2)
    )
    valid = torch.rand(6, *request.param, generator=generator) < 0.7
    valid[0], valid[1] = True, False
    return log_p, log_q, valid


def outside(valid):
    """Return the mask's complement with a class axis."""
    return ~valid.unsqueeze(1)


def _reference_kl(log_p, log_q, valid, weight):
    total = count = 0.0
    axes = (x.movedim(1, -1).reshape(-1, x.shape[1]).tolist() for x in (log_p, log_q))
    for row_p, row_q, counts, w in zip(*axes, valid.flatten(), weight.flatten().tolist(), strict=True):
        if counts:
            count += 1
            for a, b in zip(row_p, row_q, strict=True):
                total += w * math.exp(a) * (a - b) if a > -math.inf else 0.0
    return total / count


def test_kl_equals_the_naive_loop(sample):
    log_p, log_q, valid = sample
    log_p[0, 1] = -math.inf
    weight = torch.rand(valid.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    ones = torch.ones_like(weight)
    assert masked_kl(log_p, log_q, valid).item() == pytest.approx(_reference_kl(*sample, ones), abs=1e-12)
    weighted = masked_kl(log_p, log_q, valid, weight).item()
    assert weighted == pytest.approx(_reference_kl(*sample, weight), abs=1e-12)


def test_squared_difference_equals_the_naive_loop(sample):
    log_p, log_q, valid = sample
    log_p[0, 1] = -math.inf
    log_q[1] = math.nan  # outside of the valid elements
    weight = torch.rand(valid.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    p, q = (x.exp().movedim(1, -1).reshape(-1, x.shape[1]).tolist() for x in (log_p, log_q))
    rows = zip(p, q, valid.flatten().tolist(), weight.flatten().tolist(), strict=True)
    terms = [w * sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for *pair, counts, w in rows if counts]
    found = masked_squared_difference(log_p, log_q, valid, weight).item()
    assert found == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_squared_difference_gives_no_gradient_to_the_target_nor_outside_the_mask(sample):
    log_p, log_q, valid = sample
    log_p.requires_grad_(True), log_q.requires_grad_(True)
    masked_squared_difference(log_p, log_q, valid).backward()
    assert log_p.grad is None
    assert not log_q.grad[outside(valid).expand_as(log_q)].any()


def test_kl_is_at_least_zero_and_zero_between_equals(sample):
    """Invariant 2."""
    log_p, log_q, valid = sample
    assert masked_kl(log_p, log_q, valid).item() > 0
    assert masked_kl(log_p, log_p, valid).item() == 0


def test_one_hot_target_gives_the_cross_entropy(sample):
    """Invariant 2: the loss of a labeled element is -log q of its class."""
    _, log_q, valid = sample
    label = log_q.flip(1).argmax(1)
    log_p = torch.nn.functional.one_hot(label, 4).movedim(-1, 1).double().log()
    expected = -log_q.gather(1, label.unsqueeze(1)).squeeze(1)[valid].mean()
    torch.testing.assert_close(masked_kl(log_p, log_q, valid), expected)


def test_gradient_reaches_the_prediction_only(sample):
    """Invariant 2: the target is a constant."""
    log_p, log_q, valid = (x.requires_grad_() if x.is_floating_point() else x for x in sample)
    weight = torch.ones(valid.shape, dtype=torch.float64, requires_grad=True)
    masked_kl(log_p, log_q, valid, weight).backward()
    assert log_p.grad is None
    assert weight.grad is None
    expected = torch.where(outside(valid), 0.0, -log_p.detach().exp() / valid.sum())
    torch.testing.assert_close(log_q.grad, expected)


@pytest.mark.parametrize("absent", [0.0, -30.0, -math.inf, math.nan])
def test_empty_mask_gives_zero_with_a_graph(sample, absent):
    """Invariant 8."""
    log_p, log_q, valid = sample
    log_q[:, 0] = absent
    loss = masked_kl(log_p, log_q.requires_grad_(), torch.zeros_like(valid))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(log_q.grad, torch.zeros_like(log_q))


@pytest.mark.parametrize("absent", [-30.0, -math.inf])
def test_class_that_neither_side_has_adds_nothing(sample, absent):
    log_p, log_q, valid = sample
    expected = masked_kl(log_p, log_q, valid)
    log_p, log_q = (
        torch.cat([torch.full_like(log_p[:, :1], value), x], 1)
        for x, value in ((log_p, -math.inf), (log_q, absent))
    )
    loss = masked_kl(log_p, log_q.requires_grad_(), valid)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert torch.isfinite(log_q.grad).all()
    assert torch.all(log_q.grad[:, 0] == 0)


@pytest.mark.parametrize("value", [5.0, -math.inf, math.inf, math.nan])
def test_what_stands_outside_the_mask_changes_neither_loss_nor_gradient(sample, value):
    """Invariant 4: the loss is that of the mask."""
    log_p, log_q, valid = sample
    weight = torch.ones(valid.shape, dtype=torch.float64)
    expected = masked_kl(log_p, log_q, valid, weight)
    log_p, log_q = (torch.where(outside(valid), value, x) for x in (log_p, log_q))
    loss = masked_kl(log_p, log_q.requires_grad_(), valid, torch.where(valid, weight, value))
    loss.backward()
    assert loss.item() == expected.item()
    assert torch.all(log_q.grad[outside(valid).expand_as(log_q)] == 0)
    assert torch.isfinite(log_q.grad).all()


def test_undefined_target_inside_the_mask_is_not_hidden(sample):
    log_p, log_q, valid = sample
    log_p[0] = math.nan
    assert masked_kl(log_p, log_q, valid).isnan()


def test_prediction_that_excludes_the_target_costs_infinitely_much():
    certain = torch.tensor([[0.0, -math.inf]])
    assert masked_kl(certain, certain.flip(1), torch.tensor([True])).item() == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_raised_to_float32(dtype):
    generator = torch.Generator().manual_seed(0)
    log_p, log_q = (torch.randn(2, 4, 40, 40, 40, generator=generator).log_softmax(1).to(dtype) for _ in "pq")
    valid = torch.ones(2, 40, 40, 40, dtype=torch.bool)
    loss = masked_kl(log_p, log_q, valid)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(masked_kl(log_p.double(), log_q.double(), valid).item(), rel=1e-5)
    one = masked_kl(log_p[:, :, 0, 0, 0], log_q[:, :, 0, 0, 0], valid[:, 0, 0, 0]).item()
    exact = masked_kl(log_p[:, :, 0, 0, 0].double(), log_q[:, :, 0, 0, 0].double(), valid[:, 0, 0, 0]).item()
    assert one == pytest.approx(exact, rel=1e-5)


def test_float64_stays(sample):
    assert masked_kl(*sample).dtype == torch.float64


def test_mean_runs_over_the_valid_elements_of_the_whole_batch(sample):
    log_p, log_q, valid = sample
    crops = [masked_kl(log_p[b : b + 1], log_q[b : b + 1], valid[b : b + 1]) for b in range(6)]
    counts = valid.flatten(1).sum(1) if valid.ndim > 1 else valid.long()
    pooled = sum(crop * count for crop, count in zip(crops, counts, strict=True)) / counts.sum()
    torch.testing.assert_close(masked_kl(log_p, log_q, valid), pooled)
