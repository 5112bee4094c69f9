import math

import pytest
import torch

from medssl.functional.energy import energy, unlike


def test_energy_equals_the_naive_loop():
    scores = 5 * torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = [[-math.log(sum(math.exp(f) for f in row)) for row in rows] for rows in scores.tolist()]
    torch.testing.assert_close(energy(scores), torch.tensor(expected, dtype=torch.float64))


def test_energy_sees_what_probabilities_do_not():
    scores = torch.tensor([[9.0, 1.0], [1009.0, 1001.0]])
    assert torch.equal(scores.softmax(1)[0], scores.softmax(1)[1])
    assert energy(scores).tolist() == pytest.approx([-9.0003354, -1009.0003354])
    assert energy(scores.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("percentile", [0, 33, 50, 95, 100])
def test_unlike_is_above_the_percentile_of_the_reference(percentile):
    generator = torch.Generator().manual_seed(1)
    energies, reference = torch.randn(40, generator=generator), torch.randn(11, generator=generator)
    place = percentile / 100 * 10
    ordered = sorted(reference.tolist())
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    limit = low + (place - math.floor(place)) * (high - low)
    found = unlike(energies, reference, percentile).tolist()
    assert found == [value > limit for value in energies.tolist()]
    assert any(found)


def test_reference_images_are_not_unlike_themselves():
    reference = torch.tensor([-3.0, -1.0, -2.0])
    assert not unlike(reference, reference, 100).any()
    assert unlike(reference, reference, 0).tolist() == [False, True, True]
