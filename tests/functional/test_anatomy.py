import math

import pytest
import torch

from medssl.functional.anatomy import log_anatomical_factor
from medssl.functional.clustering import fused_assignment, log_target_distribution


def _prior(*spatial):
    a = torch.rand(2, 3, *spatial, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.05
    return a / a.sum(1, keepdim=True)


@pytest.mark.parametrize(
    "weight", [0.5, torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)], ids=["one", "each"]
)
@pytest.mark.parametrize("spatial", [(), (3, 2, 4)], ids=["images", "voxels"])
def test_factor_equals_the_naive_loop(weight, spatial):
    a = _prior(*spatial)
    found = log_anatomical_factor(a, weight).movedim(1, -1).reshape(-1, 3)
    weights = torch.as_tensor(weight).expand(3).tolist()
    for row, factor in zip(a.movedim(1, -1).reshape(-1, 3).tolist(), found.tolist(), strict=True):
        for share, w, value in zip(row, weights, factor, strict=True):
            assert value == pytest.approx(w * math.log(share), abs=1e-12)


def test_factor_is_flat_where_nothing_is_known():
    a = _prior(3)
    a[:, :, 1] = 0
    factor = log_anatomical_factor(a, 0.5)
    assert torch.equal(factor[:, :, 1], factor[:, :1, 1].expand(-1, 3))
    log_q = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1)).log_softmax(1).double()
    torch.testing.assert_close(fused_assignment(log_q, factor)[:, :, 1], log_q[:, :, 1])


def test_at_the_rim_the_clusters_share_what_a_background_without_one_leaves():
    """Atlases that see .9 of background in the mask still say which tissue is likelier there."""
    a = torch.tensor([0.9, 0.08, 0.01, 0.01]).double().view(1, 4, 1)
    expected = torch.tensor([0.8, 0.1, 0.1]).double().log() / 2
    torch.testing.assert_close(log_anatomical_factor(a[:, 1:], 0.5).flatten(), expected)


def test_crops_that_were_interpolated_count_by_their_shares():
    a = _prior(3)
    torch.testing.assert_close(log_anatomical_factor(0.8 * a, 1.0), log_anatomical_factor(a, 1.0))


def test_no_class_is_excluded_even_in_half_precision():
    a = torch.tensor([[[1.0], [1e-9], [0.0]]]).half()
    assert torch.isfinite(log_anatomical_factor(a, 1.0)).all()


@pytest.mark.parametrize(
    ("rule", "formula"),
    [
        ("soft", lambda q, a, f, pi: q * a**0.5),
        ("dec", lambda q, a, f, pi: (q * a**0.5) ** 2 / f),
        ("prior", lambda q, a, f, pi: (q * a**0.5) ** 2 * pi / f),
    ],
)
def test_target_rules_take_the_factor(rule, formula):
    a = _prior(4)
    q = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64).softmax(1)
    f, pi = torch.tensor([0.6, 0.3, 0.1]).double(), torch.tensor([0.5, 0.3, 0.2]).double()
    found = log_target_distribution(q.log(), rule, f, pi, log_anatomical_factor(a, 0.5)).exp()
    wanted = formula(q, a, f.view(1, -1, 1), pi.view(1, -1, 1))
    torch.testing.assert_close(found, wanted / wanted.sum(1, keepdim=True))
