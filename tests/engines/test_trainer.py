import logging

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import IterationEvents, SupervisedTrainer
from torch import nn

from medssl.engines import GradientClipping, SemiSupervisedTrainer, VanishingClasses
from medssl.engines.trainer import gradients_are_finite, on_device
from medssl.errors import ConfigError
from medssl.objectives import LabeledOnly, SupervisedLoss

CPU = torch.device("cpu")


def _network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Dropout(0.2), nn.Conv3d(4, 3, 1)
    )


def _batches(count=6):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "image": torch.randn(2, 1, 4, 4, 4, generator=generator),
            "label": torch.randint(0, 3, (2, 1, 4, 4, 4), generator=generator),
        }
        for _ in range(count)
    ]


def _trainer(network, batches, loss=None, trainer=SemiSupervisedTrainer, **options):
    return trainer(
        device=CPU,
        max_epochs=options.pop("max_epochs", 1),
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.AdamW(network.parameters(), 0.01),
        loss_function=LabeledOnly() if loss is None else loss,
        **options,
    )


def _copy(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def _same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_labeled_only_is_monais_trainer_step_for_step():
    weights, losses = [], []
    for kind, loss in ((SemiSupervisedTrainer, LabeledOnly()), (SupervisedTrainer, SupervisedLoss())):
        network = _network()
        trainer = _trainer(network, _batches(), loss, kind, max_epochs=2, decollate=False)
        GradientClipping(network, 0.5).attach(trainer)
        seen = []
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda engine, seen=seen: seen.append(engine.state.output["loss"].item()),
        )
        torch.manual_seed(5)
        trainer.run()
        weights.append(_copy(network))
        losses.append(seen)
    assert len(losses[0]) == 12
    assert losses[0] == losses[1]
    assert _same(*weights)
    assert not _same(weights[0], _network().state_dict())


def test_unlabeled_crops_do_not_reach_labeled_only_training():
    alone, beside = _network(), _network()
    unlabeled = {"strong": torch.full((1, 1, 4, 4, 4), torch.nan)}
    for network, batches in (
        (alone, _batches()),
        (beside, [{**b, "unlabeled": unlabeled} for b in _batches()]),
    ):
        torch.manual_seed(5)
        _trainer(network, batches).run()
    assert _same(alone.state_dict(), beside.state_dict())


def _failing(what, at):
    """Return an objective that fails on one step."""
    steps = []

    def objective(network, batch):
        steps.append(1)
        output = LabeledOnly()(network, batch)
        if len(steps) == at:
            if what == "loss":
                output["loss"] = output["loss"] * torch.nan
            else:  # finite loss, infinite gradient
                zero = (next(network.parameters()).sum() * 0).abs().sqrt()
                output["loss"] = output["loss"] + zero
        return output

    return objective


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(what, clipped, caplog):
    network = _network()
    trainer = _trainer(network, _batches(3), _failing(what, at=2))
    if clipped:
        GradientClipping(network, 1.0).attach(trainer)
    states = [{name: value.clone() for name, value in network.named_parameters()}]
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda: states.append({name: value.clone() for name, value in network.named_parameters()}),
    )
    with caplog.at_level(logging.WARNING):
        trainer.run()
    assert trainer.skipped_steps == 1
    assert "Step 2 skipped" in caplog.text
    assert _same(states[1], states[2])
    assert not _same(states[0], states[1])
    assert not _same(states[2], states[3])
    assert all(torch.isfinite(value).all() for value in states[3].values())


def test_a_resumed_trainer_goes_on_counting_skipped_steps():
    trainer = _trainer(_network(), _batches(3), _failing("loss", at=2))
    trainer.run()
    resumed = _trainer(_network(), _batches(3), _failing("loss", at=2))
    resumed.load_state_dict(trainer.state_dict())
    assert resumed.skipped_steps == 1


@pytest.mark.filterwarnings("error:.*GradScaler")
def test_a_step_is_skipped_where_amp_has_nothing_to_scale():
    """On the CPU MONAI's gradient scaler is disabled, would let the step pass, and warns of itself."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))
    flat = [{name: value[..., 0] for name, value in batch.items()} for batch in _batches(3)]
    trainer = _trainer(network, flat, _failing("loss", at=2), amp=True)
    assert (trainer.precision, _trainer(network, flat, _failing("loss", at=2)).precision) == (
        "bfloat16",
        "float32",
    )
    trainer.run()
    assert trainer.skipped_steps == 1
    assert all(torch.isfinite(value).all() for value in network.parameters())


class _Counting(nn.Module):
    """An objective with running statistics of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, network, batch):
        output = LabeledOnly()(network, batch)
        self.seen += output["loss"].detach()
        return output


