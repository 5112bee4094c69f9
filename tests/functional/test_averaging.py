import pytest
import torch
from torch import nn

from medssl.functional.averaging import update_average


def _reference_average(values, decay):
    average = values[0]
    for value in values[1:]:
        average = decay * average + (1 - decay) * value
    return average


def test_average_equals_the_naive_loop():
    values = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    average = values[0].clone()
    for value in values[1:]:
        update_average([average], [value], 0.9)
    expected = [[_reference_average(values[:, i, j].tolist(), 0.9) for j in range(2)] for i in range(3)]
    torch.testing.assert_close(average, torch.tensor(expected, dtype=torch.float64))


def test_decay_zero_copies_and_one_keeps():
    old, new = torch.tensor([1.0, 1 / 3]), torch.tensor([7.0, 1e-7])
    average = old.clone()
    update_average([average], [new], 1.0)
    assert torch.equal(average, old)
    update_average([average], [new], 0.0)
    assert torch.equal(average, new)


def test_networks_are_averaged_in_place_and_counters_copied():
    teacher, student = (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in "ts")
    student(torch.randn(4, 2))
    before = [tensor.clone() for tensor in teacher.state_dict().values()]
    update_average(teacher.state_dict().values(), student.state_dict().values(), 0.5)
    for old, mean, new in zip(
        before, teacher.state_dict().values(), student.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mean, (old + new) / 2 if mean.is_floating_point() else new)
    assert teacher[1].num_batches_tracked == 1


def test_parameters_change_without_a_graph():
    average = nn.Parameter(torch.zeros(2))
    update_average([average], [nn.Parameter(torch.ones(2))], 0.75)
    assert average.is_leaf
    assert average.tolist() == [0.25, 0.25]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_average_keeps_its_own_precision(dtype):
    average = torch.zeros(2)
    update_average([average], [torch.ones(2, dtype=dtype)], 0.9)
    torch.testing.assert_close(average, torch.full((2,), 0.1))


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        update_average([torch.zeros(1), torch.zeros(1)], [torch.ones(1)], 0.5)
