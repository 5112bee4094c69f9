import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medssl.functional.clustering import (
    DEAD_SHARE,
    RULES,
    center_distances,
    class_means,
    cluster_mass,
    dead_clusters,
    fused_assignment,
    log_shares,
    log_soft_assignment,
    log_target_distribution,
)

IN_MASK = torch.tensor([0.22, 0.47, 0.31], dtype=torch.float64)
"""Shares of CSF, GM and WM in a brain mask."""

SIZES = [(), (3, 2, 4)]
"""Whole images and voxels."""

HALVES = [torch.float16, torch.bfloat16]


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def embeddings(size, batch=5, features=3, clusters=4, dtype=torch.float64):
    z = torch.randn(batch, features, *size, generator=_generator(), dtype=torch.float64)
    mu = torch.randn(clusters, features, generator=_generator(1), dtype=torch.float64)
    return z.to(dtype), mu.to(dtype)


def assignments(size, batch=5, clusters=4, seed=2):
    scores = 2 * torch.randn(batch, clusters, *size, generator=_generator(seed), dtype=torch.float64)
    return scores.log_softmax(1)


def rows(x):
    """Return `(B, K, *spatial)` as lists of K numbers."""
    return x.movedim(1, -1).reshape(-1, x.shape[1]).tolist()


def equals(x, expected, tolerance=1e-12):
    for found, wanted in zip(rows(x), expected, strict=True):
        assert found == pytest.approx(wanted, abs=tolerance)


def _reference_assignment(z, mu, alpha):
    result = []
    for point in rows(z):
        u = []
        for center in mu.tolist():
            d2 = sum((a - b) ** 2 for a, b in zip(point, center, strict=True))
            u.append((1 + d2 / alpha) ** (-(alpha + 1) / 2))
        result.append([value / sum(u) for value in u])
    return result


def _reference_target(q, rule, f, pi, evidence):
    result = []
    for values, factors in zip(q, evidence, strict=True):
        fused = [a * b for a, b in zip(values, factors, strict=True)]
        fused = [value / sum(fused) for value in fused]
        p = []
        for j, value in enumerate(fused):
            p.append(
                {
                    "dec": value**2 / f[j],
                    "sharpen": value**2,
                    "prior": value**2 * pi[j] / f[j],
                    "soft": value,
                }[rule]
            )
        result.append([value / sum(p) for value in p])
    return result


def _reference_mass(q, valid):
    f = [0.0] * len(q[0])
    for values, counts in zip(q, valid, strict=True):
        for j, value in enumerate(values):
            f[j] += value if counts else 0.0
    return f


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", SIZES)
def test_assignment_equals_the_textbook_formula(size, alpha):
    """Invariant 2: the head is the formula."""
    z, mu = embeddings(size)
    log_q = log_soft_assignment(z, mu, alpha)
    assert log_q.shape == (5, 4, *size)
    equals(log_q.exp(), _reference_assignment(z, mu, alpha))


def test_alpha_one_gives_one_over_one_plus_the_squared_distance():
    """Invariant 2: alpha = 1 is the published case."""
    z, mu = embeddings(())
    u = 1 / (1 + torch.cdist(z, mu) ** 2)
    torch.testing.assert_close(log_soft_assignment(z, mu).exp(), u / u.sum(1, keepdim=True))


def test_alpha_may_be_a_tensor():
    z, mu = embeddings(())
    expected = log_soft_assignment(z, mu, 2.0)
    torch.testing.assert_close(log_soft_assignment(z, mu, torch.tensor(2.0)), expected)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", SIZES)