def test_what_a_skipped_step_did_to_running_statistics_is_undone():
    batches = _batches(3)
    batches[1]["image"] = batches[1]["image"] * torch.nan
    network, objective = _network(), _Counting()
    trainer = _trainer(network, batches, objective)
    states = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: states.append({**_copy(network), "seen": objective.seen.clone()})
    )
    trainer.run()
    assert trainer.skipped_steps == 1
    assert _same(states[0], states[1])
    assert all(torch.isfinite(value).all() for value in states[2].values())
    assert states[2]["1.num_batches_tracked"] == 2
    assert not torch.equal(states[1]["1.running_mean"], states[2]["1.running_mean"])


def test_mixed_precision_on_a_cpu_is_refused_for_volumes():
    with pytest.raises(ConfigError, match=r"amp.*3D network on a CPU"):
        _trainer(_network(), _batches(1), amp=True)


def test_nested_batches_move_to_the_device():
    tensor = torch.zeros(2)
    batch = {"image": tensor, "unlabeled": {"strong": MetaTensor(torch.ones(3)), "subject": ["a"]}, "n": 3}
    moved = on_device(batch, torch.device("meta"))
    assert moved["image"].device.type == moved["unlabeled"]["strong"].device.type == "meta"
    assert moved["unlabeled"]["subject"] == ["a"]
    assert moved["n"] == 3
    assert batch["image"] is tensor
    assert batch["unlabeled"]["strong"].device.type == "cpu"


def test_the_objective_gets_the_batch_on_the_device_and_the_progress():
    seen = []

    def objective(network, batch):
        seen.append(batch)
        return LabeledOnly()(network, batch)

    batches = [{**batch, "unlabeled": {"image": batch["image"]}} for batch in _batches(2)]
    trainer = _trainer(_network(), batches, objective, max_epochs=2)
    trainer.run()
    assert [batch["progress"] for batch in seen] == [0, 0.25, 0.5, 0.75]
    assert torch.equal(seen[0]["unlabeled"]["image"], batches[0]["image"])
    assert all("progress" not in batch for batch in batches)


def test_progress_runs_over_all_stages():
    seen = []

    def objective(network, batch):
        seen.append(batch["progress"])
        return LabeledOnly()(network, batch)

    trainer = _trainer(_network(), _batches(2), objective, max_epochs=4)
    assert trainer.total_steps == 8
    trainer.total_epochs = 4
    for end in (1, 3):
        trainer.state.max_epochs = end
        assert trainer.total_steps == 8
        trainer.run()
    assert seen == [step / 8 for step in range(6)]


@pytest.mark.parametrize("options", [{"accumulation_steps": 2}, {"compile": True}])
def test_accumulation_and_compile_are_refused(options, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network: network)  # takes seconds
    with pytest.raises(ConfigError, match="not supported"):
        _trainer(_network(), _batches(), **options)


def test_events_come_in_monais_order():
    network = _network()
    fired = []
    trainer = _trainer(network, _batches(1))
    for event in IterationEvents:
        if event in (IterationEvents.INNER_ITERATION_STARTED, IterationEvents.INNER_ITERATION_COMPLETED):
            continue
        trainer.add_event_handler(event, lambda _, event=event: fired.append(event.name))
    trainer.run()
    assert fired == ["FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED"]


def test_all_parts_of_the_objective_stand_in_the_output():
    def objective(network, batch):
        return {**LabeledOnly()(network, batch), "mass": torch.ones(3)}

    network = _network().eval()
    trainer = _trainer(network, _batches(1), objective)
    VanishingClasses(torch.ones(3), ["a", "b", "c"]).attach(trainer)
    trainer.run()
    assert set(trainer.state.output) == {"pred", "loss", "loss_labeled", "n_labeled", "mass"}
    assert network.training


@pytest.mark.parametrize(("gradient", "finite"), [(1.0, True), (torch.inf, False), (torch.nan, False)])
def test_one_bad_gradient_is_found(gradient, finite):
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert gradients_are_finite(network)
    network[1].bias.grad = torch.tensor([0.0, gradient])
    assert gradients_are_finite(network) is finite
