import pytest
import torch
from ignite.engine import Engine
from monai.engines import IterationEvents

from medssl.engines import GradientClipping, linear_decay


def test_learning_rate_falls_on_a_line_to_zero():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    schedule = linear_decay(optimizer, steps=4)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2, 0, 0])


@pytest.mark.parametrize(("size", "expected"), [(10.0, 2.0), (1.0, 1.0)])
def test_only_a_long_gradient_is_shortened(size, expected):
    network = torch.nn.Linear(4, 1, bias=False)
    network.weight.grad = torch.full((1, 4), size / 2)
    engine = Engine(lambda *_: None)
    engine.register_events(*IterationEvents)
    GradientClipping(network, max_norm=2.0).attach(engine)
    engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
    assert network.weight.grad.norm().item() == pytest.approx(expected, rel=1e-4)
