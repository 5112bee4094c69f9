import math
from itertools import product

import pytest
import torch

from medssl.functional.uncertainty import jensen_shannon, mean_where, near_border, predictive_entropy

SIZES = [(), (3, 2, 4)]


@pytest.fixture(params=SIZES, ids=["images", "voxels"])
def pair(request):
    generator = torch.Generator().manual_seed(7)
    shape = (3, 4, *request.param)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).softmax(1) for _ in range(2)]


@pytest.fixture
def blocks():
    """Labels of two samples on an irregular mask."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 2, (2, 2, 2, 3), generator=generator)
    labels = labels.repeat_interleave(3, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return labels, torch.rand(labels.shape, generator=generator) < 0.8


def rows(p):
    return p.movedim(1, -1).reshape(-1, p.shape[1]).tolist()


def _reference_entropy(row):
    return -sum(x * math.log(x) for x in row if x > 0)


def _reference_jensen_shannon(row_p, row_q):
    middle = [(a + b) / 2 for a, b in zip(row_p, row_q, strict=True)]
    parts = 0.0
    for row in (row_p, row_q):
        parts += sum(a * math.log(a / m) for a, m in zip(row, middle, strict=True) if a > 0)
    return parts / 2


def _reference_near_border(labels, inside, reach):
    """Walk from each voxel; two voxels are linked if they differ by one step along one axis."""
    shape = labels.shape
    places = [place for place in product(*map(range, shape)) if inside[place]]
    linked = {
        place: [
            other
            for other in places
            if other[0] == place[0] and sum(abs(a - b) for a, b in zip(place, other, strict=True)) == 1
        ]
        for place in places
    }
    near = {place for place in places if any(labels[other] != labels[place] for other in linked[place])}
    for _ in range(reach - 1):
        near |= {other for place in near for other in linked[place]}
    found = torch.zeros(shape, dtype=torch.bool)
    for place in near:
        found[place] = True
    return found


def test_entropy_equals_the_naive_loop(pair):
    expected = [_reference_entropy(row) for row in rows(pair[0])]
    found = predictive_entropy(pair[0])
    assert found.shape == (3, *pair[0].shape[2:])
    torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float64))


def test_entropy_of_a_sure_and_of_an_undecided_answer():
    p = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    assert predictive_entropy(p).tolist() == pytest.approx([0.0, math.log(4)])


def test_half_precision_is_summed_in_float32():
    assert predictive_entropy(torch.full((1, 4), 0.25, dtype=torch.float16)).dtype == torch.float32


def test_jensen_shannon_equals_the_naive_loop(pair):
    expected = [_reference_jensen_shannon(*both) for both in zip(*map(rows, pair), strict=True)]
    torch.testing.assert_close(
        jensen_shannon(*pair).flatten(), torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=1e-9
    )


def test_jensen_shannon_is_symmetric_and_bounded(pair):
    torch.testing.assert_close(jensen_shannon(*pair), jensen_shannon(*reversed(pair)))
    sure = torch.eye(2, dtype=torch.float64)
    assert jensen_shannon(sure, sure.flip(0)).tolist() == pytest.approx([math.log(2)] * 2)


def test_two_voters_that_are_equally_unsure_do_not_disagree():
    noise = torch.full((1, 3, 5), 1 / 3)
    assert predictive_entropy(noise).min() > 1
    assert jensen_shannon(noise, noise).abs().max() < 1e-6


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_near_border_equals_the_naive_walk(blocks, reach):
    assert torch.equal(near_border(*blocks, reach), _reference_near_border(*blocks, reach))


def test_the_rim_of_the_mask_is_no_border():
    inside = torch.zeros(1, 6, 6, 6, dtype=torch.bool)
    inside[:, 1:5, 1:5, 1:5] = True
    assert not near_border(inside.long(), inside).any()


def test_a_border_has_a_voxel_on_each_side():
    labels = torch.tensor([[0, 0, 0, 1, 1, 1]])
    everywhere = torch.ones_like(labels, dtype=torch.bool)
    assert near_border(labels, everywhere)[0].nonzero().flatten().tolist() == [2, 3]
    assert near_border(labels, everywhere, 2)[0].nonzero().flatten().tolist() == [1, 2, 3, 4]


def test_near_border_leaves_its_arguments_alone(blocks):
    labels, inside = blocks[0].clone(), blocks[1].clone()
    near_border(labels, inside, 2)
    assert torch.equal(labels, blocks[0])
    assert torch.equal(inside, blocks[1])


def test_a_reach_below_one_is_refused(blocks):
    with pytest.raises(ValueError, match="reach is 0"):
        near_border(*blocks, 0)


def test_mean_where_looks_at_no_other_place():
    values = torch.tensor([[1.0, 3.0, float("nan")], [5.0, 6.0, 7.0]])
    where = torch.tensor([[True, True, False], [False, False, False]])
    assert mean_where(values, where).tolist() == [2.0, 0.0]
