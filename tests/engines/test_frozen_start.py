"""A pretrained backbone waits until the head has learned something."""

import torch
from ignite.engine import Engine

from medssl.engines.frozen_start import FrozenStart
from medssl.networks.compact import build_classifier


def run(steps, first=0, total=4):
    """Take steps of plain gradient descent; return what of the backbone changed in each."""
    torch.manual_seed(0)
    network = build_classifier("vgg-small-28", 2, in_channels=1).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    changed = []

    def step(engine, batch):
        before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
        head = network.head.weight.detach().clone()
        network.train()
        optimizer.zero_grad()
        network(torch.rand(4, 1, 28, 28)).square().sum().backward()
        optimizer.step()
        assert not torch.equal(head, network.head.weight)
        after = network.backbone.state_dict()
        changed.append(any(not torch.equal(before[name], after[name]) for name in before))

    engine = Engine(step)
    FrozenStart(network, steps).attach(engine)
    engine.state.iteration = first
    engine.load_state_dict({"iteration": first, "max_epochs": 1, "epoch_length": total})
    engine.run([0] * total)
    return changed, network


def test_the_backbone_is_bit_identical_until_it_is_let_go():
    """D10: neither weights nor batch norm statistics change."""
    changed, network = run(2)
    assert changed == [False, False, True, True]
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_resumed_run_freezes_what_is_left_of_the_first_steps():
    assert run(2, first=1)[0] == [False, True, True]
    assert run(2, first=2)[0] == [True, True]


def test_no_steps_freeze_nothing():
    assert run(0)[0] == [True] * 4
