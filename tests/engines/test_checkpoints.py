import copy
import math
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from medssl.engines.checkpoints import (
    BestModelSaver,
    RandomState,
    ResumePoint,
    follow_layout,
    save_atomically,
)
from medssl.errors import CheckpointError, InputError


def test_random_numbers_go_on_where_they_were():
    state = RandomState()
    saved = state.state_dict()
    first = torch.rand(5)
    state.load_state_dict(saved)
    assert torch.equal(torch.rand(5), first)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    save_atomically({"x": torch.ones(2)}, path)

    def dies(content, where):
        where.write_bytes(b"half")
        raise OSError

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(OSError):  # noqa: PT011 (whatever the disk says)
        save_atomically({"x": torch.zeros(2)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["x"], torch.ones(2))
    assert [one.name for one in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("fused", [False, True])
def test_moments_take_the_layout_of_their_weights(fused):
    """Saved contiguous, loaded into weights that lie with channels last: the next steps are the same."""

    def steps(layout, state=None, count=3):
        torch.manual_seed(0)
        network = nn.Conv2d(5, 7, 3)
        network.to(memory_format=layout)
        optimizer = torch.optim.AdamW(network.parameters(), 0.1, fused=fused)
        if state is not None:
            network.load_state_dict(state[0])
            optimizer.load_state_dict(copy.deepcopy(state[1]))
            follow_layout(optimizer)
        for number in range(count):
            image = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            network(image).square().mean().backward()
            optimizer.step()
        return network.state_dict(), optimizer.state_dict()

    saved = copy.deepcopy(steps(torch.contiguous_format))
    same, other = (steps(layout, saved)[0] for layout in (torch.contiguous_format, torch.channels_last))
    assert other["weight"].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(same, other)


@pytest.fixture
def trainer():
    engine = Engine(lambda *_: None)
    engine.run([0], max_epochs=1)
    return engine


def test_a_resume_point_holds_the_network_without_the_wrapper_of_several_processes(
    tmp_path, trainer, monkeypatch
):
    """A process alone predicts with it, and goes on from it only where it was alone before."""

    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", Wrapper)
    network, sampler = nn.Linear(2, 3), SimpleNamespace(start_step=0)
    ResumePoint(str(tmp_path / "resume.pt"), {"model": Wrapper(network)}, sampler).save(trainer)
    alone = nn.Linear(2, 3)
    assert ResumePoint(str(tmp_path / "resume.pt"), {"model": alone}, sampler).load(trainer)
    torch.testing.assert_close(alone.state_dict(), network.state_dict())


def test_other_numbers_of_processes_do_not_go_on(tmp_path, trainer, monkeypatch):
    path, network = tmp_path / "resume.pt", nn.Linear(2, 3)
    point = ResumePoint(str(path), {"model": network}, SimpleNamespace(start_step=0))
    point.save(trainer)
    monkeypatch.setattr("medssl.engines.checkpoints._processes", lambda: 2)
    with pytest.raises(CheckpointError, match="written by 1 process; 2 would go on") as refused:
        point.load(trainer)
    assert "one process" in str(refused.value)
    point.save(trainer)
    monkeypatch.undo()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(CheckpointError, match="written by 2 processes; 1 would go on") as refused:
        point.load(trainer)
    assert "nproc_per_node=2" in str(refused.value)
    torch.testing.assert_close(network.state_dict(), before)


@pytest.mark.parametrize("now", [{"a": "1", "b": "3"}, {"a": "1"}, {"a": "1", "b": "2", "c": "4"}])
def test_changed_gone_and_new_files_do_not_go_on(tmp_path, trainer, now):
    network, sampler = nn.Linear(2, 3), SimpleNamespace(start_step=0)

    def point(data):
        return ResumePoint(str(tmp_path / "resume.pt"), {"model": network}, sampler, data=data)

    before = {"a": "1", "b": "2"}
    point(before).save(trainer)
    assert point(before).load(trainer)
    (name,) = (name for name in "abc" if before.get(name) != now.get(name))
    with pytest.raises(InputError, match=rf"The data changed since .*resume.pt was written: {name}\."):
        point(now).load(trainer)
    point(None).save(trainer)  # as versions did that did not know them
    assert point(now).load(trainer)


@pytest.mark.parametrize(
    ("scores", "begin", "kept"),
    [
        ([0.9, 0.5, 0.7, 0.6], 0, (1, 0.9)),
        ([0.9, 0.5, 0.7, 0.6], 1, (3, 0.7)),
        ([0.9, 0.5], 2, (1, 0.9)),
        ([0.9, 0.8, None, None], 2, (4, None)),
        ([0.9, 0.8, math.nan, None], 2, (4, None)),
    ],
)
def test_steps_before_unlabeled_data_come_in_are_forgotten_once_there_are_later_ones(
    scores, begin, kept, tmp_path
):
    """Scores of one step each, None where nothing was validated."""
    network, evaluator = nn.Linear(1, 1), Engine(lambda *_: None)
    card = SimpleNamespace(attached_to=lambda weights: {"model": weights})
    saver = BestModelSaver(str(tmp_path / "model.pt"), network, card, evaluator, begin)
    evaluator.state.key_metric_name = "score"

    def step(engine, number):
        network.weight.data.fill_(number)
        if scores[number - 1] is not None:
            evaluator.state.metrics = {"score": scores[number - 1]}
            saver._validated(evaluator)

    trainer = Engine(step)
    saver.attach(trainer)
    trainer.run(list(range(1, len(scores) + 1)), max_epochs=1)
    assert (saver.step, saver.best) == kept
    assert float(torch.load(tmp_path / "model.pt", weights_only=True)["model"]["weight"]) == kept[0]
    other = BestModelSaver("", network, card, Engine(lambda *_: None))
    other.load_state_dict(saver.state_dict())
    assert other.state_dict() == saver.state_dict()


def test_the_saver_knows_the_classes_that_were_lost_where_it_saved(tmp_path):
    """Not those of the last step; and it keeps both for a run that is resumed."""
    network, evaluator, vanishing = nn.Linear(1, 1), Engine(lambda *_: None), SimpleNamespace(vanished=[])
    card = SimpleNamespace(attached_to=lambda weights: {"model": weights})
    saver = BestModelSaver(str(tmp_path / "model.pt"), network, card, evaluator, vanishing=vanishing)
    saver.attach(Engine(lambda *_: None))
    evaluator.state.key_metric_name = "score"
    for score, lost in ((0.5, ["gray"]), (0.9, []), (0.6, ["white"])):
        evaluator.state.metrics, vanishing.vanished = {"score": score}, lost
        saver._validated(evaluator)
    assert saver.vanished == []
    again = SimpleNamespace(vanished=[])
    other = BestModelSaver("", network, card, Engine(lambda *_: None), vanishing=again)
    other.load_state_dict(saver.state_dict())
    assert (other.vanished, again.vanished) == ([], ["white"])
    other.load_state_dict({"best": 0.7})
    assert (other.step, other.vanished) == (None, []), "of an earlier version"