def test_gradients_equal_their_closed_form(size, alpha):
    """Invariant 2: gradients are those of the paper."""
    z, mu = (x.requires_grad_() for x in embeddings(size))
    p = assignments(size).exp()
    log_q = log_soft_assignment(z, mu, alpha)
    (p * (p.log() - log_q)).sum().backward()

    point = z.detach().movedim(1, -1).reshape(-1, 1, z.shape[1])
    between = point - mu.detach()
    w = 1 / (1 + between.square().sum(-1) / alpha)
    q = log_q.detach().exp().movedim(1, -1).reshape(w.shape)
    pull = (alpha + 1) / alpha * (w * (p.movedim(1, -1).reshape(w.shape) - q))[..., None] * between
    found = z.grad.movedim(1, -1).reshape(-1, z.shape[1])
    torch.testing.assert_close(found, pull.sum(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(mu.grad, -pull.sum(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("clusters", "apart"), [(3, 14.04), (4, 17.20), (10, 29.83)])
def test_confidence_ceiling_at_a_center(clusters, apart):
    """Invariant 2: q at a center is as high as the distances allow."""
    needed = math.sqrt(99 * (clusters - 1) - 1)
    assert needed == pytest.approx(apart, abs=0.005)
    mu = torch.eye(clusters, dtype=torch.float64) * needed / math.sqrt(2)  # all centers `needed` apart
    q = log_soft_assignment(mu, mu).exp()
    torch.testing.assert_close(q.diagonal(), torch.full((clusters,), 0.99, dtype=torch.float64))


def test_far_away_all_clusters_are_alike():
    _, mu = embeddings(())
    q = log_soft_assignment(torch.full((1, 3), 1e9, dtype=torch.float64), mu).exp()
    torch.testing.assert_close(q, torch.full((1, 4), 0.25, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_assignment_is_invariant_to_joint_translation_and_rotation(size):
    """Invariant 1: only distances to the centers count."""
    z, mu = embeddings(size)
    expected = log_soft_assignment(z, mu)
    shift = torch.tensor([3.0, -7.0, 11.0], dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=_generator(4), dtype=torch.float64)).Q
    moved = log_soft_assignment(z + shift.view(1, 3, *[1] * len(size)), mu + shift)
    turned = log_soft_assignment(torch.einsum("bd...,de->be...", z, turn), mu @ turn)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
@pytest.mark.parametrize("size", SIZES)
def test_rows_of_q_and_p_sum_to_one_for_embeddings_up_to_ten_thousand(size, dtype, autocast):
    """Invariant 1: finite rows that sum to 1, in every precision and under autocast."""
    z, mu = embeddings(size)
    far = (z / z.abs().amax() * 1e4 * torch.logspace(-4, 0, 5).view(-1, *[1] * (len(size) + 1))).to(dtype)
    far.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        log_q = log_soft_assignment(far, mu.to(dtype).float())
        targets = [log_target_distribution(log_q, rule, IN_MASK_OF_FOUR, IN_MASK_OF_FOUR) for rule in RULES]
    assert log_q.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
    for log_p in (log_q, *targets):
        assert torch.isfinite(log_p).all()
        torch.testing.assert_close(
            log_p.exp().sum(1).double(), torch.ones(5, *size).double(), rtol=0, atol=1e-6
        )
    log_q[:, 0].sum().backward()
    assert torch.isfinite(far.grad).all()


IN_MASK_OF_FOUR = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def test_assignment_keeps_float64_and_raises_halves_to_float32():
    z, mu = embeddings(())
    assert log_soft_assignment(z, mu).dtype == torch.float64
    for dtype in HALVES:
        q = log_soft_assignment(z.to(dtype), mu.to(dtype))
        torch.testing.assert_close(q, log_soft_assignment(z.to(dtype).float(), mu.to(dtype).float()))


def test_autocast_lowers_no_step():
    z, mu = embeddings((2, 2, 2), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = log_soft_assignment(z, mu)
    assert torch.equal(inside, log_soft_assignment(z, mu))


class Largest(TorchDispatchMode):
    """Remember the most elements that any tensor has."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_tensor_holds_clusters_times_features():
    z, mu = embeddings((4, 4, 4), batch=2, features=16, clusters=8, dtype=torch.float32)
    with Largest() as seen:
        log_soft_assignment(z.requires_grad_(), mu.requires_grad_()).sum().backward()
    assert seen.elements == z.numel()


@pytest.mark.parametrize("with_evidence", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", SIZES)
def test_target_equals_the_naive_loop(size, rule, with_evidence):
    log_q, log_evidence = assignments(size), assignments(size, seed=3)
    f = torch.tensor([3.0, 1.0, 4.0, 1.5], dtype=torch.float64)
    pi = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    log_p = log_target_distribution(log_q, rule, f, pi, log_evidence if with_evidence else None)
    evidence = rows(log_evidence.exp()) if with_evidence else [[1.0] * 4] * len(rows(log_q))
    equals(log_p.exp(), _reference_target(rows(log_q.exp()), rule, f.tolist(), pi.tolist(), evidence))


def test_dec_of_uniform_assignments_and_masses_is_uniform():
    """Invariant 3."""
    log_q = torch.full((2, 3, 2, 2, 2), 1 / 3, dtype=torch.float64).log()
    p = log_target_distribution(log_q, "dec", torch.full((3,), 7.0)).exp()
    torch.testing.assert_close(p, torch.full_like(p, 1 / 3))


def test_dec_squares_the_odds_and_weighs_them_with_the_masses():
    """Invariant 3."""
    log_q = assignments((), batch=20, clusters=2)
    f = torch.tensor([0.3, 0.7], dtype=torch.float64)
    p = log_target_distribution(log_q, "dec", f).exp()
    q = log_q.exp()
    torch.testing.assert_close(p[:, 0] / p[:, 1], (q[:, 0] / q[:, 1]) ** 2 * (f[1] / f[0]))


@pytest.mark.parametrize(
    ("masses", "least"),
    [
        ((0.47, 0.22), 0.5938),  # gray matter against fluid in the mask
        ((0.47, 0.31), 0.5518),  # gray against white matter in the mask
        ((0.858, 0.086), 0.7595),  # air and fluid against gray matter, whole volume
        ((0.858, 0.057), 0.7951),  # air and fluid against white matter, whole volume
        ((13_861, 4_659), 0.6330),  # digits 1 against 9 of SVHN
    ],
)
def test_dec_flips_the_likeliest_class_at_the_root_of_the_mass_ratio(masses, least):
    """Invariant 3."""
    f = torch.tensor(masses, dtype=torch.float64)
    root = (f[0] / f[1]).sqrt()
    edge = float(root / (1 + root))
    assert edge == pytest.approx(least, abs=5e-5)
    q = torch.tensor([[edge + 1e-9, 1 - edge - 1e-9], [edge - 1e-9, 1 - edge + 1e-9]], dtype=torch.float64)
    assert log_target_distribution(q.log(), "dec", f).argmax(1).tolist() == [0, 1]


def test_dec_repeated_with_fixed_masses_ends_at_the_mass_ratio():
    f = IN_MASK[[1, 0]]
    limit = float(f[0] / f.sum())
    q = torch.tensor(
        [[limit + 1e-3, 1 - limit - 1e-3], [limit - 1e-3, 1 - limit + 1e-3]], dtype=torch.float64
    )
    log_q = q.log()
    for _ in range(20):
        log_q = log_target_distribution(log_q, "dec", f)
    torch.testing.assert_close(log_q.exp(), torch.eye(2, dtype=torch.float64))
    assert limit == pytest.approx(0.68, abs=0.005)


def test_prior_proportional_to_the_masses_equals_sharpen():
    """Invariant 3."""
    log_q = assignments((2, 3, 2), clusters=3)
    prior = log_target_distribution(log_q, "prior", 1_000 * IN_MASK, IN_MASK)
    torch.testing.assert_close(prior, log_target_distribution(log_q, "sharpen"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", ["dec", "prior"])
def test_scaling_the_masses_changes_nothing(rule):
    """Invariant 3."""
    log_q = assignments((2, 3, 2), clusters=3)
    once = log_target_distribution(log_q, rule, IN_MASK, IN_MASK.flip(0))
    scaled = log_target_distribution(log_q, rule, 1e6 * IN_MASK, 1e-3 * IN_MASK.flip(0))
    torch.testing.assert_close(scaled, once, rtol=0, atol=1e-12)


def test_no_gradient_reaches_the_target_or_the_masses():
    """Invariant 2: p and f are constants."""
    log_q = assignments((), clusters=3).requires_grad_()
    f = cluster_mass(log_q.exp(), torch.ones(5, dtype=torch.bool))
    assert not f.requires_grad
    assert not any(log_target_distribution(log_q, rule, f, IN_MASK).requires_grad for rule in RULES)


@pytest.mark.parametrize("dtype", HALVES)
def test_targets_from_stored_half_precision_are_float32(dtype):
    log_q = assignments((3, 2, 4), clusters=3).to(dtype)
    for rule in RULES:
        log_p = log_target_distribution(log_q, rule, IN_MASK, IN_MASK)
        expected = log_target_distribution(log_q.double(), rule, IN_MASK, IN_MASK)
        assert log_p.dtype == torch.float32
        torch.testing.assert_close(log_p.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_targets_of_certain_assignments_stay_certain(rule):
    log_q = torch.tensor([[0.0, -math.inf, -math.inf], [-math.inf, -200.0, -400.0]])
    log_p = log_target_distribution(log_q, rule, IN_MASK, IN_MASK)
    assert torch.equal(log_p.exp(), torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    assert not log_p.isnan().any()


@pytest.mark.parametrize("rule", ["dec", "prior"])
@pytest.mark.parametrize("masses", [[0.0, 3.0, 5.0], [0.0, 0.0, 0.0]])
def test_targets_stay_finite_with_dead_clusters_and_without_any_mass(rule, masses):
    """Invariant 8: a dead class gets no infinite targets."""
    log_p = log_target_distribution(assignments((2, 2, 2), clusters=3), rule, torch.tensor(masses), IN_MASK)
    assert torch.isfinite(log_p).all()
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(5, 2, 2, 2, dtype=torch.float64))


def test_without_any_mass_dec_equals_sharpen():
    log_q = assignments((), clusters=3)
    dec = log_target_distribution(log_q, "dec", torch.zeros(3))
    torch.testing.assert_close(dec, log_target_distribution(log_q, "sharpen"))


@pytest.mark.parametrize(
    ("rule", "given", "message"),
    [
        ("hard", {}, r"found 'hard'.*'dec', 'sharpen', 'prior', 'soft'"),
        ("dec", {}, r"'dec' needs the frequencies of the clusters\.$"),
        ("prior", {"prior": IN_MASK}, r"'prior' needs the frequencies of the clusters and the prior\.$"),
        (
            "prior",
            {"frequencies": IN_MASK},
            r"'prior' needs the frequencies of the clusters and the prior\.$",
        ),
    ],
)
def test_a_rule_that_is_unknown_or_lacks_what_it_needs_is_refused(rule, given, message):
    with pytest.raises(ValueError, match=message):
        log_target_distribution(assignments((), clusters=3), rule, **given)


def test_without_evidence_the_assignment_is_itself():
    log_q = assignments(())
    assert fused_assignment(log_q, None) is log_q


@pytest.mark.parametrize("size", SIZES)
def test_mass_equals_the_naive_loop(size):
    q = assignments(size).exp()
    valid = torch.rand(5, *size, generator=_generator()) < 0.6
    f = cluster_mass(q, valid)
    assert f.dtype == torch.float64
    assert f.tolist() == pytest.approx(_reference_mass(rows(q), valid.flatten().tolist()), abs=1e-12)


def test_mass_in_parts_equals_the_mass_of_the_whole():
    """Invariant 4: batches, tiles in any order, ranks: each element once, and the sums join."""
    q = assignments((4, 4, 4), batch=4).exp().float()
    valid = torch.rand(4, 4, 4, 4, generator=_generator()) < 0.6
    whole = cluster_mass(q, valid)
    batches = sum(cluster_mass(q[b : b + 1], valid[b : b + 1]) for b in range(4))
    corners = list(itertools.product((0, 2), repeat=3))[::-1]
    tiles = [
        cluster_mass(q[:, :, i : i + 2, j : j + 2, k : k + 2], valid[:, i : i + 2, j : j + 2, k : k + 2])
        for i, j, k in corners
    ]
    ranks = torch.stack([sum(tiles[rank::2]) for rank in range(2)]).sum(0)
    for parts in (batches, sum(tiles), ranks):
        torch.testing.assert_close(parts, whole, rtol=1e-14, atol=0)


def test_mass_is_summed_in_float64():
    q = torch.full((1, 2, 100, 100, 100), 0.1, dtype=torch.float16)
    f = cluster_mass(q, torch.ones(1, 100, 100, 100, dtype=torch.bool))
    assert f.tolist() == pytest.approx([1e6 * float(q[0, 0, 0, 0, 0])] * 2, rel=1e-12)


@pytest.mark.parametrize("outside", [7.0, math.nan, math.inf])
def test_what_stands_outside_the_mask_has_no_mass(outside):
    """Invariant 4: f is that of the mask."""
    q = assignments((3, 2, 4)).exp()
    valid = torch.rand(5, 3, 2, 4, generator=_generator()) < 0.6
    changed = torch.where(valid.unsqueeze(1), q, outside)
    assert torch.equal(cluster_mass(changed, valid), cluster_mass(q, valid))


def test_distances_of_centers_equal_the_naive_loop():
    mu = torch.randn(4, 3, generator=_generator(), requires_grad=True)
    found = center_distances(mu)
    pairs = itertools.combinations(mu.tolist(), 2)
    assert found.tolist() == pytest.approx([math.dist(one, other) for one, other in pairs], abs=1e-6)
    assert found.dtype == torch.float64
    assert not found.requires_grad


def test_shares_sum_to_one_and_have_a_floor():
    shares = log_shares(torch.tensor([0.0, 1.0, 3.0])).exp()
    assert shares.tolist() == pytest.approx([DEAD_SHARE, 0.25, 0.75])


def test_dead_clusters_are_named():
    """Invariant 8."""
    assert dead_clusters(torch.tensor([0.0, 5.0, 5e-7])) == [0, 2]
    assert dead_clusters(torch.tensor([1.0, 5.0, 2.0])) == []
    assert dead_clusters(torch.zeros(3)) == [0, 1, 2]


@pytest.mark.parametrize("size", SIZES)
def test_class_means_equal_the_naive_loop(size):
    z, _ = embeddings(size)
    label = torch.randint(-1, 3, (5, *size), generator=_generator())
    label.view(-1)[0] = 254
    sums, counts = class_means(z, label, 4)
    expected = [[0.0] * 3 for _ in range(4)]
    members = [0] * 4
    for point, number in zip(rows(z), label.flatten().tolist(), strict=True):
        if 0 <= number < 4:
            members[number] += 1
            expected[number] = [a + b for a, b in zip(expected[number], point, strict=True)]
    assert counts.tolist() == members
    assert members[3] == 0
    for found, wanted in zip(sums.tolist(), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-12)


def test_class_means_of_parts_add_up_and_carry_no_gradient():
    z, _ = embeddings((3, 2, 4), dtype=torch.float32)
    label = torch.randint(0, 4, (5, 3, 2, 4), generator=_generator())
    sums, counts = class_means(z.requires_grad_(), label, 4)
    parts = [class_means(z[b : b + 1], label[b : b + 1], 4) for b in range(5)]
    torch.testing.assert_close(sum(part[0] for part in parts), sums)
    assert torch.equal(sum(part[1] for part in parts), counts)
    assert not sums.requires_grad
    assert sums.dtype == counts.dtype == torch.float64
