import pytest
import torch

from medssl.functional.mixing import mixup, mixup_shares, sharpen


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=[(), (2, 3)], ids=["images", "pixels"])
def p(request):
    scores = torch.randn(5, 4, *request.param, generator=_generator(), dtype=torch.float64)
    return (2 * scores).softmax(1)


@pytest.mark.parametrize("temperature", [0.25, 0.5, 2.0])
def test_sharpening_equals_the_naive_loop(p, temperature):
    found = sharpen(p, temperature).movedim(1, -1).reshape(-1, 4).tolist()
    for row, values in zip(p.movedim(1, -1).reshape(-1, 4).tolist(), found, strict=True):
        powers = [value ** (1 / temperature) for value in row]
        assert values == pytest.approx([power / sum(powers) for power in powers])


def test_sharpening_with_temperature_one_is_the_identity(p):
    assert torch.equal(sharpen(p, 1.0), p)
    assert torch.allclose(sharpen(p, 1 + 1e-9), p)


def test_sharpening_keeps_certainty_and_carries_no_gradient():
    p = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]], requires_grad=True)
    assert torch.equal(sharpen(p, 0.5), p)
    assert not sharpen(p, 0.5).requires_grad


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        sharpen(torch.tensor([[1.0]]), temperature)


@pytest.mark.parametrize("alpha", [0.1, 0.75, 4.0])
def test_shares_are_one_a_sample_and_lean_to_the_sample_itself(alpha):
    """D19: not one share a batch."""
    shares = mixup_shares(64, alpha, _generator())
    assert shares.shape == (64,)
    assert shares.dtype == torch.float32
    assert ((shares >= 0.5) & (shares <= 1)).all()
    assert len(shares.unique()) > 8


@pytest.mark.parametrize("alpha", [0.5, 0.75, 3.0])
def test_shares_have_the_moments_of_the_beta_distribution(alpha):
    """(beta - 1/2)^2 has the mean 1 / (4 (2 alpha + 1)); folding at 1/2 does not change it."""
    shares = mixup_shares(40_000, alpha, _generator()).double()
    assert (shares - 0.5).square().mean().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_shares_follow_the_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other = mixup_shares(4, 0.75, _generator(7)), mixup_shares(4, 0.75, _generator(7))
    assert torch.equal(one, other)
    assert not torch.equal(one, mixup_shares(4, 0.75, _generator(8)))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_generator_shares_follow_torchs_own():
    torch.manual_seed(1)
    one, two = mixup_shares(4, 0.75), mixup_shares(4, 0.75)
    torch.manual_seed(1)
    assert torch.equal(mixup_shares(4, 0.75), one)
    assert not torch.equal(one, two)


def test_alpha_zero_mixes_nothing_and_less_is_refused():
    assert mixup_shares(3, 0.0).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="alpha"):
        mixup_shares(3, -0.1)


@pytest.mark.parametrize("spatial", [(), (4, 3), (2, 3, 4)])
def test_mixup_equals_the_naive_loop(spatial):
    images = torch.randn(6, 2, *spatial, generator=_generator(), dtype=torch.float64)
    targets = torch.randn(6, 3, generator=_generator(1), dtype=torch.float64).softmax(1)
    shares, partners = mixup_shares(6, 0.75, _generator(2)), torch.randperm(6, generator=_generator(3))
    mixed = mixup(images, targets, shares, partners)
    for number, (share, partner) in enumerate(zip(shares.tolist(), partners.tolist(), strict=True)):
        for values, found in zip((images, targets), mixed, strict=True):
            assert torch.allclose(found[number], share * values[number] + (1 - share) * values[partner])


def test_mixed_targets_go_on_summing_to_one():
    targets = torch.eye(3)[torch.tensor([0, 2, 1, 1])]
    _, mixed = mixup(torch.rand(4, 1), targets, mixup_shares(4, 0.75), torch.tensor([3, 0, 1, 2]))
    assert torch.allclose(mixed.sum(1), torch.ones(4))
    assert (mixed.amax(1) < 1).any()


def test_share_one_leaves_a_sample_as_it_is():
    images, targets = torch.rand(3, 1, 2, 2), torch.eye(3)
    mixed, soft = mixup(images, targets, torch.ones(3), torch.tensor([1, 2, 0]))
    assert torch.equal(mixed, images)
    assert torch.equal(soft, targets)
