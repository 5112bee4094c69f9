import math

import pytest
import torch
from ignite.engine import Engine
from monai.engines import IterationEvents

from medssl.engines import GradientClipping, linear_decay, one_cycle
from medssl.errors import ConfigError


def test_learning_rate_falls_on_a_line_to_zero():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    schedule = linear_decay(optimizer, steps=4)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2, 0, 0])


@pytest.mark.parametrize("ends", [[], [10, 15]])
def test_one_cycle_rises_and_falls_along_cosines(ends):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    schedule = one_cycle(optimizer, steps=10, ends=ends, rising=0.4, begin=0.25)
    rates = []
    for _ in range(16 if ends else 11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.2)
    assert rates[2] == pytest.approx(0.8 * (0.25 + 0.75 / 2)), "half of the rise"
    assert rates[4] == pytest.approx(0.8) == pytest.approx(max(rates))
    assert rates[7] == pytest.approx(0.4), "half of the fall"
    assert rates[9] == pytest.approx(0.4 * (1 + math.cos(math.pi * 5 / 6)))
    if ends:
        assert rates[10] == pytest.approx(0.2), "the next stage begins anew"
        assert rates[12] == pytest.approx(0.8)
    assert rates[-1] == pytest.approx(0)


@pytest.mark.parametrize("wrong", [{"rising": 0.0}, {"rising": 1.0}, {"begin": 1.5}])
def test_a_cycle_without_rise_or_fall_is_refused(wrong):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    with pytest.raises(ConfigError, match="shares between 0 and 1"):
        one_cycle(optimizer, 10, **wrong)


@pytest.mark.parametrize(("size", "expected"), [(10.0, 2.0), (1.0, 1.0)])
def test_only_a_long_gradient_is_shortened(size, expected):
    network = torch.nn.Linear(4, 1, bias=False)
    network.weight.grad = torch.full((1, 4), size / 2)
    engine = Engine(lambda *_: None)
    engine.register_events(*IterationEvents)
    GradientClipping(network, max_norm=2.0).attach(engine)
    engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
    assert network.weight.grad.norm().item() == pytest.approx(expected, rel=1e-4)


def test_each_stage_has_a_fall_of_its_own():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    schedule = linear_decay(optimizer, steps=8, ends=[4, 6, 8])
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.8, 0.4, 0.8, 0.4, 0, 0])


@pytest.mark.parametrize("ends", [[], [8], [3, 8]])
def test_a_resumed_schedule_goes_on(ends):
    def rates(first, last, state=None):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
        schedule = linear_decay(optimizer, steps=8, ends=ends)
        if state is not None:
            optimizer.load_state_dict(state[0])
            schedule.load_state_dict(state[1])
        found = []
        for _ in range(first, last):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found, (optimizer.state_dict(), schedule.state_dict())

    whole, _ = rates(0, 8)
    begun, state = rates(0, 5)
    assert begun + rates(5, 8, state)[0] == whole
