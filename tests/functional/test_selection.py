import math

import pytest
import torch

from medssl.functional.selection import (
    descriptor_distance,
    greedy_coverage,
    rank_share,
    similarity,
    standardized,
)


@pytest.fixture
def features():
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def _reference_rank_share(values):
    return [sum((x < y) + (x == y) / 2 for x in values) / len(values) for y in values]


def _reference_standardized(rows):
    columns = []
    for column in zip(*rows, strict=True):
        mean = sum(column) / len(column)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in column) / len(column))
        columns.append([(x - mean) / deviation if deviation else 0.0 for x in column])
    return [list(row) for row in zip(*columns, strict=True)]


def _reference_distance(rows, groups):
    def between(a, b):
        total, start = 0.0, 0
        for size in groups:
            total += sum((a[f] - b[f]) ** 2 for f in range(start, start + size)) / size
            start += size
        return math.sqrt(total)

    return [[between(a, b) for b in rows] for a in rows]


def _reference_similarity(distance):
    pairs = sorted(distance[i][j] for i in range(len(distance)) for j in range(i + 1, len(distance)))
    half = len(pairs) // 2
    sigma = pairs[half] if len(pairs) % 2 else (pairs[half - 1] + pairs[half]) / 2
    return [[math.exp(-(d**2) / (2 * sigma**2)) for d in row] for row in distance]


def _reference_gain(similar, weight, known, candidate):
    """Covered weight with the candidate, less that without, as a share of all weight of the unlabeled."""
    unlabeled = [j for j in range(len(weight)) if weight[j] > 0]

    def covered(chosen):
        return sum(weight[j] * max((similar[i][j] for i in chosen), default=0.0) for j in unlabeled)

    return (covered([*known, candidate]) - covered(known)) / sum(weight[j] for j in unlabeled)


def test_rank_share_equals_the_naive_loop():
    values = [3.0, -1.0, 3.0, 8.0, 0.5, 8.0, 8.0]
    assert rank_share(torch.tensor(values)).tolist() == pytest.approx(_reference_rank_share(values))


def test_one_extreme_value_weighs_no_more_than_the_largest():
    assert torch.equal(rank_share(torch.tensor([1.0, 2, 3])), rank_share(torch.tensor([1.0, 2, 3e9])))


def test_standardized_equals_the_naive_loop_and_a_constant_feature_says_nothing(features):
    features[:, 3] = 0.1
    expected = _reference_standardized(features.tolist())
    expected = [[0.0 if f == 3 else x for f, x in enumerate(row)] for row in expected]
    torch.testing.assert_close(standardized(features), torch.tensor(expected, dtype=torch.float64))


def test_distance_equals_the_naive_loop(features):
    expected = _reference_distance(features.tolist(), (3, 2))
    torch.testing.assert_close(
        descriptor_distance(features, (3, 2)), torch.tensor(expected, dtype=torch.float64)
    )


def test_a_group_counts_once_however_many_features_it_holds(features):
    twice = torch.cat([features[:, :1], features[:, 1:], features[:, 1:]], dim=1)
    torch.testing.assert_close(descriptor_distance(features, (1, 4)), descriptor_distance(twice, (1, 8)))


def test_groups_that_do_not_add_up_are_refused(features):
    with pytest.raises(ValueError, match="hold 4 features; found 5"):
        descriptor_distance(features, (2, 2))


@pytest.mark.parametrize("count", [6, 7])
def test_similarity_equals_the_naive_loop(features, count):
    distance = descriptor_distance(features[:count], (5,))
    expected = _reference_similarity(distance.tolist())
    torch.testing.assert_close(similarity(distance), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 3])
def test_equal_samples_are_wholly_similar(count):
    assert torch.equal(similarity(torch.zeros(count, count)), torch.ones(count, count))


@pytest.mark.parametrize("known", [[], [0], [0, 4]])
def test_greedy_coverage_equals_the_naive_search(features, known):
    similar = similarity(descriptor_distance(features, (5,)))
    labeled = torch.zeros(7, dtype=torch.bool)
    labeled[known] = True
    weight = torch.rand(7, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.1
    order, gains = greedy_coverage(similar, weight, labeled)
    pool = [0.0 if labeled[j] else float(weight[j]) for j in range(7)]
    taken = list(known)
    for place, gain in zip(order, gains, strict=True):
        rest = [j for j in range(7) if j not in taken]
        naive = {j: _reference_gain(similar.tolist(), pool, taken, j) for j in rest}
        assert place == max(naive, key=naive.get)
        assert gain == pytest.approx(naive[place])
        taken.append(place)
    assert sorted(order + known) == list(range(7))
    assert gains == sorted(gains, reverse=True)


def on_a_line(*places):
    points = torch.tensor(places, dtype=torch.float64)
    return torch.exp(-(points[:, None] - points[None]).square() / 2)


def test_the_second_of_two_twins_waits():
    similar = on_a_line(0.0, 0.01, 5.0, 10.0)
    weight = torch.tensor([1.0, 0.99, 0.4, 0.3], dtype=torch.float64)
    order, gains = greedy_coverage(similar, weight, torch.zeros(4, dtype=torch.bool))
    assert order == [0, 2, 3, 1]
    assert gains[-1] < 0.001


def test_a_scan_like_a_labeled_one_waits_however_uncertain():
    similar = on_a_line(0.0, 0.05, 5.0)
    weight = torch.tensor([0.0, 1.0, 0.1], dtype=torch.float64)
    assert greedy_coverage(similar, weight, torch.tensor([True, False, False]))[0] == [2, 1]


def test_an_outlier_comes_after_what_many_are_like():
    similar = on_a_line(0.0, 0.5, 1.0, 1.5, 30.0)
    weight = torch.tensor([0.5, 0.5, 0.5, 0.5, 1.0], dtype=torch.float64)
    order, _ = greedy_coverage(similar, weight, torch.zeros(5, dtype=torch.bool))
    assert order[0] in (1, 2)
    assert order[1] == 4


def test_equal_gains_go_by_weight_then_by_number():
    similar = torch.ones(4, 4, dtype=torch.float64)
    weight = torch.tensor([0.2, 0.5, 0.5, 0.9], dtype=torch.float64)
    labeled = torch.tensor([False, False, False, True])
    assert greedy_coverage(similar, weight, labeled) == ([1, 2, 0], [0.0, 0.0, 0.0])
