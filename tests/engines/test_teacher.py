import copy

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from medssl.engines import Teacher


def _network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv3d(1, 3, 1), nn.BatchNorm3d(3), nn.Dropout(0.5), nn.Conv3d(3, 2, 1))


def _student_engine(network, after=None):
    optimizer = torch.optim.SGD(network.parameters(), 0.1)

    def step(engine, image):
        network.train()
        optimizer.zero_grad()
        network(image).square().mean().backward()
        optimizer.step()
        if after is not None:
            after()

    return Engine(step)


def _images(count):
    return list(torch.randn(count, 2, 1, 2, 2, 2, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_the_average_equals_the_naive_loop(decay):
    network, students = _network(), []
    teacher = Teacher(network, decay)
    average = copy.deepcopy(network.state_dict())
    engine = _student_engine(network, lambda: students.append(copy.deepcopy(network.state_dict())))
    teacher.attach(engine)
    engine.run(_images(12), max_epochs=2)
    assert len(students) == 24
    for step, student in enumerate(students, start=1):
        d = min(decay, (1 + step) / (10 + step))
        for name, value in student.items():
            if value.is_floating_point():
                average[name] = d * average[name] + (1 - d) * value
            else:
                average[name] = value
    for name, value in teacher.state_dict().items():
        assert torch.allclose(value, average[name], atol=1e-6), name
    assert teacher.network[1].num_batches_tracked.item() == 24
    assert not torch.equal(teacher.network[1].running_mean, torch.zeros(3))
    assert not torch.equal(teacher.network[1].running_mean, network[1].running_mean)


def test_it_starts_from_the_student_as_it_is_when_training_starts():
    """Weights may be loaded, and the seed set, after the teacher was made."""
    network = _network(0)
    teacher = Teacher(network)
    network.load_state_dict(_network(1).state_dict())
    engine = Engine(lambda *_: None)
    teacher.attach(engine)
    engine.run([0], max_epochs=1)
    for name, value in teacher.state_dict().items():
        assert torch.allclose(value, network.state_dict()[name], atol=1e-7)


def test_a_resumed_run_keeps_the_average():
    network, other = _network(0), _network(1)
    teacher = Teacher(network)
    teacher.load_state_dict(other.state_dict())
    engine = Engine(lambda *_: None)
    teacher.attach(engine)
    engine.load_state_dict({"iteration": 100_000, "max_epochs": 100_001, "epoch_length": 1})
    engine.run([0])
    d = 0.99
    expected = d * other[0].weight + (1 - d) * network[0].weight
    assert torch.allclose(teacher.network[0].weight, expected, atol=1e-6)


def test_it_predicts_in_evaluation_mode_without_a_gradient():
    network = _network().train()
    teacher = Teacher(network)
    engine = _student_engine(network)
    teacher.attach(engine)
    engine.run(_images(2), max_epochs=1)
    image = _images(1)[0].requires_grad_()
    before = copy.deepcopy(teacher.state_dict())
    scores = teacher(image)
    assert not scores.requires_grad
    assert torch.equal(teacher(image), scores)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(module.training for module in teacher.network.modules())
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_it_shares_no_memory_with_the_student():
    network = _network()
    teacher = Teacher(network)
    addresses = {value.data_ptr() for value in network.state_dict().values()}
    assert not addresses & {value.data_ptr() for value in teacher.state_dict().values()}


def test_state_goes_there_and_back(tmp_path):
    teacher, other = Teacher(_network(0)), Teacher(_network(1))
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    other.load_state_dict(torch.load(tmp_path / "teacher.pt", weights_only=True))
    image = _images(1)[0]
    assert torch.equal(other(image), teacher(image))


def test_a_wrapped_network_is_unwrapped():
    network = _network()
    teacher = Teacher(nn.DataParallel(network))
    assert teacher.student is network
    assert list(teacher.state_dict()) == list(network.state_dict())


def test_a_run_lists_the_weights_once(monkeypatch):
    network, listed = _network(), []
    original = nn.Module.state_dict
    teacher = Teacher(network)
    engine = _student_engine(network)
    teacher.attach(engine)
    engine.run(_images(1), max_epochs=1)
    monkeypatch.setattr(
        nn.Sequential, "state_dict", lambda self, *a, **k: listed.append(self) or original(self, *a, **k)
    )
    engine.run(_images(4), max_epochs=2)
    assert listed.count(network) == listed.count(teacher.network) == 1


def test_a_further_run_follows_the_tensors_that_the_student_has_by_then():
    """Moving a network to another type or device gives it other tensors."""
    network, engine = _network(), Engine(lambda *_: None)
    teacher = Teacher(network, decay=0.5)
    teacher.attach(engine)
    engine.run([0], max_epochs=1)
    before = teacher.network[1].running_mean.clone()
    network[1].running_mean = torch.full((3,), 8.0)
    engine.run([0], max_epochs=2)
    d = (1 + 2) / (10 + 2)
    assert torch.allclose(teacher.network[1].running_mean, d * before + (1 - d) * 8)
